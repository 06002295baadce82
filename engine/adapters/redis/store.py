"""The feature store on Redis: one MGET a request, pipelined writes for the publishing job."""

import asyncio
from collections.abc import Iterable, Mapping

import redis

from engine.adapters.redis.connect import INTRODUCTION
from engine.adapters.redis.keys import history_key, live_key, nearline_key, past_key, record_key, seen_key
from engine.adapters.redis.multiplexed import MultiplexedRedis
from engine.config.seen import FOREVER_S, SeenWindows
from engine.config.serving import RedisConfig
from engine.errors import DependencyUnavailable, described
from engine.features.record import pack_record, pack_session, unpack_keys, unpack_record
from engine.features.seen import most_recent, of_keys_alone, pack_seen, read_seen
from engine.features.state import SeenItems, Session, UserRecord, UserState
from engine.stream.state import view_state
from engine.types import Int64Array


class RedisFeatureStore:
    """Reads user states. Implements engine.stages.features.FeatureStore; belongs to one event loop."""

    def __init__(self, url: str, config: RedisConfig) -> None:
        # A command that fails is not tried again: the request has a fallback, and no time.
        self._client = MultiplexedRedis(url, config.connect_timeout_s)

    async def fetch(self, user_id: str, generation: int) -> UserState:
        """One user's state in one round trip; an unknown user has no record.

        A nearline record takes precedence over the published one. A record of another embedding space than `generation`
        counts as absent. Raises DependencyUnavailable.
        """
        keys = (
            record_key(user_id, generation), past_key(user_id), live_key(user_id), nearline_key(user_id, generation),
            seen_key(user_id),
        )  # fmt: skip
        blobs: list[bytes | None] = await self._client.call("MGET", *keys)
        record_blob, past_blob, live_blob, nearline_blob, earlier_blob = blobs
        current = nearline_blob or record_blob
        record = unpack_record(current) if current else None
        live = view_state(live_blob)
        past = read_seen(past_blob)
        if earlier_blob is not None and past_blob is None:
            past = _of_earlier(unpack_keys(earlier_blob), record)
        if record is not None and record.generation != generation:
            record = None
        return UserState(record, live.session, past.joined(live.seen), live.interaction_count)

    async def ping(self, timeout_s: float) -> None:
        """Raises DependencyUnavailable when Redis cannot be reached, or does not answer in time."""
        try:
            await asyncio.wait_for(self._client.call("PING"), timeout_s)
        except TimeoutError:
            raise DependencyUnavailable(f"Redis cannot be reached: no answer within {timeout_s:g} s") from None

    async def close(self) -> None:
        await self._client.aclose()


class RedisPublisher:
    """Writes user records and what users did with which items, many a round trip. Blocking; for jobs, not for requests.

    remembered_s: by event type, for how long before the latest event of its type one is kept; None: all forever.
    """

    def __init__(self, url: str, config: RedisConfig, remembered_s: Mapping[str, int] | None = None) -> None:
        self._client = redis.Redis.from_url(url, socket_connect_timeout=config.connect_timeout_s, **INTRODUCTION)
        self._config = config
        self._remembered_s = (
            dict.fromkeys(SeenWindows.model_fields, FOREVER_S) if remembered_s is None else remembered_s
        )
        try:
            self._client.ping()
        except (redis.RedisError, OSError) as error:
            raise DependencyUnavailable(f"Redis cannot be reached: {described(error)}") from error

    def publish(self, users: Iterable[tuple[str, UserRecord, SeenItems]]) -> int:
        """Write (user id, record, seen items in order) triples; returns how many.

        Of each type of event only the most recent `seen_limit` items are kept. Raises DependencyUnavailable.
        """
        count = 0
        try:
            with self._client.pipeline(transaction=False) as pipeline:
                for user_id, record, seen in users:
                    # SET replaces: publishing again leaves the same state.
                    pipeline.set(record_key(user_id, record.generation), pack_record(record), self._config.record_ttl_s)
                    kept = most_recent(seen, self._config.seen_limit, self._remembered_s)
                    # An empty one is stored, too: it says that what an earlier version stored holds no longer.
                    pipeline.set(past_key(user_id), pack_seen(kept))
                    pipeline.unlink(seen_key(user_id))
                    count += 1
                pipeline.execute()
        except (redis.RedisError, OSError) as error:
            raise DependencyUnavailable(f"publishing to Redis failed: {described(error)}") from error
        return count

    def publish_histories(self, users: Iterable[tuple[str, Session]]) -> None:
        """Write users' last events; they live as long as the records. Raises DependencyUnavailable."""
        try:
            with self._client.pipeline(transaction=False) as pipeline:
                for user_id, history in users:
                    pipeline.set(history_key(user_id), pack_session(history), self._config.record_ttl_s)
                pipeline.execute()
        except (redis.RedisError, OSError) as error:
            raise DependencyUnavailable(f"publishing to Redis failed: {described(error)}") from error

    def close(self) -> None:
        self._client.close()


def _of_earlier(keys: Int64Array, record: UserRecord | None) -> SeenItems:
    """What an earlier version published; without a record nobody knows of purchases, and so all may be one."""
    if record is None:
        return of_keys_alone(keys, 0, 1)
    return of_keys_alone(keys, record.embedded_until_ms // 1000, record.purchase_count)
