import numba
import numpy as np

from engine.kernels import prefetch


def test_rows_of_any_table_can_be_asked_for_and_nothing_changes() -> None:
    for count, width in ((0, 3), (1, 1), (5, 16), (7, 33)):
        table = np.random.default_rng(0).standard_normal((count, width)).astype(np.float32)
        before = table.copy()
        table.flags.writeable = False
        rows = np.array([0, 4, -1, 6, 2**62, -(2**62)])
        prefetch.prefetch_rows(table, rows)
        prefetch.prefetch_rows(table, rows[:0])
        np.testing.assert_array_equal(table, before)


def test_the_machine_is_told_to_prefetch() -> None:
    # Compiled again: of what came from numba's cache there is nothing to be seen.
    compiled = numba.njit(prefetch._prefetch_rows.signatures)(prefetch._prefetch_rows.py_func)
    (code,) = compiled.inspect_llvm().values()
    assert "call void @llvm.prefetch" in code
