"""Live counts from Redis for a whole server: arrays, and no command that would hold Redis up for others."""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from engine.adapters.redis.connect import INTRODUCTION
from engine.adapters.redis.keys import applied_key, popularity_key
from engine.config.serving import RedisConfig
from engine.errors import DependencyUnavailable, described
from engine.stream.popularity import ENTRY_DTYPE
from engine.stream.trending import ItemCounts, decay, sum_entries
from engine.types import Int64Array

# Redis runs one command at a time. 1000 entries a round trip delay another client's command by about 0.3 ms; one
# HGETALL of a full list would delay it by milliseconds.
_SCANS: Final = 4
_ENTRIES_A_SCAN: Final = 250


class RedisTrending:
    """Implements engine.app.trending.CountsSource. Blocking; one call at a time.

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
            raise DependencyUnavailable(f"live counts cannot be read: {described(error)}") from error
        elapsed_ms = now_ms - self._as_of_ms
        return {scope: decay(self._counts[scope], elapsed_ms) for scope in scopes}

    def close(self) -> None:
        self._client.close()

    def _entries(self, scopes: Sequence[str]) -> dict[str, list["_Entries"]]:
        """The stored entries of each scope, by partition."""
        found: dict[str, list[_Entries]] = {scope: [] for scope in scopes}
        waiting = []
        for scope in scopes:
            for partition in self._partitions:
                entries = _Entries()
                found[scope].append(entries)
                waiting.append((popularity_key(self._log, partition, scope), 0, entries))
        while waiting:
            step, waiting = waiting[:_SCANS], waiting[_SCANS:]
            with self._client.pipeline(transaction=False) as pipeline:
                for key, cursor, _ in step:
                    pipeline.hscan(key, cursor, count=_ENTRIES_A_SCAN)
                answers = pipeline.execute()
            for (key, _, entries), (cursor, page) in zip(step, answers, strict=True):
                entries.add(page)
                if cursor:
                    waiting.append((key, cursor, entries))
        return found


class _Entries:
    """What a scan of one hash has brought. A page is a few bytes objects from its arrival on: a hundred thousand of
    them, freed at once, would hold the interpreter for tens of milliseconds."""

    def __init__(self) -> None:
        self._keys: list[bytes] = []
        self._blobs: list[bytes] = []

    def add(self, page: Mapping[bytes, bytes]) -> None:
        """Raises ValueError for bytes that are no entries."""
        keys = b"".join(page)
        if len(keys) != 8 * len(page) or any(len(blob) != ENTRY_DTYPE.itemsize for blob in page.values()):
            raise ValueError("an entry of another form than this engine's")
        self._keys.append(keys)
        self._blobs.append(b"".join(page.values()))

    def arrays(self) -> tuple[Int64Array, npt.NDArray[np.void]]:
        """int64 (n,) keys, each once, and their entries: a scan may bring an entry again, and the last one holds."""
        keys = np.frombuffer(b"".join(self._keys), np.int64)
        _, places = np.unique(keys[::-1], return_index=True)
        latest = len(keys) - 1 - places
        return keys[latest], np.frombuffer(b"".join(self._blobs), ENTRY_DTYPE)[latest]


def _sum(partitions: Sequence[_Entries], now_ms: int) -> ItemCounts:
    arrays = [entries.arrays() for entries in partitions]
    return sum_entries(
        np.concatenate([keys for keys, _ in arrays]), np.concatenate([entries for _, entries in arrays]), now_ms
    )
