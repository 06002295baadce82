"""Maximal marginal relevance: a slate that is relevant and not all alike."""

import numba
import numpy as np
import numpy.typing as npt
from numba import types

from kernels.signatures import FLOATS, MATRIX, REORDERED

Float32Array = npt.NDArray[np.float32]
Int64Array = npt.NDArray[np.int64]


def mmr_select(relevance: Float32Array, embeddings: Float32Array, relevance_weight: float, k: int) -> Int64Array:
    """Pick k items greedily, trading relevance against similarity to what is already picked.

    Each step takes the item with the largest
    `relevance_weight * relevance - (1 - relevance_weight) * max similarity to the picked`; the first takes the most
    relevant one. Items whose relevance is NaN or infinite come after all others, in index order.

    Args:
        relevance: float32 (n,), comparable with cosine similarity; higher is better.
        embeddings: float32 (n, dim), C-contiguous, unit-length rows; a zero row is similar to nothing.
        relevance_weight: in [0, 1]; 1 keeps relevance order.
        k: slate size; above n returns all n.

    Returns:
        int64 (min(k, n),) row indices in slate order; ties go to the lower index.

    Raises:
        ValueError: shapes that do not match, a weight outside [0, 1], a negative k.

    Cost: O(k * n * dim) time at worst, O(n) memory. Similarity to the picked only ever grows, so that an item's last
    known score bounds its present one, and most items need not be compared with most picks (lazy greedy).
    Source: Carbonell & Goldstein, SIGIR 1998; lazy evaluation: Minoux, 1978.
    """
    if embeddings.ndim != 2 or len(relevance) != len(embeddings):
        raise ValueError(f"{len(relevance)} relevances do not match embeddings of shape {embeddings.shape}")
    if not 0.0 <= relevance_weight <= 1.0:
        raise ValueError(f"relevance_weight must lie in [0, 1], not {relevance_weight}")
    if k < 0:
        raise ValueError(f"k must not be negative, not {k}")
    picks: Int64Array = _mmr_select(relevance, embeddings, relevance_weight, k)
    return picks


def gather_unit_rows(table: npt.NDArray[np.floating], rows: Int64Array, dim: int) -> Float32Array:
    """Copy rows of an item table, scaled to unit length: what `mmr_select` compares.

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


@numba.njit(types.int64[::1](FLOATS, MATRIX, types.float64, types.int64), **REORDERED)
def _mmr_select(relevance, embeddings, relevance_weight, k):  # type: ignore[no-untyped-def]
    n, dim = embeddings.shape
    count = min(k, n)
    picks = np.empty(count, np.int64)
    if count == 0:
        return picks
    gains = np.empty(n, np.float32)
    closest = np.full(n, -np.inf, np.float32)  # largest similarity to the picks compared so far
    compared = np.zeros(n, np.int64)  # how many picks that is; -1 once picked or sunk
    weight = np.float32(relevance_weight)
    penalty = np.float32(1.0) - weight

    # The first pick is the most relevant item, whatever the weight.
    first = -1
    candidates = 0
    for i in range(n):
        gains[i] = weight * relevance[i]
        if not np.isfinite(relevance[i]):
            compared[i] = -1
            continue
        candidates += 1
        if first < 0 or relevance[i] > relevance[first]:
            first = i

    picked = 0
    best = first
    while picked < min(count, candidates):
        picks[picked] = best
        compared[best] = -1
        picked += 1
        best = -1
        best_score = np.float32(-np.inf)
        for i in range(n):
            seen = compared[i]
            if seen < 0:
                continue
            # An old score is an upper bound; on a tie the item already found has the lower index.
            if best >= 0 and seen > 0 and gains[i] - penalty * closest[i] <= best_score:
                continue
            for p in range(seen, picked):
                other = picks[p]
                similarity = np.float32(0.0)
                for d in range(dim):
                    similarity += embeddings[i, d] * embeddings[other, d]
                if not np.isfinite(similarity):
                    similarity = np.float32(0.0)
                closest[i] = max(closest[i], similarity)
            compared[i] = picked
            score = gains[i] - penalty * closest[i]
            if best < 0 or score > best_score:
                best = i
                best_score = score

    for i in range(n):
        if picked == count:
            break
        if not np.isfinite(relevance[i]):
            picks[picked] = i
            picked += 1
    return picks


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
