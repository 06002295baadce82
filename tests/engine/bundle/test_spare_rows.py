"""A mapped matrix that can grow: the file's rows, zeros behind them, and a file that nobody can write to."""

import gc
import resource
from pathlib import Path

import numpy as np
import pytest

from engine.bundle.spare_rows import map_with_spare_rows
from engine.errors import BundleError


@pytest.mark.parametrize("rows", [1, 7, 1000, 4096])
def test_it_holds_the_file_and_zeros_behind_it(tmp_path: Path, rows: int) -> None:
    content = np.random.default_rng(rows).normal(size=(rows, 33)).astype(np.float32)
    path = tmp_path / "matrix.npy"
    np.save(path, content)
    table = map_with_spare_rows(path, rows + 5000)
    assert table.shape == (rows + 5000, 33)
    assert table.flags.c_contiguous
    np.testing.assert_array_equal(table[:rows], content)
    assert not table[rows:].any()


def test_writes_stay_in_the_process(tmp_path: Path) -> None:
    path = tmp_path / "matrix.npy"
    np.save(path, np.ones((100, 8), np.float32))
    before = path.read_bytes()
    first, second = map_with_spare_rows(path, 200), map_with_spare_rows(path, 200)
    first[3] = 7
    first[150] = 9
    assert (second[3] == 1).all()
    assert not second[150].any()
    view = first[140:160]
    del first
    gc.collect()
    assert (view[10] == 9).all()
    assert path.read_bytes() == before


def test_the_mapping_is_given_back(tmp_path: Path) -> None:
    path = tmp_path / "matrix.npy"
    np.save(path, np.ones((1000, 64), np.float32))

    def mapped() -> int:
        return sum("matrix.npy" in line for line in Path("/proc/self/maps").read_text().splitlines())

    if not Path("/proc/self/maps").exists():
        pytest.skip("the system has no /proc")
    table = map_with_spare_rows(path, 100_000)
    assert mapped() == 1
    del table
    gc.collect()
    assert mapped() == 0


def test_room_takes_no_memory_until_it_is_used(tmp_path: Path) -> None:
    path = tmp_path / "matrix.npy"
    np.save(path, np.ones((10, 64), np.float32))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    table = map_with_spare_rows(path, 4_000_000)  # 1 GB
    table[3_999_999] = 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


def test_what_is_no_such_matrix_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "matrix.npy"
    np.save(path, np.ones((10, 4)))
    with pytest.raises(BundleError, match=r"matrix\.npy: float64"):
        map_with_spare_rows(path, 10)
    np.save(path, np.ones((10, 4), np.float32))
    with pytest.raises(BundleError, match="at most 9 rows"):
        map_with_spare_rows(path, 9)
    with pytest.raises(BundleError, match=r"gone\.npy"):
        map_with_spare_rows(tmp_path / "gone.npy", 9)
