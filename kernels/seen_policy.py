"""Applies a seen policy to what a user did: which items it hides, and which ones it demotes."""

from typing import NamedTuple

import numba
import numpy as np
from numba import types

from engine.kernels.arrays import Float32Array, Int64Array, UInt8Array
from engine.kernels.seen_items import IMPRESSION, SeenColumns
from engine.kernels.signatures import BYTES, EXACT, FLOATS, ROWS, read_only

# The least that showings leave of a score.
_LEAST = 0.05
# Rows are looked for where the low bits of one that is there agree: 12 bits tell nearly all others apart.
_LOW_BITS = 4095


class Judged(NamedTuple):
    """Places among the columns: those that hide, then those that make an item recent, then those that tire it.

    places: int64 (m,). hidden, recent: how many of them are the first, and how many the next. factors: float32
    (m - hidden - recent,), what is left of a tired item's score, in [0.05, 1).
    """

    places: Int64Array
    hidden: int
    recent: int
    factors: Float32Array


class Resolved(NamedTuple):
    """Of the items that could be shown otherwise, by rising row: which ones are hidden, recent or tired.

    hidden, recent: int64 (h,) and (r,), positions among the judged places; a row may be there with several.
    tired: int64 (t,), rows. factors: float32 (t,), in step.
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
    keys, kinds, times_s, counts = seen
    if not len(keys) == len(kinds) == len(times_s) == len(counts):
        raise ValueError("columns of different lengths")
    if len(hide_s) != 256 or len(demote_s) != 256:
        raise ValueError("durations are by event type, of which there are 256")
    return Judged(*_judge(kinds, times_s, counts, now_s, hide_s, demote_s, free_count, half_life_s))


def resolve_rows(judged: Judged, rows: Int64Array, eligible: UInt8Array) -> Resolved:
    """Clear the bits of hidden rows, and leave out what could not be shown anyway. What is hidden is not recent, too.

    Args:
        rows: int64 (m,), of the judged places; -1 for an unknown item. eligible: uint8 (bytes,), writable.

    Raises:
        ValueError: another number of rows than of places.

    Cost: O(m log m).
    """
    if len(rows) != len(judged.places):
        raise ValueError(f"{len(rows)} rows for {len(judged.places)} places")
    return Resolved(*_resolve_rows(rows, judged.hidden, judged.recent, judged.factors, eligible))


def demotions(
    rows: Int64Array, recent_rows: Int64Array, recent_factor: float, tired_rows: Int64Array, tired_factors: Float32Array
) -> Float32Array:
    """What to multiply the scores of rows by: float32 (n,).

    Args:
        rows: int64 (n,). recent_rows: int64 (r,), ascending. tired_rows: int64 (t,), ascending.
        tired_factors: float32 (t,).

    Raises:
        ValueError: tired rows and factors of different lengths.

    Cost: O(n * log(r + t)), about 10 µs for 1000 rows among 500.
    """
    if len(tired_rows) != len(tired_factors):
        raise ValueError(f"{len(tired_rows)} rows and {len(tired_factors)} factors differ")
    factors: Float32Array = _demotions(rows, recent_rows, recent_factor, tired_rows, tired_factors)
    return factors


def within_limit(rows: Int64Array, recent_rows: Int64Array, limit: int) -> Int64Array:
    """Positions of the rows that stay, where of the recent ones the first `limit` do: int64 (m,), ascending.

    Args:
        rows: int64 (n,). recent_rows: int64 (r,), ascending.

    Cost: O(n * log r).
    """
    positions: Int64Array = _within_limit(rows, recent_rows, limit)
    return positions


@numba.njit(
    types.Tuple((types.int64[::1], types.int64, types.int64, types.float32[::1]))(
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
            # What was within the free ones then still is: a power for the few others.
            if free_count > 0 and counts[place] > free_count:
                left = counts[place] * 0.5 ** (age_s / half_life_s)
                if left > free_count:
                    tired[tired_count] = place
                    factors[tired_count] = max(0.5 ** ((left - free_count) / free_count), _LEAST)
                    tired_count += 1
        elif age_s < hide_s[kind]:
            hidden[hidden_count] = place
            hidden_count += 1
        elif age_s < demote_s[kind]:
            recent[recent_count] = place
            recent_count += 1
    places = np.empty(hidden_count + recent_count + tired_count, np.int64)
    places[:hidden_count] = hidden[:hidden_count]
    places[hidden_count : hidden_count + recent_count] = recent[:recent_count]
    places[hidden_count + recent_count :] = tired[:tired_count]
    return places, hidden_count, recent_count, factors[:tired_count]


@numba.njit(types.int64[::1](ROWS, types.int64, types.int64, BYTES), **EXACT)
def _members_by_row(rows, start, stop, bitmap):  # type: ignore[no-untyped-def]
    """Positions in [start, stop) whose row's bit is set, by rising row; those of one row in their order."""
    found = np.empty(stop - start, np.int64)
    count = 0
    for position in range(start, stop):
        row = rows[position]
        if 0 <= row < len(bitmap) * 8 and (bitmap[row >> 3] >> (row & 7)) & 1 == 1:
            found[count] = position
            count += 1
    found = found[:count]
    return found[np.argsort(rows[found], kind="mergesort")]


@numba.njit(
    types.Tuple((types.int64[::1], types.int64[::1], types.int64[::1], types.float32[::1]))(
        ROWS, types.int64, types.int64, FLOATS, types.uint8[::1]
    ),
    **EXACT,
)
def _resolve_rows(rows, hidden_count, recent_count, factors, eligible):  # type: ignore[no-untyped-def]
    first_tired = hidden_count + recent_count
    hidden = _members_by_row(rows, 0, hidden_count, eligible)
    tired = _members_by_row(rows, first_tired, len(rows), eligible)
    for position in hidden:
        row = rows[position]
        eligible[row >> 3] &= np.uint8(~(1 << (row & 7)) & 0xFF)
    recent = _members_by_row(rows, hidden_count, first_tired, eligible)
    tired_rows, tired_factors = np.empty(len(tired), np.int64), np.empty(len(tired), np.float32)
    for place in range(len(tired)):
        tired_rows[place] = rows[tired[place]]
        tired_factors[place] = factors[tired[place] - first_tired]
    return hidden, recent, tired_rows, tired_factors


@numba.njit(types.int64(ROWS, types.int64), **EXACT)
def _place_of(sorted_rows, row):  # type: ignore[no-untyped-def]
    """The position of a row; -1 where it is missing."""
    low, high = 0, len(sorted_rows)
    while low < high:
        middle = (low + high) >> 1
        if sorted_rows[middle] < row:
            low = middle + 1
        else:
            high = middle
    return low if low < len(sorted_rows) and sorted_rows[low] == row else -1


@numba.njit(types.void(types.boolean[::1], ROWS), **EXACT)
def _mark(marks, rows):  # type: ignore[no-untyped-def]
    for row in rows:
        marks[row & _LOW_BITS] = True


@numba.njit(types.float32[::1](ROWS, ROWS, types.float64, ROWS, FLOATS), **EXACT)
def _demotions(rows, recent_rows, recent_factor, tired_rows, tired_factors):  # type: ignore[no-untyped-def]
    factors, marks = np.ones(len(rows), np.float32), np.zeros(_LOW_BITS + 1, np.bool_)
    _mark(marks, recent_rows)
    _mark(marks, tired_rows)
    for i in range(len(rows)):
        if not marks[rows[i] & _LOW_BITS]:
            continue
        if _place_of(recent_rows, rows[i]) >= 0:
            factors[i] *= np.float32(recent_factor)
        place = _place_of(tired_rows, rows[i])
        if place >= 0:
            factors[i] *= tired_factors[place]
    return factors


@numba.njit(types.int64[::1](ROWS, ROWS, types.int64), **EXACT)
def _within_limit(rows, recent_rows, limit):  # type: ignore[no-untyped-def]
    positions = np.empty(len(rows), np.int64)
    count, left = 0, limit
    marks = np.zeros(_LOW_BITS + 1, np.bool_)
    _mark(marks, recent_rows)
    for i in range(len(rows)):
        if marks[rows[i] & _LOW_BITS] and _place_of(recent_rows, rows[i]) >= 0:
            left -= 1
            if left < 0:
                continue
        positions[count] = i
        count += 1
    return positions[:count]
