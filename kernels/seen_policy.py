"""What a seen policy makes of what a user did: which items it hides, and which ones it puts behind others."""

from typing import NamedTuple

import numba
import numpy as np
import numpy.typing as npt
from numba import types

from kernels.seen_items import IMPRESSION, SeenColumns
from kernels.signatures import EXACT, FLOATS, ROWS, read_only

Float32Array = npt.NDArray[np.float32]
Int64Array = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

# The least that showings leave of a score.
_LEAST = 0.05


class Judged(NamedTuple):
    """Places among the columns, each int64: hidden (h,), recent (r,), tired (t,); and of the tired ones the factors.

    An item can be at several of them. factors: float32 (t,), in [0.05, 1).
    """

    hidden: Int64Array
    recent: Int64Array
    tired: Int64Array
    factors: Float32Array


def judge(
    seen: SeenColumns, now_s: int, hide_s: Int64Array, demote_s: Int64Array, free_count: float, half_life_s: float
) -> Judged:
    """Which events count at a moment, and how.

    An event hides its item for hide_s of its type; one that does not makes it a recent one for demote_s. Showings
    beyond free_count make an item tired: as many again halve its score, and so on. They halve with time themselves. An
    event after `now_s` counts as one of now.

    Args:
        seen: n events. now_s: Unix seconds. hide_s, demote_s: int64 (256,), by event type.
        free_count: showings that cost nothing; 0: no item is ever tired.

    Raises:
        ValueError: columns of different lengths, tables of another length.

    Cost: O(n), 2 ns each.
    """
    if any(len(column) != len(seen.item_keys) for column in seen):
        raise ValueError("columns of different lengths")
    if len(hide_s) != 256 or len(demote_s) != 256:
        raise ValueError("durations are by event type, of which there are 256")
    return Judged(
        *_judge(seen.event_types, seen.times_s, seen.counts, now_s, hide_s, demote_s, free_count, half_life_s)
    )


def demotions(
    rows: Int64Array, recent_rows: Int64Array, recent_factor: float, tired_rows: Int64Array, tired_factors: Float32Array
) -> tuple[Float32Array, BoolArray]:
    """What to multiply the scores of rows by, float32 (n,), and which ones are recent, bool (n,).

    Args:
        rows: int64 (n,). recent_rows: int64 (r,), ascending. tired_rows: int64 (t,), ascending.
        tired_factors: float32 (t,).

    Cost: O(n * log(r + t)), about 10 µs for 1000 rows among 500.
    """
    if len(tired_rows) != len(tired_factors):
        raise ValueError(f"{len(tired_rows)} rows and {len(tired_factors)} factors differ")
    found: tuple[Float32Array, BoolArray] = _demotions(rows, recent_rows, recent_factor, tired_rows, tired_factors)
    return found


@numba.njit(
    types.Tuple((types.int64[::1], types.int64[::1], types.int64[::1], types.float32[::1]))(
        read_only(types.uint8), ROWS, FLOATS, types.int64, ROWS, ROWS, types.float64, types.float64
    ),
    **EXACT,
)
def _judge(kinds, times_s, counts, now_s, hide_s, demote_s, free_count, half_life_s):  # type: ignore[no-untyped-def]
    size = len(kinds)
    hidden, recent, tired = np.empty(size, np.int64), np.empty(size, np.int64), np.empty(size, np.int64)
    factors = np.empty(size, np.float32)
    hidden_count, recent_count, tired_count = 0, 0, 0
    for place in range(size):
        kind = kinds[place]
        age_s = max(now_s - times_s[place], 0)
        if kind == IMPRESSION:
            if free_count > 0:
                left = counts[place] * 0.5 ** (age_s / half_life_s)
                if left > free_count:
                    tired[tired_count] = place
                    factors[tired_count] = max(0.5 ** ((left - free_count) / free_count), _LEAST)
                    tired_count += 1
            continue
        if age_s < hide_s[kind]:
            hidden[hidden_count] = place
            hidden_count += 1
        elif age_s < demote_s[kind]:
            recent[recent_count] = place
            recent_count += 1
    return hidden[:hidden_count], recent[:recent_count], tired[:tired_count], factors[:tired_count]


@numba.njit(types.int64(ROWS, types.int64), **EXACT)
def _place_of(sorted_rows, row):  # type: ignore[no-untyped-def]
    """Where a row stands; -1 where it does not."""
    low, high = 0, len(sorted_rows)
    while low < high:
        middle = (low + high) >> 1
        if sorted_rows[middle] < row:
            low = middle + 1
        else:
            high = middle
    return low if low < len(sorted_rows) and sorted_rows[low] == row else -1


@numba.njit(types.Tuple((types.float32[::1], types.boolean[::1]))(ROWS, ROWS, types.float64, ROWS, FLOATS), **EXACT)
def _demotions(rows, recent_rows, recent_factor, tired_rows, tired_factors):  # type: ignore[no-untyped-def]
    factors, recent = np.ones(len(rows), np.float32), np.zeros(len(rows), np.bool_)
    for i in range(len(rows)):
        if _place_of(recent_rows, rows[i]) >= 0:
            recent[i] = True
            factors[i] *= np.float32(recent_factor)
        place = _place_of(tired_rows, rows[i])
        if place >= 0:
            factors[i] *= tired_factors[place]
    return factors, recent
