"""Live popularity read the slow and obvious way: every entry by itself."""

import struct
from collections.abc import Iterable

import redis

from engine.adapters.redis_keys import popularity_key
from engine.stream.popularity import Entry, counts_at, unpack_entry
from engine.stream.topics import EVENTS


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
    return total_counts(
        ({struct.unpack("<q", item)[0]: unpack_entry(blob) for item, blob in part.items()} for part in parts), now_ms
    )
