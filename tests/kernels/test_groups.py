import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.kernels.groups import group_means


@settings(deadline=None)
@given(data=st.data())
def test_means_are_those_of_an_obvious_loop(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    count, dim, groups = data.draw(st.integers(0, 40)), data.draw(st.integers(1, 5)), data.draw(st.integers(1, 6))
    wide = rng.normal(size=(30, dim + 3)).astype(np.float32)
    wide.flags.writeable = False
    table = wide[:, 1 : 1 + dim]
    rows, group = rng.integers(0, 30, count), rng.integers(0, groups, count)
    means, counts = group_means(table, rows, group, groups)
    for one in range(groups):
        members = [table[row] for row, its in zip(rows, group, strict=True) if its == one]
        assert counts[one] == len(members)
        expected = np.mean(members, axis=0, dtype=np.float64) if members else np.zeros(dim)
        np.testing.assert_allclose(means[one], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("rows", "groups"), [([30], [0]), ([-1], [0]), ([0], [2]), ([0], [-1])])
def test_what_lies_outside_is_refused(rows: list[int], groups: list[int]) -> None:
    with pytest.raises(IndexError):
        group_means(np.zeros((30, 2), np.float32), np.array(rows), np.array(groups), 2)


def test_rows_and_groups_go_together() -> None:
    with pytest.raises(ValueError, match="2 rows have 1 groups"):
        group_means(np.zeros((3, 2), np.float32), np.array([0, 1]), np.array([0]), 2)
