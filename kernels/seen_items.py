"""What a user did with which items, packed, and how one more event changes it.

Packed (little-endian), by rising event type, a region for each type that there is something of: type u8, n u32, then n
item keys i64, n times u32 (Unix seconds, rising) and, of impressions, n counts u16 (256 is one showing, as of the time
beside it).
"""

from typing import Final, NamedTuple

import numba
import numpy as np
from numba import types

from engine.kernels.arrays import Float32Array, Int64Array, UInt8Array
from engine.kernels.bytes import load, store
from engine.kernels.signatures import BYTES, EXACT, ROWS

IMPRESSION: Final = 0
# A count of 1, and the largest count that fits.
ONE: Final = 256
_MOST: Final = 2**16 - 1
_REGION, _KEY, _TIME, _COUNT = 5, 8, 4, 2
_LAST_SECOND: Final = 2**32 - 1

_LISTS = types.int64[:, ::1]
_BOUNDS = types.int64[::1]


class SeenColumns(NamedTuple):
    """Columns of one length, by rising event type and time.

    item_keys: int64 (n,). event_types: uint8 (n,). times_s: int64 (n,), Unix seconds. counts: float32 (n,), showings
    as of that time for an impression, 1 for all else.
    """

    item_keys: Int64Array
    event_types: UInt8Array
    times_s: Int64Array
    counts: Float32Array


class Memory(NamedTuple):
    """What is kept of a user.

    kept_s: int64 (256,), by event type, for how many seconds before the latest event of its type one is kept; 0: never.
    items, impressions: how many items at most, of each type and of impressions. half_life_s: after which a showing
    counts half.
    """

    kept_s: Int64Array
    items: int
    impressions: int
    half_life_s: float


def unpack_seen(packed: UInt8Array) -> SeenColumns | None:
    """The columns of packed bytes; None where these are no such bytes.

    Args:
        packed: uint8 (bytes,); may be read-only.

    Cost: O(bytes); 1 µs and 2 ns an item.
    """
    count = _count(packed)
    return None if count < 0 else SeenColumns(*_unpack(packed, count))


def pack_seen(seen: SeenColumns) -> UInt8Array:
    """The bytes of columns: uint8. Times are held within 32 bits, counts within 16.

    Raises ValueError for columns of different lengths, or out of order.
    """
    if any(len(column) != len(seen.item_keys) for column in seen):
        raise ValueError("columns of different lengths")
    packed: UInt8Array = _pack(seen.item_keys, seen.event_types, seen.times_s, seen.counts)
    return packed


@numba.njit(types.int64(BYTES, types.int64, types.int64), **EXACT)
def region_size(buffer, at, end):  # type: ignore[no-untyped-def]
    """Bytes of the region that begins at `at`; -1 where it is cut off."""
    if end - at < _REGION:
        return -1
    entry = _KEY + _TIME + (_COUNT if buffer[at] == IMPRESSION else 0)
    size = _REGION + entry * load(buffer, at + 1, 4)
    return size if size <= end - at else -1


@numba.njit(types.boolean(BYTES, types.int64, types.int64), **EXACT)
def are_regions(buffer, at, end):  # type: ignore[no-untyped-def]
    """Whether buffer[at:end] is regions of rising types, one after the other."""
    last = np.int64(-1)
    while at < end:
        size = region_size(buffer, at, end)
        if size < 0 or buffer[at] <= last:
            return False
        last = np.int64(buffer[at])
        at += size
    return True


@numba.njit(types.int64(BYTES), **EXACT)
def _count(packed):  # type: ignore[no-untyped-def]
    if not are_regions(packed, 0, len(packed)):
        return -1
    count, at = 0, 0
    while at < len(packed):
        count += load(packed, at + 1, 4)
        at += region_size(packed, at, len(packed))
    return count


@numba.njit(
    types.Tuple((types.int64[::1], types.uint8[::1], types.int64[::1], types.float32[::1]))(BYTES, types.int64),
    **EXACT,
)
def _unpack(packed, count):  # type: ignore[no-untyped-def]
    keys, kinds = np.empty(count, np.int64), np.empty(count, np.uint8)
    times, counts = np.empty(count, np.int64), np.ones(count, np.float32)
    at, place = 0, 0
    while at < len(packed):
        kind, length = packed[at], load(packed, at + 1, 4)
        key_at = at + _REGION
        time_at = key_at + _KEY * length
        count_at = time_at + _TIME * length
        for entry in range(length):
            keys[place] = load(packed, key_at + _KEY * entry, 8)
            times[place] = load(packed, time_at + _TIME * entry, 4)
            kinds[place] = kind
            if kind == IMPRESSION:
                counts[place] = np.float32(load(packed, count_at + _COUNT * entry, 2)) / np.float32(ONE)
            place += 1
        at += region_size(packed, at, len(packed))
    return keys, kinds, times, counts


@numba.njit(
    types.uint8[::1](
        ROWS, types.Array(types.uint8, 1, "C", readonly=True), ROWS, types.Array(types.float32, 1, "C", readonly=True)
    ),
    **EXACT,
)
def _pack(keys, kinds, times, counts):  # type: ignore[no-untyped-def]
    packed = np.empty((_REGION + _KEY + _TIME + _COUNT) * len(keys), np.uint8)
    written, start = 0, 0
    while start < len(keys):
        end = start
        while end < len(keys) and kinds[end] == kinds[start]:
            if end > start and times[end] < times[end - 1]:
                raise ValueError("times that fall")
            end += 1
        if end < len(keys) and kinds[end] < kinds[start]:
            raise ValueError("types that fall")
        packed[written] = kinds[start]
        store(packed, written + 1, 4, end - start)
        written += _REGION
        for entry in range(start, end):
            store(packed, written, 8, keys[entry])
            written += _KEY
        for entry in range(start, end):
            store(packed, written, 4, min(max(times[entry], 0), _LAST_SECOND))
            written += _TIME
        if kinds[start] == IMPRESSION:
            for entry in range(start, end):
                store(packed, written, 2, min(max(np.int64(round(counts[entry] * ONE)), 0), _MOST))
                written += _COUNT
        start = end
    return packed[:written]


@numba.njit(types.void(BYTES, types.int64, types.int64, ROWS, _LISTS, _LISTS, _LISTS, _BOUNDS, _BOUNDS), **EXACT)
def read_lists(buffer, at, end, slots, keys, times, counts, starts, stops):  # type: ignore[no-untyped-def]
    """Fill one user's lists from packed regions; what has no slot is left out.

    Args:
        slots: int64 (256,), by type the line of keys, times and counts that holds it, -1 for none.
        starts, stops: where the entries of each line lie in it; written here.
    """
    starts[:], stops[:] = 0, 0
    while at < end:
        slot, length = slots[buffer[at]], load(buffer, at + 1, 4)
        key_at = at + _REGION
        time_at = key_at + _KEY * length
        count_at = time_at + _TIME * length
        if slot >= 0:
            for entry in range(length):
                keys[slot, entry] = load(buffer, key_at + _KEY * entry, 8)
                times[slot, entry] = load(buffer, time_at + _TIME * entry, 4)
                if buffer[at] == IMPRESSION:
                    counts[slot, entry] = load(buffer, count_at + _COUNT * entry, 2)
            stops[slot] = length
        at += region_size(buffer, at, end)


@numba.njit(types.int64(types.uint8[::1], types.int64, ROWS, _LISTS, _LISTS, _LISTS, _BOUNDS, _BOUNDS), **EXACT)
def write_lists(target, at, slots, keys, times, counts, starts, stops):  # type: ignore[no-untyped-def]
    """The lists packed into target from `at` on; returns where they end."""
    for kind in range(len(slots)):
        slot = slots[kind]
        if slot < 0 or starts[slot] == stops[slot]:
            continue
        target[at] = kind
        store(target, at + 1, 4, stops[slot] - starts[slot])
        at += _REGION
        for entry in range(starts[slot], stops[slot]):
            store(target, at, 8, keys[slot, entry])
            at += _KEY
        for entry in range(starts[slot], stops[slot]):
            store(target, at, 4, times[slot, entry])
            at += _TIME
        if kind == IMPRESSION:
            for entry in range(starts[slot], stops[slot]):
                store(target, at, 2, counts[slot, entry])
                at += _COUNT
    return at


@numba.njit(types.int64(_LISTS, types.int64, _BOUNDS, _BOUNDS, types.int64), **EXACT)
def find_item(keys, slot, starts, stops, key):  # type: ignore[no-untyped-def]
    """The position of an item in a line, searched from the end; -1 where it is missing."""
    for at in range(stops[slot] - 1, starts[slot] - 1, -1):
        if keys[slot, at] == key:
            return at
    return -1


@numba.njit(types.void(_LISTS, _LISTS, _LISTS, _BOUNDS, types.int64, types.int64), **EXACT)
def drop_item(keys, times, counts, stops, slot, at):  # type: ignore[no-untyped-def]
    for place in range(at + 1, stops[slot]):
        keys[slot, place - 1] = keys[slot, place]
        times[slot, place - 1] = times[slot, place]
        counts[slot, place - 1] = counts[slot, place]
    stops[slot] -= 1


@numba.njit(
    types.void(
        _LISTS, _LISTS, _LISTS, _BOUNDS, _BOUNDS, types.int64, types.int64, types.int64, types.int64,
        types.int64, types.int64,
    ),
    **EXACT,
)  # fmt: skip
def put_item(keys, times, counts, starts, stops, slot, key, time, count, limit, kept_s):  # type: ignore[no-untyped-def]
    """One entry in its place by time, after others of the same second; then what is too old or too much is dropped."""
    at = stops[slot]
    while at > starts[slot] and times[slot, at - 1] > time:
        keys[slot, at] = keys[slot, at - 1]
        times[slot, at] = times[slot, at - 1]
        counts[slot, at] = counts[slot, at - 1]
        at -= 1
    keys[slot, at], times[slot, at], counts[slot, at] = key, time, count
    stops[slot] += 1
    starts[slot] = max(starts[slot], stops[slot] - limit)
    if stops[slot] > starts[slot]:
        oldest = times[slot, stops[slot] - 1] - kept_s
        while times[slot, starts[slot]] < oldest:
            starts[slot] += 1


@numba.njit(
    types.void(
        _LISTS, _LISTS, _LISTS, _BOUNDS, _BOUNDS, types.int64, types.int64, types.int64, types.int64, types.int64
    ),
    **EXACT,
)
def remember_event(keys, times, counts, starts, stops, slot, key, time, limit, kept_s):  # type: ignore[no-untyped-def]
    """The latest event of a type on an item; an earlier one that arrives later says nothing."""
    at = find_item(keys, slot, starts, stops, key)
    if at >= 0:
        if times[slot, at] >= time:
            return
        drop_item(keys, times, counts, stops, slot, at)
    put_item(keys, times, counts, starts, stops, slot, key, time, 0, limit, kept_s)


@numba.njit(
    types.boolean(
        _LISTS, _LISTS, _LISTS, _BOUNDS, _BOUNDS, types.int64, types.int64, types.int64, types.int64, types.int64,
        types.float64,
    ),
    **EXACT,
)  # fmt: skip
def remember_showing(keys, times, counts, starts, stops, slot, key, time, limit, kept_s, half_life_s):  # type: ignore[no-untyped-def]
    """One more showing; False for one in the very second of the item's latest one, which is the same one again."""
    at = find_item(keys, slot, starts, stops, key)
    count = np.int64(ONE)
    if at >= 0:
        gap = time - times[slot, at]
        if gap == 0:
            return False
        before = counts[slot, at]
        # Rounded after each event, so that it is the same in whatever batches they come.
        if gap > 0:
            count += np.int64(round(before * 0.5 ** (gap / half_life_s)))
        else:
            count = before + np.int64(round(ONE * 0.5 ** (-gap / half_life_s)))
            time = times[slot, at]
        drop_item(keys, times, counts, stops, slot, at)
    put_item(keys, times, counts, starts, stops, slot, key, time, min(count, _MOST), limit, kept_s)
    return True
