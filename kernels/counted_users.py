"""For what a user counts in what is popular: when they last turned to which items, and how one event moves that.

An entry of a user's state is a hash of an item and, perhaps, a surface; the second of the latest event that shows
interest, leaving out the latest purchase; and the second of that purchase. 0 is no such event. The rule that these
serve is engine.features.user_counts's.
"""

from typing import Final

import numba
import numpy as np
from numba import types

from engine.kernels.signatures import EXACT

# Bytes of an entry: a hash and two times, each in an array of its own.
ENTRY: Final = 12
# Nobody counted before, or counts any more.
NONE: Final = -1
_MIX: Final = 0x9E3779B97F4A7C15

_WORDS = types.uint32[::1]


@numba.njit(types.uint32(types.int64, types.int64), **EXACT)
def place_key(item_key, surface_key):  # type: ignore[no-untyped-def]
    """32 bits for an item on a surface; surface key 0 for wherever it was."""
    mixed = (np.uint64(item_key) ^ np.uint64(surface_key)) * np.uint64(_MIX)
    return np.uint32(mixed >> np.uint64(32))


@numba.njit(types.int64(_WORDS, _WORDS, _WORDS, types.int64, types.int64, types.int64), **EXACT)
def place_for(keys, looked, bought, size, key, limit):  # type: ignore[no-untyped-def]
    """The place of an entry; -1 where there is none and one fits, else -2 - the place of the oldest."""
    for at in range(size):
        if keys[at] == np.uint32(key):
            return at
    if size < limit:
        return -1
    oldest = 0
    for at in range(1, size):
        if max(looked[at], bought[at]) < max(looked[oldest], bought[oldest]):
            oldest = at
    return -2 - oldest


@numba.njit(
    types.UniTuple(types.int64, 3)(
        _WORDS, _WORDS, _WORDS, types.int64, types.int64, types.int64, types.boolean, types.int64, types.int64
    ),
    **EXACT,
)
def turn_to(keys, looked, bought, size, key, time_s, is_purchase, limit, horizon_s):  # type: ignore[no-untyped-def]
    """One event that shows interest: as of when the user counted before and counts now, and the entries there are.

    An event that is not their latest on the item moves nothing. Where the list is full the oldest entry is
    replaced if it is `horizon_s` before this event; if not, the user counts for no further item for now: however many
    items they turn to, no item gets more than one of them at a time.
    """
    at = place_for(keys, looked, bought, size, key, limit)
    before = np.int64(NONE)
    if at >= 0:
        before = np.int64(max(looked[at], bought[at]))
    elif at == -1:
        at = size
        size += 1
        keys[at], looked[at], bought[at] = np.uint32(key), np.uint32(0), np.uint32(0)
    else:
        at = -2 - at
        if np.int64(max(looked[at], bought[at])) > time_s - horizon_s:
            return np.int64(NONE), np.int64(NONE), size
        keys[at], looked[at], bought[at] = np.uint32(key), np.uint32(0), np.uint32(0)
    time = np.uint32(time_s)
    if is_purchase:
        # The earlier purchase becomes a look: a return can take back only the later one.
        looked[at] = max(looked[at], min(bought[at], time))
        bought[at] = max(bought[at], time)
    else:
        looked[at] = max(looked[at], time)
    return before, np.int64(max(looked[at], bought[at])), size


@numba.njit(
    types.UniTuple(types.int64, 3)(_WORDS, _WORDS, _WORDS, types.int64, types.int64),
    **EXACT,
)
def take_back(keys, looked, bought, size, key):  # type: ignore[no-untyped-def]
    """The latest purchase of an item that is remembered never was; returns as `turn_to` does."""
    for at in range(size):
        if keys[at] == np.uint32(key):
            if bought[at] == 0:
                break
            before = np.int64(max(looked[at], bought[at]))
            bought[at] = 0
            if looked[at] > 0:
                return before, np.int64(looked[at]), size
            size -= 1
            keys[at], looked[at], bought[at] = keys[size], looked[size], bought[size]
            return before, np.int64(NONE), size
    return np.int64(NONE), np.int64(NONE), size
