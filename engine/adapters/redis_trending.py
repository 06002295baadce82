"""Live counts from Redis for a whole server: arrays, and no command that would hold Redis up for others."""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from engine.adapters.redis_connect import INTRODUCTION
from engine.adapters.redis_keys import applied_key, popularity_key
from engine.config import RedisConfig
from engine.errors import DependencyUnavailable
from engine.stream.popularity import ENTRY_DTYPE
from engine.stream.trending import ItemCounts, decay, sum_entries

# Redis answers one command after the other: 1000 entries a round trip, about 0.3 ms, is what a request may have to
# wait behind, where one HGETALL of a full list would take milliseconds.
_SCANS: Final = 4
_ENTRIES_A_SCAN: Final = 250


class RedisTrending:
    """Implements engine.trending.CountsSource. Blocking; one call at a time.

    Nothing but the positions is read while they stand still. Bounded by the writer: a list of one partition holds less
    than twice `processor.popular_items`, 10,000 items or 0.4 MB by default.
    """

    def __init__(self, url: str, config: RedisConfig, log_name: str, partitions: int) -> None:
        self._client = redis.Redis.from_url(
            url,
            socket_connect_timeout=config.connect_timeout_s,
            socket_timeout=config.connect_timeout_s,
            retry=Retry(NoBackoff(), 0),
            **INTRODUCTION,
        )
        self._log = log_name
        self._partitions = range(partitions)
        self._positions: Sequence[object] = ()
        self._as_of_ms = 0
        self._counts: dict[str, ItemCounts] = {}

    def read(self, scopes: Sequence[str], now_ms: int) -> Mapping[str, ItemCounts]:
        """Decayed counts of each scope, over all partitions, as of a moment. Raises DependencyUnavailable."""
        try:
            # Before the counts: what is written meanwhile moves the positions, and is read again next time.
            positions: Sequence[object] = self._client.mget(
                [applied_key(self._log, partition) for partition in self._partitions]
            )
            if positions != self._positions or any(scope not in self._counts for scope in scopes):
                entries = self._entries(scopes)
                self._counts = {scope: _sum(entries[scope], now_ms) for scope in scopes}
                self._positions, self._as_of_ms = positions, now_ms
        except (redis.RedisError, OSError, ValueError) as error:
            raise DependencyUnavailable(f"live counts cannot be read: {error}") from error
        elapsed_ms = now_ms - self._as_of_ms
        return {scope: decay(self._counts[scope], elapsed_ms) for scope in scopes}

    def close(self) -> None:
        self._client.close()

    def _entries(self, scopes: Sequence[str]) -> dict[str, list[dict[bytes, bytes]]]:
        """The stored entries of each scope, by partition."""
        found: dict[str, list[dict[bytes, bytes]]] = {scope: [] for scope in scopes}
        waiting = []
        for scope in scopes:
            for partition in self._partitions:
                entries: dict[bytes, bytes] = {}
                found[scope].append(entries)
                waiting.append((popularity_key(self._log, partition, scope), 0, entries))
        while waiting:
            step, waiting = waiting[:_SCANS], waiting[_SCANS:]
            with self._client.pipeline(transaction=False) as pipeline:
                for key, cursor, _ in step:
                    pipeline.hscan(key, cursor, count=_ENTRIES_A_SCAN)
                answers = pipeline.execute()
            for (key, _, entries), (cursor, page) in zip(step, answers, strict=True):
                entries.update(page)
                if cursor:
                    waiting.append((key, cursor, entries))
        return found


def _sum(partitions: Sequence[dict[bytes, bytes]], now_ms: int) -> ItemCounts:
    """Raises ValueError for bytes that are no entries."""
    keys = b"".join(key for entries in partitions for key in entries)
    blobs = [blob for entries in partitions for blob in entries.values()]
    if len(keys) != 8 * len(blobs) or any(len(blob) != ENTRY_DTYPE.itemsize for blob in blobs):
        raise ValueError("an entry of another form than this engine's")
    return sum_entries(np.frombuffer(keys, np.int64), np.frombuffer(b"".join(blobs), ENTRY_DTYPE), now_ms)
