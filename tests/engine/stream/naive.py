"""Live popularity counted, stored and read the slow and obvious way: every entry by itself."""

import math
import struct
from collections.abc import Iterable, Sequence

import redis

from engine.adapters.redis.keys import popularity_key
from engine.stream.topics import EVENTS

HOUR_MS, DAY_MS, WEEK_MS = 3_600_000.0, 86_400_000.0, 604_800_000.0
ENTRY = struct.Struct("<qddd")

# (reference time, decayed counts as of it: an hour, a day, a week)
Entry = tuple[int, float, float, float]


def add(entry: Entry | None, time_ms: int) -> Entry:
    """One more event at a moment. An event before the reference time counts with what would be left of it by then."""
    if entry is None:
        return time_ms, 1.0, 1.0, 1.0
    reference, hour, day, week = entry
    elapsed = time_ms - reference
    if elapsed >= 0:
        return (
            time_ms,
            hour * math.exp(-elapsed / HOUR_MS) + 1.0,
            day * math.exp(-elapsed / DAY_MS) + 1.0,
            week * math.exp(-elapsed / WEEK_MS) + 1.0,
        )
    return (
        reference,
        hour + math.exp(elapsed / HOUR_MS),
        day + math.exp(elapsed / DAY_MS),
        week + math.exp(elapsed / WEEK_MS),
    )


def counts_at(entry: Entry, now_ms: int) -> tuple[float, float, float]:
    """The decayed counts of one entry as of a moment at or after its reference time."""
    reference, hour, day, week = entry
    elapsed = max(0, now_ms - reference)
    return (
        hour * math.exp(-elapsed / HOUR_MS),
        day * math.exp(-elapsed / DAY_MS),
        week * math.exp(-elapsed / WEEK_MS),
    )


def pack_entry(entry: Entry) -> bytes:
    return ENTRY.pack(*entry)


def unpack_entry(blob: bytes) -> Entry:
    reference, hour, day, week = ENTRY.unpack(blob)
    return reference, hour, day, week


def unpack_entries(stored: dict[bytes, bytes]) -> dict[int, Entry]:
    """A stored list, by item key."""
    return {struct.unpack("<q", item)[0]: unpack_entry(blob) for item, blob in stored.items()}


def counted(stream: Sequence[tuple[int, int]], limit: int) -> dict[int, Entry]:
    """What is left of events, (item key, time) in log order: at twice `limit` items the less popular half goes."""
    entries: dict[int, Entry] = {}
    for item, time_ms in stream:
        entries[item] = add(entries.get(item), time_ms)
        if len(entries) >= 2 * limit:
            ranked = sorted(entries, key=lambda item: (-counts_at(entries[item], time_ms)[2], item))
            entries = {item: entries[item] for item in ranked[:limit]}
    return entries


class User:
    """What one user counts for, wherever it was: of each item the latest look and the latest purchase, in seconds."""

    def __init__(self, limit: int, horizon_s: int) -> None:
        self._limit, self._horizon_s = limit, horizon_s
        self._items: dict[int, tuple[int, int]] = {}

    def turn_to(self, item: int, time_s: int, is_purchase: bool) -> tuple[int, int]:
        """As of when they counted for the item before, and count now; -1 for not at all."""
        before = max(self._items.get(item, (-1, -1)))
        if item not in self._items and len(self._items) == self._limit:
            oldest = min(self._items, key=lambda known: max(self._items[known]))
            if max(self._items[oldest]) > time_s - self._horizon_s:
                return -1, -1
            del self._items[oldest]
        looked, bought = self._items.get(item, (0, 0))
        if is_purchase:
            earlier, bought = sorted((bought, time_s))
            self._items[item] = max(looked, earlier), bought
        else:
            self._items[item] = max(looked, time_s), bought
        return before, max(self._items[item])

    def give_back(self, item: int) -> tuple[int, int]:
        """The same for the return of an item."""
        looked, bought = self._items.get(item, (0, 0))
        if not bought:
            return -1, -1
        if looked:
            self._items[item] = looked, 0
        else:
            del self._items[item]
        return max(looked, bought), looked or -1


def total_counts(parts: Iterable[dict[int, Entry]], now_ms: int) -> dict[int, tuple[float, float, float]]:
    """Decayed counts of each item over all partitions, as of a moment."""
    totals: dict[int, tuple[float, float, float]] = {}
    for part in parts:
        for item, entry in part.items():
            hour, day, week = counts_at(entry, now_ms)
            sofar = totals.get(item, (0.0, 0.0, 0.0))
            totals[item] = (sofar[0] + hour, sofar[1] + day, sofar[2] + week)
    return totals


def live_counts(url: str, log_name: str, scope: str, now_ms: int) -> dict[int, tuple[float, float, float]]:
    """Decayed counts by item key, over all partitions of a log."""
    client = redis.Redis.from_url(url)
    parts = [client.hgetall(popularity_key(log_name, partition, scope)) for partition in range(EVENTS.partitions)]
    return total_counts(map(unpack_entries, parts), now_ms)
