"""The best few, in order: of scores, and of an order that is already known."""

import numba
import numpy as np
import numpy.typing as npt
from numba import types

from engine.kernels.arrays import Float32Array, Int64Array, UInt8Array, UInt64Array
from engine.kernels.signatures import BYTES, EXACT, FLOATS, ROWS, read_only

_NO_ROWS = np.empty(0, np.int64)
# Where more than so many times k are given, a histogram leaves most of them out before anything is sorted: the best
# 1,000 of 12,600 take 37 µs that way, and 122 by partitioning all.
_SELECT_FROM = 4
_BUCKETS = 2048
# All of these bits are set in what is not finite.
_EXPONENT = np.int32(0x7F800000)


def top_k(scores: Float32Array, k: int) -> Int64Array:
    """Positions of the k largest scores, best first.

    Args:
        scores: float32 (n,), C-contiguous, n below 2 ** 32. NaN and both infinities rank below every finite score.
        k: how many; above n returns all n.

    Returns:
        int64 (min(k, n),) positions; ties go to the lower one.

    Raises:
        ValueError: a negative k.

    Cost: O(n + k log k). Score and position are packed into one integer, so that an ordinary, vectorized sort of
    integers is a stable sort of the scores.
    """
    if k < 0:
        raise ValueError(f"k must not be negative, not {k}")
    keys: UInt64Array = _best_keys(scores, k) if 0 < _SELECT_FROM * k < len(scores) else _sort_keys(scores)
    if k < len(keys):
        if k == 0:
            return _NO_ROWS.copy()
        keys.partition(k - 1)
        keys = keys[:k]
    keys.sort()
    return (keys & np.uint64(0xFFFFFFFF)).astype(np.int64)


def merge_top(
    rows: Int64Array, scores: Float32Array, more_rows: Int64Array, more_scores: Float32Array, k: int
) -> tuple[Int64Array, Float32Array]:
    """The k best of a list that is best first and of some more in any order.

    Args:
        rows int64 (n,), scores float32 (n,), falling; more_rows int64 (m,), more_scores float32 (m,), finite.

    Returns:
        rows int64 (min(k, n + m),) and scores float32, best first; on a tie the list's own go first, and of the others
        those that stand first.

    Cost: O(k + m log m).
    """
    merged: tuple[Int64Array, Float32Array] = _merge_top(rows, scores, more_rows, more_scores, k)
    return merged


def first_eligible(
    order: npt.NDArray[np.integer], bitmap: UInt8Array, limit: int, skip_rows: Int64Array = _NO_ROWS
) -> Int64Array:
    """Where the first rows of an order stand whose bit is set, such as the most popular items that may be shown.

    Args:
        order: int32 or int64 (n,), rows, best first, unique; -1, or any row outside the bitmap, is padding.
        bitmap: uint8 (bytes,), bit `row & 7` of byte `row >> 3`.
        limit: how many are wanted; 0 or less gives none.
        skip_rows: int64 (m,), rows to leave out though their bit is set, in any order.

    Returns:
        int64 (at most limit,) positions in `order`, ascending.

    Cost: O(visited * log m + m log m); the walk ends at the limit.
    """
    positions: Int64Array = _first_eligible(order, bitmap, limit, np.sort(skip_rows))
    return positions


@numba.njit(types.int32(types.int32), inline="always", **EXACT)
def _ordered(pattern):  # type: ignore[no-untyped-def]
    """A number that rises with the finite float32 of this bit pattern; both zeros tie."""
    if pattern == np.int32(-0x80000000):
        pattern = np.int32(0)
    return pattern ^ ((pattern >> np.int32(31)) & np.int32(0x7FFFFFFF))


@numba.njit(types.uint64(types.int32, types.int64), inline="always", **EXACT)
def _key(ordered, i):  # type: ignore[no-untyped-def]
    return (np.uint64(np.int64(0x7FFFFFFF) - np.int64(ordered)) << np.uint64(32)) | np.uint64(i)


@numba.njit(types.uint64[::1](FLOATS), **EXACT)
def _sort_keys(scores):  # type: ignore[no-untyped-def]
    keys = np.empty(len(scores), np.uint64)
    bits = scores.view(np.int32)
    for i in range(len(scores)):
        if (bits[i] & _EXPONENT) == _EXPONENT:
            keys[i] = (np.uint64(0xFFFFFFFF) << np.uint64(32)) | np.uint64(i)
        else:
            keys[i] = _key(_ordered(bits[i]), i)
    return keys


@numba.njit(types.uint64[::1](FLOATS, types.int64), **EXACT)
def _best_keys(scores, k):  # type: ignore[no-untyped-def]
    """Keys of the k largest and, as they come, of those that share the last one's bucket; of all where there is a score
    that is not finite, or where buckets do not tell them apart. Each loop does little, so that most vectorize."""
    count = len(scores)
    bits = scores.view(np.int32)
    lowest = np.int32(0x7FFFFFFF)
    highest = np.int32(-0x80000000)
    finite = 0
    for i in range(count):
        ordered = _ordered(bits[i])
        lowest = min(lowest, ordered)
        highest = max(highest, ordered)
        finite += (bits[i] & _EXPONENT) != _EXPONENT
    ends = np.array([_ordered(lowest), _ordered(highest)], np.int32).view(np.float32)
    low = ends[0]
    scale = np.float32(_BUCKETS - 1) / (ends[1] - low) if ends[1] > low else np.float32(0.0)
    if finite < count or not (scale > 0.0 and np.isfinite(scale)):
        return _sort_keys(scores)
    buckets = np.empty(count, np.int32)
    for i in range(count):
        # Never falls as the score rises, rounding or not.
        buckets[i] = np.int32((scores[i] - low) * scale)
    counts = np.zeros(_BUCKETS + 1, np.int64)
    for i in range(count):
        counts[buckets[i]] += 1
    last = _BUCKETS
    found = counts[last]
    while found < k:
        last -= 1
        found += counts[last]
    keys = np.empty(found + 1, np.uint64)
    at = 0
    for i in range(count):
        # Written in any case, and kept by moving on: the processor cannot guess which are.
        keys[at] = _key(_ordered(bits[i]), i)
        at += buckets[i] >= last
    return keys[:found]


@numba.njit(types.Tuple((types.int64[::1], types.float32[::1]))(ROWS, FLOATS, ROWS, FLOATS, types.int64), **EXACT)
def _merge_top(rows, scores, more_rows, more_scores, k):  # type: ignore[no-untyped-def]
    count = min(k, len(rows) + len(more_rows))
    out_rows = np.empty(count, np.int64)
    out_scores = np.empty(count, np.float32)
    order = np.argsort(-more_scores, kind="mergesort")
    first = 0
    more = 0
    for i in range(count):
        if more == len(order) or (first < len(rows) and scores[first] >= more_scores[order[more]]):
            out_rows[i] = rows[first]
            out_scores[i] = scores[first]
            first += 1
        else:
            out_rows[i] = more_rows[order[more]]
            out_scores[i] = more_scores[order[more]]
            more += 1
    return out_rows, out_scores


_ORDER_TAIL = (BYTES, types.int64, ROWS)


@numba.njit(
    [types.int64[::1](read_only(types.int32), *_ORDER_TAIL), types.int64[::1](ROWS, *_ORDER_TAIL)],
    **EXACT,
)
def _first_eligible(order, bitmap, limit, skip_rows):  # type: ignore[no-untyped-def]
    bits = len(bitmap) * 8
    positions = np.empty(max(min(limit, len(order)), 0), np.int64)
    found = 0
    for i in range(len(order)):
        if found == len(positions):
            break
        row = np.int64(order[i])
        if row < 0 or row >= bits or (bitmap[row >> 3] >> (row & 7)) & 1 == 0:
            continue
        place = np.searchsorted(skip_rows, row)
        if place < len(skip_rows) and skip_rows[place] == row:
            continue
        positions[found] = i
        found += 1
    return positions[:found]
