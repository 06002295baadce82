"""The feature store on Redis: one MGET a request, pipelined writes for the publishing job."""

from collections.abc import Iterable

import numpy as np
import redis

from engine.adapters.redis_connect import INTRODUCTION
from engine.adapters.redis_keys import fresh_key, history_key, live_key, record_key, seen_key
from engine.adapters.redis_multiplexed import MultiplexedRedis
from engine.config import RedisConfig
from engine.errors import DependencyUnavailable
from engine.features.record import pack_keys, pack_record, pack_session, unpack_keys, unpack_record
from engine.stream.state import view_state
from engine.types import Int64Array, Session, UserRecord, UserState


class RedisFeatureStore:
    """Reads user states. Implements engine.stages.features.FeatureStore; belongs to one event loop."""

    def __init__(self, url: str, config: RedisConfig) -> None:
        # A command that fails is not tried again: the request has a fallback, and no time.
        self._client = MultiplexedRedis(url, config.connect_timeout_s)

    async def fetch(self, user_id: str, generation: int) -> UserState:
        """One user's state in one round trip; an unknown user has no record.

        A fresh record goes before the published one. A record of another embedding space than `generation` is treated
        as absent. Raises DependencyUnavailable.
        """
        keys = (
            record_key(user_id, generation), seen_key(user_id), live_key(user_id), fresh_key(user_id, generation),
        )  # fmt: skip
        blobs: list[bytes | None] = await self._client.call("MGET", *keys)
        record_blob, seen_blob, live_blob, fresh_blob = blobs
        current = fresh_blob or record_blob
        record = unpack_record(current) if current else None
        if record is not None and record.generation != generation:
            record = None
        live = view_state(live_blob)
        seen = unpack_keys(seen_blob)
        if len(live.seen_keys):
            seen = np.concatenate([seen, live.seen_keys])
        return UserState(record, live.session, seen, live.interaction_count)

    async def ping(self) -> None:
        """Raises DependencyUnavailable when Redis cannot be reached."""
        await self._client.call("PING")

    async def close(self) -> None:
        await self._client.aclose()


class RedisPublisher:
    """Writes user records and seen sets, many a round trip. Blocking; for jobs, not for requests."""

    def __init__(self, url: str, config: RedisConfig) -> None:
        self._client = redis.Redis.from_url(url, socket_connect_timeout=config.connect_timeout_s, **INTRODUCTION)
        self._config = config
        try:
            self._client.ping()
        except (redis.RedisError, OSError) as error:
            raise DependencyUnavailable(f"Redis cannot be reached: {error}") from error

    def publish(self, users: Iterable[tuple[str, UserRecord, Int64Array]]) -> int:
        """Write (user id, record, seen item keys oldest first) triples; returns how many.

        Only the most recent `seen_limit` keys are kept. Raises DependencyUnavailable.
        """
        count = 0
        try:
            with self._client.pipeline(transaction=False) as pipeline:
                for user_id, record, seen in users:
                    # SET replaces: publishing again leaves the same state.
                    pipeline.set(record_key(user_id, record.generation), pack_record(record), self._config.record_ttl_s)
                    recent = seen[max(0, len(seen) - self._config.seen_limit) :]
                    if len(recent):
                        pipeline.set(seen_key(user_id), pack_keys(np.asarray(recent, np.int64)))
                    count += 1
                pipeline.execute()
        except (redis.RedisError, OSError) as error:
            raise DependencyUnavailable(f"publishing to Redis failed: {error}") from error
        return count

    def publish_histories(self, users: Iterable[tuple[str, Session]]) -> None:
        """Write users' last events; they live as long as the records. Raises DependencyUnavailable."""
        try:
            with self._client.pipeline(transaction=False) as pipeline:
                for user_id, history in users:
                    pipeline.set(history_key(user_id), pack_session(history), self._config.record_ttl_s)
                pipeline.execute()
        except (redis.RedisError, OSError) as error:
            raise DependencyUnavailable(f"publishing to Redis failed: {error}") from error

    def close(self) -> None:
        self._client.close()
