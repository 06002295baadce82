import threading
import time

import numpy as np
import polars as pl
import pytest

from engine.adapters.redis.embedded import EmbeddedRedis
from engine.adapters.redis.keys import history_key, live_key, nearline_key
from engine.adapters.redis.state import RedisNearlineStore
from engine.adapters.redis.store import RedisFeatureStore, RedisPublisher
from engine.app.model import load_embedders
from engine.bundle.bundle import open_bundle
from engine.config.serving import RedisConfig
from engine.data.build import build_dataset
from engine.data.tables import make_tables, read_tables
from engine.errors import DependencyUnavailable
from engine.features.record import unpack_session
from engine.features.state import SeenItems, Session, UserRecord
from engine.publish.users import recent_histories, user_batches
from engine.stream.nearline import Refresher, Touched, UserModel, joined, nearline_records
from engine.types import EventType, item_key
from tests.conftest import Trained
from tests.engine.stream.folding import StreamEvent, packed_after

NOW_MS = 1_768_000_000_000


@pytest.fixture(scope="module")
def model(trained: Trained) -> UserModel:
    bundle = open_bundle(trained.bundles.current())
    return UserModel(bundle, *load_embedders(bundle))


@pytest.fixture(scope="module")
def published(trained: Trained, model: UserModel) -> dict[str, UserRecord]:
    batches = user_batches(model.bundle, trained.dataset, model.embed, model.fold_in)
    return {user_id: record for batch in batches for user_id, record, _ in batch}


@pytest.fixture(scope="module")
def histories(trained: Trained) -> dict[str, Session]:
    return {user_id: history for batch in recent_histories(trained.dataset, 100) for user_id, history in batch}


def session(*events: tuple[str, EventType, int]) -> Session:
    return Session(
        np.array([item_key(item) for item, _, _ in events], np.int64),
        np.array([kind for _, kind, _ in events], np.uint8),
        np.array([time_ms for _, _, time_ms in events], np.int64),
    )


def published_with(
    trained: Trained, model: UserModel, user: str, events: list[tuple[str, EventType, int]]
) -> UserRecord:
    """What the hourly job computes once these events are in the tables."""
    tables = read_tables(trained.data)
    more = pl.DataFrame(
        [(user, item, kind.name.lower(), time_ms) for item, kind, time_ms in events],
        schema=["user_id", "item_id", "event_type", "timestamp_ms"],
        orient="row",
    )
    later = build_dataset(
        make_tables(pl.concat([tables.interactions, more], how="diagonal"), tables.items, tables.users)
    )
    batches = user_batches(model.bundle, later, model.embed, model.fold_in)
    return next(record for batch in batches for user_id, record, _ in batch if user_id == user)


def test_joined_histories_hold_each_positive_event_once_in_time_order() -> None:
    old = session(("a", EventType.VIEW, 1), ("b", EventType.CLICK, 5))
    live = session(("b", EventType.CLICK, 5), ("c", EventType.DWELL, 6), ("d", EventType.PURCHASE, 3))
    events, alone = joined(old, live)
    assert events.item_keys.tolist() == [item_key("a"), item_key("d"), item_key("b")]
    assert events.timestamps_ms.tolist() == [1, 3, 5]
    assert alone.item_keys.tolist() == [item_key("d")]


def test_a_fresh_record_is_the_one_that_publishing_would_compute(
    trained: Trained, model: UserModel, published: dict[str, UserRecord], histories: dict[str, Session]
) -> None:
    user = next(name for name, record in published.items() if 10 <= record.interaction_count <= 60)
    items = trained.dataset.items["item_id"].to_list()
    events = [(items[n], EventType.CLICK if n else EventType.PURCHASE, NOW_MS + n) for n in range(4)]
    touched = Touched(user, histories[user], session(*events), 4, 1, published[user])
    [(name, fresh)] = nearline_records([touched], model)
    expected = published_with(trained, model, user, events)
    assert name == user
    np.testing.assert_allclose(fresh.embedding, expected.embedding, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(fresh.collaborative, expected.collaborative, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(fresh.profile, expected.profile, rtol=1e-3, atol=1e-3)
    assert (fresh.interaction_count, fresh.purchase_count) == (expected.interaction_count, expected.purchase_count)
    assert fresh.demographics == expected.demographics
    assert fresh.embedded_until_ms == expected.embedded_until_ms == NOW_MS + 3
    # And that is news.
    assert np.abs(fresh.embedding - published[user].embedding).max() > 1e-3


def test_a_tail_of_a_history_moves_the_embedding_alone(
    trained: Trained, model: UserModel, published: dict[str, UserRecord], histories: dict[str, Session]
) -> None:
    user = max(published, key=lambda name: published[name].interaction_count)
    record = published[user]
    window = 20  # of the small towers
    tail = Session(*(part[-window:] for part in (
        histories[user].item_keys, histories[user].event_types, histories[user].timestamps_ms
    )))  # fmt: skip
    assert record.interaction_count > window
    events = [(trained.dataset.items["item_id"][3], EventType.CLICK, NOW_MS)]
    [(_, fresh)] = nearline_records([Touched(user, tail, session(*events), 1, 0, record)], model)
    expected = published_with(trained, model, user, events)
    np.testing.assert_allclose(fresh.embedding, expected.embedding, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(fresh.collaborative, record.collaborative)
    np.testing.assert_array_equal(fresh.profile, record.profile)
    assert fresh.interaction_count == record.interaction_count + 1


def test_users_of_a_batch_do_not_mix_and_new_ones_get_a_record(
    trained: Trained, model: UserModel, published: dict[str, UserRecord], histories: dict[str, Session]
) -> None:
    items = trained.dataset.items["item_id"].to_list()
    old = next(name for name, record in published.items() if record.interaction_count >= 10)
    batch = [
        Touched("new", Session.empty(), session((items[0], EventType.VIEW, NOW_MS)), 1, 0, None),
        Touched(old, histories[old], session((items[1], EventType.VIEW, NOW_MS)), 1, 0, published[old]),
        Touched("lost", Session.empty(), session(("no such item", EventType.VIEW, NOW_MS)), 7, 3, None),
    ]
    together = nearline_records(batch, model)
    for position, user in enumerate(batch):
        [(name, alone)] = nearline_records([user], model)
        assert name == together[position][0]
        np.testing.assert_allclose(alone.embedding, together[position][1].embedding, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(alone.profile, together[position][1].profile, rtol=1e-4, atol=1e-4)
    assert all(np.isfinite(record.embedding).all() for _, record in together)
    # The live state has counted more than its session still holds.
    counts = [(record.interaction_count, record.purchase_count) for _, record in together]
    assert (counts[0], counts[2]) == ((1, 0), (7, 3))
    assert counts[1] == (published[old].interaction_count + 1, published[old].purchase_count)


def test_a_record_reaches_no_further_than_now_whatever_an_event_says(trained: Trained, model: UserModel) -> None:
    """Whoever has an event of the far future is not up to date until then."""
    ahead = session((trained.dataset.items["item_id"][0], EventType.VIEW, 4_070_908_800_000))
    started_ms = time.time_ns() // 1_000_000
    [(_, record)] = nearline_records([Touched("new", Session.empty(), ahead, 1, 0, None)], model)
    assert started_ms <= record.embedded_until_ms <= time.time_ns() // 1_000_000


async def test_a_request_reads_the_fresh_record(
    trained: Trained, model: UserModel, published: dict[str, UserRecord], histories: dict[str, Session],
    redis_server: EmbeddedRedis,
) -> None:  # fmt: skip
    user = next(iter(published))
    record, generation = published[user], model.bundle.manifest.generation
    publisher = RedisPublisher(redis_server.url, RedisConfig())
    publisher.publish([(user, record, SeenItems.none())])
    publisher.publish_histories([(user, histories[user])])
    item = trained.dataset.items["item_id"][0]
    client = publisher._client
    client.set(live_key(user), packed_after([StreamEvent(0, item_key(item), time_ms=NOW_MS)]))
    client.set(live_key("broken"), b"\x63")
    assert unpack_session(client.get(history_key(user))).item_keys.tolist() == histories[user].item_keys.tolist()  # type: ignore[arg-type]

    stop = threading.Event()
    refresher = Refresher(RedisNearlineStore(redis_server.url, RedisConfig(), 60), lambda: model, 1e6, 8, 100, stop)
    thread = threading.Thread(target=refresher.run)
    thread.start()
    store = RedisFeatureStore(redis_server.url, RedisConfig(timeout_ms=5000))
    try:
        refresher.touch([user, "broken"])
        give_up = time.monotonic() + 20
        while not client.exists(nearline_key(user, generation)) and time.monotonic() < give_up:
            time.sleep(0.02)
        fresh = (await store.fetch(user, generation)).record
        assert fresh is not None
        assert fresh.interaction_count == record.interaction_count + 1
        assert np.abs(fresh.embedding - record.embedding).max() > 1e-3
        assert 0 < client.ttl(nearline_key(user, generation)) <= 60  # type: ignore[operator]
        # The published record itself is publishing's alone.
        client.delete(nearline_key(user, generation))
        kept = (await store.fetch(user, generation)).record
        assert kept is not None
        assert kept.interaction_count == record.interaction_count
    finally:
        stop.set()
        thread.join()
        await store.close()
        client.flushdb()


class Away:
    """A store that cannot be reached, and counts how often it was asked."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def read_touched(self, user_ids: list[str], generation: int) -> list[Touched]:
        self.asked.append(list(user_ids))
        raise DependencyUnavailable("away")

    def write_nearline(self, records: object) -> None:
        raise AssertionError


def test_what_waits_is_bounded_and_a_store_that_is_away_stops_nothing(model: UserModel) -> None:
    store, stop = Away(), threading.Event()
    refresher = Refresher(store, lambda: model, 1e6, 2, 3, stop)  # type: ignore[arg-type]
    refresher.touch(["a", "b", "a", "c", "d", "e"])
    thread = threading.Thread(target=refresher.run)
    thread.start()
    give_up = time.monotonic() + 10
    while len(store.asked) < 2 and time.monotonic() < give_up:
        time.sleep(0.01)
    stop.set()
    thread.join()
    assert store.asked == [["c", "d"], ["e"]]


def test_no_user_waits_for_an_idle_thread(model: UserModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither one who was touched before it started, nor one who is touched while it has nothing to do."""
    monkeypatch.setattr("engine.stream.nearline._IDLE_S", 600.0)
    store, stop = Away(), threading.Event()
    refresher = Refresher(store, lambda: model, 1e6, 2, 100, stop)  # type: ignore[arg-type]
    thread = threading.Thread(target=refresher.run, daemon=True)

    def wait_until_asked(*user_ids: str) -> None:
        give_up = time.monotonic() + 60
        while len(store.asked) < len(user_ids) and time.monotonic() < give_up:
            time.sleep(0.01)
        assert store.asked == [[user_id] for user_id in user_ids]

    refresher.touch(["a"])
    thread.start()
    wait_until_asked("a")
    time.sleep(0.2)  # it is idle by now
    refresher.touch(["b"])
    wait_until_asked("a", "b")
    stop.set()
    refresher.touch(["c"])
    thread.join(60)
    assert not thread.is_alive()


def test_a_rate_is_kept(model: UserModel) -> None:
    store, stop = Away(), threading.Event()
    refresher = Refresher(store, lambda: model, 20.0, 2, 100, stop)  # type: ignore[arg-type]
    refresher.touch(map(str, range(40)))
    thread = threading.Thread(target=refresher.run)
    started = time.monotonic()
    thread.start()
    time.sleep(0.55)
    stop.set()
    thread.join()
    assert sum(map(len, store.asked)) <= 20 * (time.monotonic() - started) + 2


def test_publishing_keeps_the_last_events_of_everybody(trained: Trained) -> None:
    short = {user: history for batch in recent_histories(trained.dataset, 3) for user, history in batch}
    long = {user: history for batch in recent_histories(trained.dataset, 10**6) for user, history in batch}
    assert list(short) == trained.dataset.users["user_id"].to_list()
    for user, history in short.items():
        np.testing.assert_array_equal(history.timestamps_ms, long[user].timestamps_ms[-3:])
    assert sum(len(history.item_keys) for history in long.values()) == len(trained.dataset.interactions.positive())
    assert list(recent_histories(trained.dataset, 0)) == []
