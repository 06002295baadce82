"""Maximal marginal relevance: a slate that is relevant and not all alike."""

import math

import numba
import numpy as np
import numpy.typing as npt
from numba import types

from kernels.constraints import SlateConstraints
from kernels.signatures import REORDERED
from kernels.slate import Slate, select_slate

Float32Array = npt.NDArray[np.float32]
Int64Array = npt.NDArray[np.int64]


def mmr_slate(
    relevance: Float32Array,
    embeddings: Float32Array,
    relevance_weight: float,
    k: int,
    duplicate_similarity: float = math.inf,
    constraints: SlateConstraints | None = None,
) -> Slate:
    """Pick k items greedily, trading relevance against similarity to what is already picked.

    Each step takes the item with the largest
    `relevance_weight * relevance - (1 - relevance_weight) * max similarity to the picked`, among those that break the
    fewest rules; the first takes the most relevant one.

    Args:
        relevance: float32 (n,), comparable with cosine similarity; higher is better. NaN and infinity come after all
            others that break no more rules, in index order.
        embeddings: float32 (n, dim), C-contiguous, unit-length rows; a zero row is similar to nothing.
        relevance_weight: in [0, 1]; 1 keeps relevance order.
        k: slate size; above n returns all n.
        duplicate_similarity: a candidate with at least this cosine to an earlier item gives way while anything else is
            left; 1 means identical but for rounding (1e-6), and well above 1 there are no duplicates.
        constraints: over n candidates and k positions.

    Returns:
        The slate; ties go to the lower index. The penalties are `(1 - relevance_weight) * max similarity`, below 0
        for an item that is opposed to all earlier ones.

    Raises:
        ValueError: as `select_slate`.

    Cost: O(k * n * dim) time at worst, O(n) memory. Similarity to the picked only ever grows, so that an item's last
    known score bounds its present one, and most items need not be compared with most picks (lazy greedy).
    Source: Carbonell & Goldstein, SIGIR 1998; lazy evaluation: Minoux, 1978.
    """
    return select_slate(False, relevance, embeddings, relevance_weight, k, duplicate_similarity, constraints)


def gather_unit_rows(table: npt.NDArray[np.floating], rows: Int64Array, dim: int) -> Float32Array:
    """Copy rows of an item table, scaled to unit length: what slates are compared by.

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
    _scale_to_unit(units)
    return units


@numba.njit(types.void(types.float32[:, ::1]), **REORDERED)
def _scale_to_unit(vectors):  # type: ignore[no-untyped-def]
    for row in range(len(vectors)):
        # In float64 no finite float32 over- or underflows when squared.
        square = 0.0
        for d in range(vectors.shape[1]):
            value = np.float64(vectors[row, d])
            square += value * value
        if square > 0.0 and np.isfinite(square):
            scale = 1.0 / np.sqrt(square)
            for d in range(vectors.shape[1]):
                vectors[row, d] = np.float32(vectors[row, d] * scale)
        else:
            for d in range(vectors.shape[1]):
                vectors[row, d] = np.float32(0.0)
