"""What every feature store promises. Redis is the one there is; a new one joins the fixture."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import numpy as np
import pytest
import redis

from engine.adapters.redis.embedded import EmbeddedRedis
from engine.adapters.redis.keys import live_key, past_key, record_key, seen_key
from engine.adapters.redis.store import RedisFeatureStore, RedisPublisher
from engine.config.serving import RedisConfig
from engine.errors import DependencyUnavailable
from engine.features.record import pack_record, pack_session
from engine.features.state import SeenItems, Session
from engine.stream.state import LiveState, pack_state
from engine.types import EventType
from tests.engine.features.test_record import make_record
from tests.engine.stream.folding import StreamEvent, packed_after

KEYS = np.array([5, -7, 2**62], np.int64)
SEEN = SeenItems(
    KEYS,
    np.array([EventType.VIEW, EventType.VIEW, EventType.PURCHASE], np.uint8),
    np.array([10, 20, 15]),
    np.ones(3, np.float32),
)


@pytest.fixture
def publisher(redis_server: EmbeddedRedis) -> RedisPublisher:
    redis.Redis.from_url(redis_server.url).flushall()
    return RedisPublisher(redis_server.url, RedisConfig())


@pytest.fixture
async def store(redis_server: EmbeddedRedis, publisher: RedisPublisher) -> AsyncIterator[RedisFeatureStore]:
    store = RedisFeatureStore(redis_server.url, RedisConfig(timeout_ms=1000))
    yield store
    await store.close()


async def test_an_unknown_user_is_not_an_error(store: RedisFeatureStore) -> None:
    state = await store.fetch("nobody", 1)
    assert state.record is None
    assert len(state.seen) == len(state.session.item_keys) == 0


@pytest.mark.parametrize("user_id", ["u1", "{", "}", "a{b}c", "%7D", "名前", "a b:c", "x" * 256])
async def test_what_was_published_is_read(store: RedisFeatureStore, publisher: RedisPublisher, user_id: str) -> None:
    record = make_record()
    assert publisher.publish([(user_id, record, SEEN)]) == 1
    state = await store.fetch(user_id, record.generation)
    assert state.record is not None
    assert state.record.interaction_count == record.interaction_count
    for name in ("item_keys", "event_types", "times_s", "counts"):
        np.testing.assert_array_equal(getattr(state.seen, name), getattr(SEEN, name))


async def test_a_record_of_another_embedding_space_is_never_used(
    store: RedisFeatureStore, publisher: RedisPublisher, redis_server: EmbeddedRedis
) -> None:
    record = make_record()
    publisher.publish([("u1", record, SEEN)])
    other = record.generation ^ 1
    assert (await store.fetch("u1", other)).record is None
    # Not even when the bytes are filed under the wrong generation.
    client = redis.Redis.from_url(redis_server.url)
    client.rename(record_key("u1", record.generation), record_key("u1", other))
    assert (await store.fetch("u1", other)).record is None


async def test_records_of_two_generations_live_side_by_side(
    store: RedisFeatureStore, publisher: RedisPublisher
) -> None:
    first, second = make_record(1), make_record(2)
    publisher.publish([("u1", first, SEEN), ("u1", second, SEEN)])
    for record in (first, second):
        found = (await store.fetch("u1", record.generation)).record
        assert found is not None
        assert found.generation == record.generation


async def test_the_session_is_read_with_the_record(store: RedisFeatureStore, redis_server: EmbeddedRedis) -> None:
    session = Session(np.array([1, 2]), np.array([2, 4], np.uint8), np.array([10, 20]))
    live = LiveState.empty()._replace(session=pack_session(session))
    redis.Redis.from_url(redis_server.url).set(live_key("u1"), pack_state(live))
    found = (await store.fetch("u1", 1)).session
    np.testing.assert_array_equal(found.item_keys, session.item_keys)
    np.testing.assert_array_equal(found.event_types, session.event_types)
    np.testing.assert_array_equal(found.timestamps_ms, session.timestamps_ms)


async def test_live_seen_items_and_counts_join_the_published_ones(
    store: RedisFeatureStore, publisher: RedisPublisher, redis_server: EmbeddedRedis
) -> None:
    record = replace(make_record(), interaction_count=1)
    live = packed_after([StreamEvent(at, 70 + at, time_ms=at) for at in range(3)])
    redis.Redis.from_url(redis_server.url).set(live_key("u1"), live)
    publisher.publish([("u1", record, SEEN)])
    state = await store.fetch("u1", record.generation)
    assert state.seen.item_keys.tolist() == [*KEYS, 70, 71, 72]
    assert (state.live_interaction_count, state.interaction_count) == (3, 3)


async def test_only_the_most_recent_seen_items_are_kept(redis_server: EmbeddedRedis, store: RedisFeatureStore) -> None:
    record, views = make_record(), SeenItems.of(np.arange(5), EventType.VIEW, 10)
    everything = views.joined(SeenItems.of(np.array([7]), EventType.PURCHASE, 3))
    RedisPublisher(redis_server.url, RedisConfig(seen_limit=2)).publish([("u2", record, everything)])
    assert (await store.fetch("u2", record.generation)).seen.item_keys.tolist() == [3, 4, 7]
    # And only those that a policy can ask for; nothing stays of what was published before.
    kept = {"view": 0, "purchase": 60}
    late = everything.joined(SeenItems.of(np.array([8]), EventType.PURCHASE, 63))
    for seen, found in ((late, [7, 8]), (views, [])):
        RedisPublisher(redis_server.url, RedisConfig(), kept).publish([("u2", record, seen)])
        assert (await store.fetch("u2", record.generation)).seen.item_keys.tolist() == found


async def test_what_an_earlier_version_published_is_read_until_the_next_publication(
    store: RedisFeatureStore, publisher: RedisPublisher, redis_server: EmbeddedRedis
) -> None:
    client = redis.Redis.from_url(redis_server.url)
    for user_id, purchases, kind in (("buyer", 2, EventType.PURCHASE), ("looker", 0, EventType.VIEW)):
        record = replace(make_record(), purchase_count=purchases, embedded_until_ms=5_000)
        client.set(record_key(user_id, record.generation), pack_record(record))
        client.set(seen_key(user_id), KEYS.tobytes())
        seen = (await store.fetch(user_id, record.generation)).seen
        assert seen.item_keys.tolist() == KEYS.tolist()
        assert set(seen.event_types.tolist()) == {kind}
        assert set(seen.times_s.tolist()) == {5}
        publisher.publish([(user_id, record, SeenItems.none())])
        assert len((await store.fetch(user_id, record.generation)).seen) == 0
        assert client.get(seen_key(user_id)) is None


async def test_publishing_again_leaves_the_same_bytes(publisher: RedisPublisher, redis_server: EmbeddedRedis) -> None:
    client = redis.Redis.from_url(redis_server.url)
    record = make_record()
    keys = (record_key("u1", record.generation), past_key("u1"))
    publisher.publish([("u1", record, SEEN)])
    before = client.mget(keys)
    publisher.publish([("u1", record, SEEN)])
    assert client.mget(keys) == before


async def test_concurrent_reads_do_not_mix_users_up(store: RedisFeatureStore, publisher: RedisPublisher) -> None:
    record = make_record()
    publisher.publish([(f"u{user}", record, SeenItems.of(np.array([user]), EventType.CART, 1)) for user in range(50)])
    states = await asyncio.gather(*(store.fetch(f"u{user}", record.generation) for user in range(50)))
    assert [int(state.seen.item_keys[0]) for state in states] == list(range(50))


async def test_a_store_out_of_reach_is_said_to_be() -> None:
    store = RedisFeatureStore("redis://127.0.0.1:1/0", RedisConfig())
    with pytest.raises(DependencyUnavailable):
        await store.ping(10)
    with pytest.raises(DependencyUnavailable):
        await store.fetch("u1", 1)
    await store.close()
    with pytest.raises(DependencyUnavailable):
        RedisPublisher("redis://127.0.0.1:1/0", RedisConfig())
