"""Means of rows by group."""

import numba
import numpy as np
from numba import types

from engine.kernels.arrays import Float32Array, Float64Array, Int64Array
from engine.kernels.signatures import EXACT, ROWS, STRIDED_MATRIX


def group_means(
    table: Float32Array, rows: Int64Array, groups: Int64Array, group_count: int
) -> tuple[Float64Array, Int64Array]:
    """The mean row of each group.

    Args:
        table: float32 (item_count, dim), any strides, may be memory-mapped.
        rows: int64 (n,), each in [0, item_count).
        groups: int64 (n,), the group of each of them, in [0, group_count).

    Returns:
        float64 (group_count, dim), zeros for a group without rows, and int64 (group_count,), its rows.

    Raises:
        IndexError: a row or a group outside its range. ValueError: rows and groups that differ in number.

    Cost: O(n * dim), one cache miss or more a row.
    """
    if len(rows) != len(groups):
        raise ValueError(f"{len(rows)} rows have {len(groups)} groups")
    for name, values, bound in (("row", rows, len(table)), ("group", groups, group_count)):
        if len(values) and not 0 <= values.min() <= values.max() < bound:
            raise IndexError(f"a {name} lies outside [0, {bound})")
    return _group_means(table, rows, groups, group_count)  # type: ignore[no-any-return]


@numba.njit(types.Tuple((types.float64[:, ::1], types.int64[::1]))(STRIDED_MATRIX, ROWS, ROWS, types.int64), **EXACT)
def _group_means(table, rows, groups, group_count):  # type: ignore[no-untyped-def]
    means = np.zeros((group_count, table.shape[1]), np.float64)
    counts = np.zeros(group_count, np.int64)
    for place in range(len(rows)):
        group = groups[place]
        counts[group] += 1
        for column in range(table.shape[1]):
            means[group, column] += np.float64(table[rows[place], column])
    for group in range(group_count):
        if counts[group] > 0:
            for column in range(table.shape[1]):
                means[group, column] /= counts[group]
    return means, counts
