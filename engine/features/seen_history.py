"""What a seen policy makes of histories: which events could have been recommendations, and what it hides when."""

from typing import Final

import numpy as np

from engine.config.seen import FOREVER_S, SeenWindows
from engine.features.history import Histories
from engine.types import BoolArray, EventType, Int64Array, UInt8Array

# Nothing that somebody has met is offered to them again.
EVERYTHING_S: Final[Int64Array] = np.full(256, FOREVER_S)
EVERYTHING_S.flags.writeable = False

# Bits of the seconds at which hiding ends: those of any time of an event, and a century more.
_UNTIL_BITS: Final = 34


def windows_by_type(windows: SeenWindows) -> Int64Array:
    """int64 (256,): for how many seconds an event counts, by the code of its type."""
    by_type = np.zeros(256, np.int64)
    for name in SeenWindows.model_fields:
        by_type[EventType[name.upper()]] = getattr(windows, name)
    return by_type


def offered(histories: Histories, hide_s: Int64Array) -> BoolArray:
    """bool (n,): whether the item of an event was on offer just before it: no earlier event of its user hid it then.

    Args:
        hide_s: int64 (256,), for how many seconds an event hides its item, by type; with EVERYTHING_S the first event
            of each user on each item is on offer, and no other.

    Cost: O(n log n).
    """
    users = np.repeat(np.arange(histories.user_count), histories.lengths())
    order = np.lexsort((np.arange(len(users)), histories.rows, users))
    times_s = histories.timestamps_ms[order] // 1000
    until_s = times_s + hide_s[histories.event_types[order]]
    # A running maximum that begins again with each user and item: their number is above all the seconds' bits.
    starts = np.ones(len(order), np.bool_)
    starts[1:] = (np.diff(users[order]) != 0) | (np.diff(histories.rows[order]) != 0)
    numbers = np.cumsum(starts) << _UNTIL_BITS
    latest = np.maximum.accumulate(numbers | np.clip(until_s, 0, (1 << _UNTIL_BITS) - 1))
    on_offer = np.empty(len(order), np.bool_)
    before_s = np.concatenate([[0], latest[:-1]]) - numbers if len(order) else latest
    on_offer[order] = starts | (before_s <= times_s)
    return on_offer


def hides(event_types: UInt8Array, times_ms: Int64Array, now_ms: Int64Array, hide_s: Int64Array) -> BoolArray:
    """bool (n,): whether events of these types and times hide their items at these moments; n of each."""
    hidden: BoolArray = now_ms // 1000 - times_ms // 1000 < hide_s[event_types]
    return hidden
