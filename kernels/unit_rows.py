"""Rows of an item table at unit length: what items are compared by."""

import numba
import numpy as np
import numpy.typing as npt
from numba import types

from engine.kernels.arrays import Float32Array, Int64Array
from engine.kernels.signatures import REORDERED


def gather_unit_rows(table: npt.NDArray[np.floating], rows: Int64Array, dim: int) -> Float32Array:
    """Copy rows of an item table, scaled to unit length.

    Args:
        table: float32 or float16 (item_count, at least dim), any strides, may be memory-mapped; its first `dim`
            columns are used.
        rows: int64 (n,), each in [0, item_count); may repeat.
        dim: length of the vectors.

    Returns:
        float32 (n, dim), C-contiguous; a row with zero, NaN or infinite length becomes zeros.

    Raises:
        IndexError: a row outside the table. ValueError: a table narrower than dim.

    Cost: O(n * dim); one cache miss or more a row dominates on a large table.
    """
    if table.ndim != 2 or not 0 <= dim <= table.shape[1]:
        raise ValueError(f"a table of shape {table.shape} has no vectors of {dim} columns")
    if len(rows) and rows.min() < 0:
        raise IndexError(f"row {rows.min()} lies outside the table")  # numpy would count it from the end
    # numpy's gather takes any strides, and runs faster than a loop over them.
    units = np.ascontiguousarray(np.asarray(table)[:, :dim][rows], dtype=np.float32)
    _scale_rows(units)
    return units


@numba.njit(types.void(types.float32[::1]), **REORDERED)
def scale_to_unit(vector):  # type: ignore[no-untyped-def]
    """Scale a vector to unit length in place; one of zero, NaN or infinite length becomes zeros."""
    # In float64 no finite float32 over- or underflows when squared.
    square = 0.0
    for d in range(len(vector)):
        value = np.float64(vector[d])
        square += value * value
    if square > 0.0 and np.isfinite(square):
        scale = 1.0 / np.sqrt(square)
        for d in range(len(vector)):
            vector[d] = np.float32(vector[d] * scale)
    else:
        vector[:] = np.float32(0.0)


@numba.njit(types.void(types.float32[:, ::1]), **REORDERED)
def _scale_rows(vectors):  # type: ignore[no-untyped-def]
    for row in range(len(vectors)):
        scale_to_unit(vectors[row])
