import numpy as np
import pytest

from engine.kernels.unit_rows import gather_unit_rows
from tests.kernels import naive
from tests.kernels.test_mmr import frozen


@pytest.mark.parametrize("layout", ["contiguous", "columns", "reversed", "fortran", "float16"])
def test_gather_matches_the_oracle_for_any_strides(layout: str) -> None:
    rng = np.random.default_rng(2)
    wide = rng.standard_normal((50, 20)).astype(np.float32)
    table = {
        "contiguous": np.ascontiguousarray(wide[:, :12]),
        "columns": wide[:, 3:15],
        "reversed": wide[::-2, :12],
        "fortran": np.asfortranarray(wide),
        "float16": wide.astype(np.float16),
    }[layout]
    rows = rng.integers(0, len(table), 30)
    units = gather_unit_rows(frozen(table), frozen(rows), 10)
    assert units.dtype == np.float32
    assert units.flags.c_contiguous
    # One rounding to float32 of values below 1.
    np.testing.assert_allclose(units, [naive.unit(table[row, :10]) for row in rows], atol=1e-6)


def test_gather_reads_a_memory_mapped_table(tmp_path) -> None:  # type: ignore[no-untyped-def]
    np.save(tmp_path / "table.npy", np.diag(np.array([2, 3, 4], np.float32)))
    mapped = np.load(tmp_path / "table.npy", mmap_mode="r")
    np.testing.assert_array_equal(gather_unit_rows(mapped, np.array([2, 0]), 3), np.eye(3)[[2, 0]])
    np.testing.assert_array_equal(mapped, np.diag([2, 3, 4]))


def test_gather_gives_zeros_for_vectors_without_direction_and_keeps_extreme_ones() -> None:
    table = np.array([[0, 0], [np.nan, 1], [np.inf, 1], [1e-30, 0], [3e38, 3e38]], np.float32)
    units = gather_unit_rows(table, np.arange(5), 2)
    np.testing.assert_allclose(units, [[0, 0], [0, 0], [0, 0], [1, 0], [np.sqrt(0.5)] * 2], atol=1e-6)


@pytest.mark.parametrize("row", [-1, 3])
def test_gather_refuses_rows_outside_the_table(row: int) -> None:
    with pytest.raises(IndexError):
        gather_unit_rows(np.ones((3, 2), np.float32), np.array([0, row]), 2)


def test_gather_refuses_a_narrow_table_and_takes_no_rows() -> None:
    with pytest.raises(ValueError, match="no vectors of 3"):
        gather_unit_rows(np.ones((3, 2), np.float32), np.array([0]), 3)
    assert gather_unit_rows(np.ones((3, 2), np.float32), np.empty(0, np.int64), 2).shape == (0, 2)
