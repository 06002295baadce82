"""Decayed counts of users, kept as of each item's latest event: moving users, and reading counts at one moment."""

import math

import numba
import numpy as np
from numba import types

from engine.kernels.arrays import BoolArray, Float64Array, Int64Array
from engine.kernels.signatures import EXACT, ROWS, read_only

# Columns of packed entries are not contiguous.
_TIMES = types.Array(types.int64, 1, "A")
_COUNTS = types.Array(types.float64, 2, "A")


def count_moves(
    references_ms: Int64Array,
    counts: Float64Array,
    changed: BoolArray,
    size: int,
    positions: Int64Array,
    before_ms: Int64Array,
    after_ms: Int64Array,
    lifetimes_ms: Float64Array,
) -> int:
    """Move users, one after the other, in the entries at their positions, in place.

    A user counts as of one moment, with what is left of one by then. A move takes off what they counted for before,
    and adds what they count for now. An entry holds the counts as of its reference time, the latest of these moments;
    none falls below 0. A fold: in how many calls the moves come makes no difference to any bit.

    Args:
        references_ms: int64 (capacity,), any stride; counts: float64 (capacity, windows), any strides;
            changed: bool (capacity,), set at every position that is counted. All writable.
        size: how many entries there are; what follows them is not read.
        positions: int64 (n,), one a move. The position after the last entry makes a new one.
        before_ms, after_ms: int64 (n,), Unix milliseconds as of which a user counted and counts, in any order;
            negative: not at all. One of the two at least is a moment.
        lifetimes_ms: float64 (windows,), positive; a count falls to 1/e in one of them.

    Returns:
        How many entries there are now.

    Raises:
        ValueError: arrays of different lengths, a position that is no entry's and not the next one, or one beyond the
            capacity; nothing has been counted then.

    Cost: O(n * windows) calls of exp.
    Source: the running sums of engine.features.popularity, exp(-(a + b)) = exp(-a) exp(-b).
    """
    if not len(positions) == len(before_ms) == len(after_ms):
        raise ValueError(f"{len(positions)} positions and {len(before_ms)} and {len(after_ms)} times differ")
    if not len(references_ms) == len(counts) == len(changed):
        raise ValueError(f"{len(references_ms)} times, {len(counts)} counts and {len(changed)} marks differ")
    if counts.shape[1] != len(lifetimes_ms):
        raise ValueError(f"{counts.shape[1]} windows and {len(lifetimes_ms)} lifetimes differ")
    if not 0 <= size <= len(references_ms):
        raise ValueError(f"{size} entries do not fit into {len(references_ms)} places")
    grown: int = _count_moves(references_ms, counts, changed, size, positions, before_ms, after_ms, lifetimes_ms)
    if grown < 0:
        raise ValueError(f"a position is neither one of {size} entries nor the next, or past {len(references_ms)}")
    return grown


def counts_at(references_ms: Int64Array, counts: Float64Array, now_ms: int, lifetimes_ms: Float64Array) -> Float64Array:
    """The counts of every entry as of one moment: float64 (n, windows).

    Args:
        references_ms: int64 (n,), any stride; counts: float64 (n, windows), any strides.
        now_ms: Unix milliseconds; an entry whose reference time is later counts as it is.
        lifetimes_ms: float64 (windows,), positive.

    Raises:
        ValueError: arrays of different lengths.

    Cost: O(n * windows) calls of exp.
    """
    if len(references_ms) != len(counts) or counts.shape[1] != len(lifetimes_ms):
        raise ValueError(
            f"{len(references_ms)} times, {len(lifetimes_ms)} lifetimes and counts of {counts.shape} differ"
        )
    decayed: Float64Array = _counts_at(references_ms, counts, now_ms, lifetimes_ms)
    return decayed


@numba.njit(
    types.int64(_TIMES, _COUNTS, types.boolean[::1], types.int64, ROWS, ROWS, ROWS, read_only(types.float64)), **EXACT
)
def _count_moves(references_ms, counts, changed, size, positions, before_ms, after_ms, lifetimes_ms):  # type: ignore[no-untyped-def]
    grown = size
    for event in range(len(positions)):
        position = positions[event]
        if position < 0 or position > grown or position >= len(references_ms):
            return -1
        if position == grown:
            grown += 1
    for event in range(len(positions)):
        position = positions[event]
        before, after = before_ms[event], after_ms[event]
        latest = max(before, after)
        changed[position] = True
        if position == size:
            size += 1
            references_ms[position] = latest
            for window in range(len(lifetimes_ms)):
                counts[position, window] = 0.0
        elapsed_ms = latest - references_ms[position]
        if elapsed_ms > 0:
            references_ms[position] = latest
            for window in range(len(lifetimes_ms)):
                counts[position, window] *= math.exp(-np.float64(elapsed_ms) / lifetimes_ms[window])
        reference = references_ms[position]
        for window in range(len(lifetimes_ms)):
            count = counts[position, window]
            if after >= 0:
                count += math.exp(np.float64(after - reference) / lifetimes_ms[window])
            if before >= 0:
                count -= math.exp(np.float64(before - reference) / lifetimes_ms[window])
            counts[position, window] = max(count, 0.0)
    return size


@numba.njit(
    types.float64[:, ::1](
        read_only(types.int64, 1, "A"), read_only(types.float64, 2, "A"), types.int64, read_only(types.float64)
    ),
    **EXACT,
)
def _counts_at(references_ms, counts, now_ms, lifetimes_ms):  # type: ignore[no-untyped-def]
    decayed = np.empty(counts.shape, np.float64)
    for entry in range(len(references_ms)):
        elapsed_ms = np.float64(max(0, now_ms - references_ms[entry]))
        for window in range(len(lifetimes_ms)):
            decayed[entry, window] = counts[entry, window] * math.exp(-elapsed_ms / lifetimes_ms[window])
    return decayed
