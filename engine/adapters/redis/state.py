"""Live states and live popularity on Redis: one read and one transaction a batch."""

import logging
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Final

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from engine.adapters.redis.connect import INTRODUCTION
from engine.adapters.redis.keys import (
    applied_key,
    applied_log_key,
    history_key,
    live_key,
    nearline_key,
    popularity_key,
    record_key,
)
from engine.config.serving import RedisConfig
from engine.config.stream import ProcessorConfig
from engine.errors import DependencyUnavailable, RecordError, described
from engine.features.record import demographics_of, pack_record, unpack_record, unpack_session
from engine.features.state import UserRecord
from engine.stream.events import MAX_AHEAD_MS
from engine.stream.live import Changes, Snapshot
from engine.stream.log_identity import LogIdentity, Place
from engine.stream.nearline import Touched
from engine.stream.popularity import Scope
from engine.stream.state import unpack_state
from engine.types import Demographics

log = logging.getLogger(__name__)

# A transaction holds everyone else up for as long as it runs, milliseconds; one that hangs is a Redis that is away.
_SOCKET_TIMEOUT_S = 10.0
# One command for thousands of keys: the client's cost, and the server's, is by command. Sent in full each time, since a
# transaction whose EVALSHA finds no script would run the rest without it.
_PUT: Final = "for i = 1, #KEYS do redis.call('SET', KEYS[i], ARGV[i + 1], 'EX', ARGV[1]) end"


class RedisLiveStore:
    """Implements engine.stream.live.LiveStore; for one thread at a time.

    generation: the embedding generation whose records say who the users are, None where there is no bundle yet.
    """

    def __init__(
        self,
        url: str,
        config: RedisConfig,
        processor: ProcessorConfig,
        log_name: str,
        generation: Callable[[], int | None],
    ) -> None:
        self._client = _connect(url, config)
        self._pipeline = self._client.pipeline(transaction=True)
        self._state_ttl_s = processor.state_ttl_s
        self._log = log_name
        self._generation = generation
        # As of the last `read`: what says so already is not written again.
        self._found: dict[int, Place | None] = {}

    def applied(self, partitions: Iterable[int]) -> dict[int, Place | None]:
        """How far each partition is in the store, and of which log. Raises DependencyUnavailable."""
        partitions = list(partitions)
        if not partitions:
            return {}
        try:
            values: list[bytes | None] = self._client.mget(self._position_keys(partitions))  # type: ignore[assignment]
        except (redis.RedisError, OSError) as error:
            raise _unavailable(error) from error
        return _places(partitions, values)

    def _position_keys(self, partitions: Sequence[int]) -> list[str]:
        """The offsets' keys, then those of the logs that they are of."""
        return [key(self._log, partition) for key in (applied_key, applied_log_key) for partition in partitions]

    def read(self, partitions: Iterable[int], user_ids: Collection[str]) -> Snapshot:
        """One MGET; the positions are watched until the next `write`. Raises DependencyUnavailable."""
        partitions = list(partitions)
        generation = self._generation()
        positions = self._position_keys(partitions)
        keys = positions + [live_key(user_id) for user_id in user_ids]
        if generation is not None:
            keys += [record_key(user_id, generation) for user_id in user_ids]
        try:
            self._pipeline.reset()
            self._pipeline.watch(*positions)  # type: ignore[no-untyped-call]
            blobs: list[bytes | None] = self._pipeline.mget(keys)  # type: ignore[assignment]  # at once after a watch
        except (redis.RedisError, OSError) as error:
            raise _unavailable(error) from error
        states = blobs[len(positions) : len(positions) + len(user_ids)]
        records = blobs[len(positions) + len(user_ids) :]
        self._found = _places(partitions, blobs)
        return Snapshot(
            applied=dict(self._found),
            states=states,
            demographics={
                user_id: _demographics(user_id, blob)
                for user_id, blob in zip(user_ids, records, strict=False)
                if blob is not None
            },
        )

    def read_scopes(self, scopes: Sequence[tuple[int, str]]) -> list[Scope]:
        """The stored (partition, scope) lists, in their order; empty ones where nothing is stored.

        Raises DependencyUnavailable, and ValueError for what no processor has written.
        """
        return _read_scopes(self._client, self._log, scopes)

    def write(self, changes: Changes) -> bool:
        """One transaction; False where a watched position has moved since `read`. Raises DependencyUnavailable."""
        pipeline = self._pipeline
        pipeline.multi()
        states = changes.states
        _put(
            pipeline,
            [live_key(user_id) for user_id in states],
            states.values(),
            self._state_ttl_s,
        )
        for (partition, scope), popularity in changes.popularity.items():
            key = popularity_key(self._log, partition, scope)
            entries = popularity.packed_changes()
            if entries:
                pipeline.hset(key, mapping=entries)  # type: ignore[arg-type]  # Mapping is invariant in its keys
            if popularity.removed:
                pipeline.hdel(key, *popularity.packed_removals())
        for partition, offset in changes.applied.items():
            pipeline.set(applied_key(self._log, partition), offset)
            found = self._found.get(partition)
            if changes.log is not None and (found is None or found.log != changes.log):
                pipeline.set(applied_log_key(self._log, partition), str(changes.log))
        try:
            pipeline.execute()
        except redis.WatchError:
            return False
        except (redis.RedisError, OSError) as error:
            raise _unavailable(error) from error
        return True

    def close(self) -> None:
        self._pipeline.reset()
        self._client.close()


class RedisNearlineStore:
    """Implements engine.stream.nearline.NearlineStore; belongs to one thread."""

    def __init__(self, url: str, config: RedisConfig, ttl_s: int) -> None:
        self._client = _connect(url, config)
        self._ttl_s = ttl_s

    def read_touched(self, user_ids: Sequence[str], generation: int) -> list[Touched]:
        """These users, but those of whom something cannot be read. Raises DependencyUnavailable."""
        keys = [
            key
            for user_id in user_ids
            for key in (live_key(user_id), history_key(user_id), record_key(user_id, generation))
        ]
        try:
            blobs: list[bytes | None] = self._client.mget(keys)  # type: ignore[assignment]  # bytes: nothing decodes
        except (redis.RedisError, OSError) as error:
            raise _unavailable(error) from error
        touched = []
        for user_id, live, history, record in zip(user_ids, blobs[::3], blobs[1::3], blobs[2::3], strict=True):
            try:
                state = unpack_state(live)
                touched.append(
                    Touched(
                        user_id,
                        unpack_session(history),
                        unpack_session(state.session),
                        state.interaction_count,
                        state.purchase_count,
                        unpack_record(record) if record else None,
                    )
                )
            except RecordError as error:
                log.error("user %r keeps the published record: %s", user_id, error)
        return touched

    def write_nearline(self, records: Iterable[tuple[str, UserRecord]]) -> None:
        """Put records before the published ones for a while. Raises DependencyUnavailable."""
        try:
            with self._client.pipeline(transaction=False) as pipeline:
                for user_id, record in records:
                    pipeline.set(nearline_key(user_id, record.generation), pack_record(record), self._ttl_s)
                pipeline.execute()
        except (redis.RedisError, OSError) as error:
            raise _unavailable(error) from error

    def drop_nearline(self, user_ids: Sequence[str], generation: int) -> None:
        """Let the published records of these users answer again. Raises DependencyUnavailable."""
        try:
            self._client.unlink(*(nearline_key(user_id, generation) for user_id in user_ids))
        except (redis.RedisError, OSError) as error:
            raise _unavailable(error) from error

    def close(self) -> None:
        self._client.close()


def _connect(url: str, config: RedisConfig) -> redis.Redis:
    # No retries in the client: the processor has one way back from every failure.
    return redis.Redis.from_url(
        url,
        socket_connect_timeout=config.connect_timeout_s,
        socket_timeout=_SOCKET_TIMEOUT_S,
        retry=Retry(NoBackoff(), 0),
        **INTRODUCTION,
    )


def _put(pipeline: redis.client.Pipeline, keys: Collection[str], values: Collection[bytes], ttl_s: int) -> None:
    """Queue that these keys hold these values for a while."""
    if keys:
        put: Callable[..., object] = pipeline.execute_command
        put("EVAL", _PUT, len(keys), *keys, ttl_s, *values)


def _read_scopes(client: redis.Redis, log_name: str, scopes: Sequence[tuple[int, str]]) -> list[Scope]:
    if not scopes:
        return []
    try:
        with client.pipeline(transaction=False) as pipeline:
            for partition, scope in scopes:
                pipeline.hgetall(popularity_key(log_name, partition, scope))
            found: list[dict[bytes, bytes]] = pipeline.execute()
    except (redis.RedisError, OSError) as error:
        raise _unavailable(error) from error
    latest_ms = time.time_ns() // 1_000_000 + MAX_AHEAD_MS
    return [Scope.unpack(stored, latest_ms) for stored in found]


def _places(partitions: Sequence[int], values: Sequence[bytes | None]) -> dict[int, Place | None]:
    """Positions from the values of `_position_keys`; values after those are ignored."""
    offsets, logs = values[: len(partitions)], values[len(partitions) : 2 * len(partitions)]
    return {
        partition: None if offset is None else Place(int(offset) + 1, LogIdentity.parse(log.decode()) if log else None)
        for partition, offset, log in zip(partitions, offsets, logs, strict=True)
    }


def _demographics(user_id: str, blob: bytes) -> Demographics:
    try:
        return demographics_of(blob)
    except RecordError as error:
        log.error("the record of user %r is of no use: %s", user_id, error)
        return Demographics()


def _unavailable(error: Exception) -> DependencyUnavailable:
    return DependencyUnavailable(f"Redis does not answer: {described(error)}")
