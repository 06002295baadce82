"""How popular items are at this moment, counted while events arrive: decayed counts, by scope, for each log partition.

A partition has one writer, so that its counts are a plain fold in the order of the log; they are stored in one step
with the offset that they include, and readers add the partitions up. Event time throughout: a replay counts the same.
"""

import math
import struct
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from engine.bundle.popularity import segment_key, surface_key
from engine.features.schema import POPULARITY_WINDOWS_S
from engine.types import Demographics

# The windows that a live count can tell anything of; longer ones are training's.
LIVE_WINDOWS: Final = ("1h", "24h", "7d")
_LIFETIMES_MS: Final = tuple(POPULARITY_WINDOWS_S[name] * 1000.0 for name in LIVE_WINDOWS)
_HOUR_MS, _DAY_MS, _WEEK_MS = _LIFETIMES_MS
_ENTRY: Final = struct.Struct("<qddd")
OVERALL: Final = ""
_SEGMENTS: Final = (("age_group",), ("location",), ("signup_source",))

# (reference time, decayed counts as of it in the order of LIVE_WINDOWS)
Entry = tuple[int, float, float, float]


@lru_cache(maxsize=4096)
def scopes_of(surface: str, demographics: Demographics) -> tuple[str, ...]:
    """The lists that an event counts in: overall, its surface, and its user's segments where they are known.

    Named like the lists of a bundle (engine.bundle.popularity); one demographic value each, so that few are sparse.
    """
    segments = (segment_key(level, demographics) for level in _SEGMENTS)
    surfaces = (surface_key(surface),) if surface else ()
    return (OVERALL, *surfaces, *(name for name in segments if name is not None))


def add(entry: Entry | None, time_ms: int) -> Entry:
    """One more event at a moment. An event before the reference time counts with what would be left of it by then.

    Source: the running sums of engine.features.popularity, exp(-(a + b)) = exp(-a) exp(-b).
    """
    if entry is None:
        return time_ms, 1.0, 1.0, 1.0
    reference, hour, day, week = entry
    elapsed = time_ms - reference
    if elapsed >= 0:
        return (
            time_ms,
            hour * math.exp(-elapsed / _HOUR_MS) + 1.0,
            day * math.exp(-elapsed / _DAY_MS) + 1.0,
            week * math.exp(-elapsed / _WEEK_MS) + 1.0,
        )
    return (
        reference,
        hour + math.exp(elapsed / _HOUR_MS),
        day + math.exp(elapsed / _DAY_MS),
        week + math.exp(elapsed / _WEEK_MS),
    )


def counts_at(entry: Entry, now_ms: int) -> tuple[float, float, float]:
    """The decayed counts of one entry as of a moment at or after its reference time, in the order of LIVE_WINDOWS."""
    elapsed = max(0, now_ms - entry[0])
    hour, day, week = (
        count * math.exp(-elapsed / lifetime) for count, lifetime in zip(entry[1:], _LIFETIMES_MS, strict=True)
    )
    return hour, day, week


def pack_entry(entry: Entry) -> bytes:
    """32 bytes; float64, so that decaying in many steps and in one agree."""
    return _ENTRY.pack(*entry)


def unpack_entry(blob: bytes) -> Entry:
    """The entry of `pack_entry`. Raises struct.error for another length."""
    reference, hour, day, week = _ENTRY.unpack(blob)
    return reference, hour, day, week


@dataclass(slots=True)
class Scope:
    """One list of one partition, and what changed since it was last stored."""

    entries: dict[int, Entry]
    changed: set[int] = field(default_factory=set)
    removed: set[int] = field(default_factory=set)

    def count(self, item_key: int, time_ms: int, limit: int) -> None:
        """Add an event; at twice `limit` items the less popular half goes.

        When it goes depends on the events alone, never on how they were batched. Cost: amortized O(log limit).
        """
        self.entries[item_key] = add(self.entries.get(item_key), time_ms)
        self.changed.add(item_key)
        self.removed.discard(item_key)
        if len(self.entries) >= 2 * limit:
            self._prune(time_ms, limit)

    def _prune(self, time_ms: int, limit: int) -> None:
        def rank(item: int) -> tuple[float, int]:
            # Ties by key: an order of its own, whatever order the entries were loaded in.
            return -counts_at(self.entries[item], time_ms)[2], item

        for item in sorted(self.entries, key=rank)[limit:]:
            del self.entries[item]
            self.removed.add(item)
        self.changed -= self.removed

    def stored(self) -> None:
        """Everything up to here is stored."""
        self.changed.clear()
        self.removed.clear()
