import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.kernels import scan
from engine.kernels.membership import pack_mask
from tests.kernels import naive


@given(seed=st.integers(0, 2**32 - 1), item_count=st.integers(0, 70), dim=st.sampled_from([1, 7, 64]))
@settings(deadline=None)
def test_scan_matches_the_oracle(seed: int, item_count: int, dim: int) -> None:
    rng = np.random.default_rng(seed)
    table = rng.standard_normal((item_count, dim + 2)).astype(np.float32)
    query = rng.standard_normal(dim).astype(np.float32)
    # One byte more than needed, and bits past the last item.
    bitmap = rng.integers(0, 256, item_count // 8 + 1).astype(np.uint8)
    for array in (table, query, bitmap):
        array.flags.writeable = False
    rows, scores = scan.scan_eligible(table, query, bitmap)
    expected = naive.scan_eligible(table, query, bitmap)
    assert (rows.dtype, scores.dtype) == (np.int64, np.float32)
    assert rows.tolist() == list(expected)
    # Float32 sums of at most 64 products of order 1.
    np.testing.assert_allclose(scores, list(expected.values()), atol=1e-4)


def test_scan_reads_a_memory_mapped_table(tmp_path) -> None:  # type: ignore[no-untyped-def]
    np.save(tmp_path / "table.npy", np.diag(np.array([2, 3, 4], np.float32)))
    mapped = np.load(tmp_path / "table.npy", mmap_mode="r")
    rows, scores = scan.scan_eligible(mapped, np.ones(3, np.float32), np.array([0b110], np.uint8))
    assert rows.tolist() == [1, 2]
    assert scores.tolist() == [3, 4]


@pytest.mark.parametrize(("dim", "byte_count"), [(3, 2), (2, 1)])
def test_scan_refuses_shapes_that_do_not_match(dim: int, byte_count: int) -> None:
    with pytest.raises(ValueError, match="do not match"):
        scan.scan_eligible(np.ones((9, 2), np.float32), np.ones(dim, np.float32), np.ones(byte_count, np.uint8))


@given(st.integers(0, 200), st.integers(1, 20), st.floats(0, 1), st.sampled_from((-np.inf, -1.0, 0.0, 0.7, np.inf)))
@settings(deadline=None)
def test_above_a_floor(count: int, dim: int, share: float, floor: float) -> None:
    rng = np.random.default_rng(count)
    table, query = rng.normal(size=(count, dim)).astype(np.float32), rng.normal(size=dim).astype(np.float32)
    mask = rng.random(count) < share
    rows, scores = scan.scan_above(table, query, pack_mask(mask), floor)
    expected = table @ query
    kept = np.flatnonzero(mask & (expected > floor))
    # What is as good as on the floor may fall on either side: sums are added up in another order.
    clear = np.abs(expected - floor) > 1e-5
    assert rows[clear[rows]].tolist() == kept[clear[kept]].tolist()
    np.testing.assert_allclose(scores, expected[rows], rtol=1e-4, atol=1e-5)


def test_nan_is_above_nothing() -> None:
    table = np.array([[np.nan], [1.0], [np.inf]], np.float32)
    rows, _ = scan.scan_above(table, np.ones(1, np.float32), np.array([7], np.uint8), -np.inf)
    assert rows.tolist() == [1, 2]
    with pytest.raises(ValueError, match="do not match"):
        scan.scan_above(table, np.ones(2, np.float32), np.array([7], np.uint8), 0.0)
