"""The loop over a real broker into a real Redis: what it leaves there, whatever happens on the way."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from prometheus_client import CollectorRegistry

from engine.adapters.kafka.embedded import EmbeddedKafka
from engine.adapters.kafka.source import KafkaDeadLetters, KafkaSource
from engine.adapters.redis.embedded import EmbeddedRedis
from engine.adapters.redis.keys import live_key, past_key
from engine.adapters.redis.state import RedisLiveStore
from engine.config.serving import EngineConfig, RedisConfig
from engine.config.stream import KafkaConfig, ProcessorConfig
from engine.contract.events import encode
from engine.stream.events import EventBatch, read_events
from engine.stream.live import LiveSink
from engine.stream.metrics import ProcessorMetrics
from engine.stream.popularity import OVERALL
from engine.stream.processor import Processor
from engine.stream.protocols import Sink
from engine.stream.state import Limits, view_state
from engine.stream.topics import DEAD_LETTERS, EVENTS
from engine.types import EventType, item_key
from engine_client.v1 import event_pb2 as pb
from tests.engine.stream.conftest import (
    KILL_BATCH,
    KILL_EVENTS,
    KILL_SEED,
    KILL_TIMEOUT_S,
    NOW_MS,
    Bus,
    make_event,
    portions,
)
from tests.engine.stream.naive import live_counts
from tests.kafka import read_back

Start = Callable[[Callable[[], None], threading.Event], None]
LIMITS = Limits(session_events=10, seen_items=20, remembered_s=EngineConfig.load().remembered_s)


def make_sink(url: str, log: str) -> LiveSink:
    store = RedisLiveStore(url, RedisConfig(), ProcessorConfig(), log, lambda: None)
    return LiveSink(store, log, LIMITS, popular_items=100)


def make_processor(
    bus: Bus, sink: Sink[EventBatch], stop: threading.Event, group: str, batch: int = 50
) -> tuple[Processor[EventBatch], CollectorRegistry]:
    registry = CollectorRegistry()
    source = KafkaSource(bus.brokers, bus.config.kafka, group, batch, 4)
    dead_letters = KafkaDeadLetters(bus.brokers, bus.config.kafka)
    return Processor(source, read_events, sink, ProcessorMetrics("live", registry), stop, dead_letters, 0.2), registry


def stream(count: int, seed: int = 0, users: int = 40) -> list[pb.Event]:
    """Events of few users on few items, out of order, some of them sent twice."""
    rng = random.Random(seed)
    kinds = [EventType.IMPRESSION, EventType.VIEW, EventType.CLICK, EventType.PURCHASE, EventType.DWELL]
    events = [
        make_event(
            f"u{rng.randrange(users)}",
            f"i{rng.randrange(50)}",
            rng.choice(kinds),
            f"{seed}-{position}",
            NOW_MS - rng.randrange(3_600_000),
            rng.choice(["home", "cart", ""]),
        )
        for position in range(count)
    ]
    return events + rng.sample(events, count // 20)


def dump(url: str) -> dict[bytes, object]:
    """Everything that is stored, byte for byte."""
    client = redis.Redis.from_url(url)
    return {
        key: client.hgetall(key) if client.type(key) == b"hash" else client.get(key)
        for key in client.scan_iter(count=1000)
    }


def wait_for(condition: Callable[[], bool], timeout_s: float = 40.0) -> None:
    give_up = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < give_up, "it did not happen in time"
        time.sleep(0.02)


def applied_count(url: str, log: str) -> int:
    """Messages that are in the store, over all partitions (of a log that starts at 0)."""
    client = redis.Redis.from_url(url)
    keys = [f"applied:{log}:{partition}" for partition in range(EVENTS.partitions)]
    try:
        return sum(int(value) + 1 for value in client.mget(keys) if value is not None)
    except redis.RedisError:
        return -1


@contextmanager
def undisturbed(bus: Bus, log: str, count: int, home: Path) -> Iterator[dict[bytes, object]]:
    """What a run that nothing disturbs leaves of the first `count` messages in a Redis of its own."""
    stop = threading.Event()
    with EmbeddedRedis(home) as server:
        processor, _ = make_processor(bus, make_sink(server.url, log), stop, f"undisturbed-{home.name}", 500)
        thread = threading.Thread(target=processor.run)
        thread.start()
        try:
            wait_for(lambda: applied_count(server.url, log) >= count, KILL_TIMEOUT_S)
        finally:
            stop.set()
            thread.join()
        yield dump(server.url)


def test_events_become_session_counts_and_popularity(bus: Bus, redis_url: str, background: Start) -> None:
    redis.Redis.from_url(redis_url).set(past_key("u"), b"12345678")
    events = [
        make_event("u", "a", EventType.VIEW, time_ms=NOW_MS - 2000),
        make_event("u", "b", EventType.PURCHASE, time_ms=NOW_MS - 3000),
        make_event("u", "c", EventType.IMPRESSION),
        make_event("v", "a", EventType.CLICK, time_ms=NOW_MS + 60_000, surface="cart"),
    ]
    bus.send([*events, events[0]])
    stop = threading.Event()
    processor, registry = make_processor(bus, make_sink(redis_url, "t"), stop, "g")
    background(processor.run, stop)
    wait_for(lambda: applied_count(redis_url, "t") == 5)

    client = redis.Redis.from_url(redis_url)
    live = view_state(client.get(live_key("u")))  # type: ignore[arg-type]
    assert live.session.item_keys.tolist() == [item_key("b"), item_key("a")]
    assert live.session.event_types.tolist() == [EventType.PURCHASE, EventType.VIEW]
    assert (live.interaction_count, live.purchase_count) == (2, 1)
    assert live.seen.event_types.tolist() == [EventType.IMPRESSION, EventType.VIEW, EventType.PURCHASE]
    assert live.seen.item_keys.tolist() == [item_key("c"), item_key("a"), item_key("b")]
    assert client.get(past_key("u")) == b"12345678"
    assert view_state(client.get(live_key("v"))).session.timestamps_ms.tolist() == [NOW_MS]  # type: ignore[arg-type]

    assert live_counts(redis_url, "t", OVERALL, NOW_MS)[item_key("a")] == pytest.approx((2, 2, 2), rel=1e-3)
    assert set(live_counts(redis_url, "t", '{"surface": "cart"}', NOW_MS)) == {item_key("a")}
    assert registry.get_sample_value("engine_processor_events_total", {"sink": "live"}) == 5


def test_one_person_makes_no_bestseller_in_whatever_batches_and_over_a_restart(
    bus: Bus, redis_url: str, background: Start
) -> None:
    """As case 05-one-user-makes-a-bestseller has it, live; and a return takes back the one count that was left."""

    def applied(count: int, group: str, events: list[pb.Event], batch: int) -> tuple[float, ...]:
        bus.send(events)
        stop = threading.Event()
        processor, _ = make_processor(bus, make_sink(redis_url, "t"), stop, group, batch=batch)
        background(processor.run, stop)
        wait_for(lambda: applied_count(redis_url, "t") == count)
        stop.set()
        return live_counts(redis_url, "t", OVERALL, NOW_MS).get(item_key("a"), (0.0, 0.0, 0.0))

    clicks = [make_event("bot", "a", EventType.CLICK, time_ms=NOW_MS - 1000 + place) for place in range(300)]
    assert applied(300, "first", clicks, batch=7) == pytest.approx((1, 1, 1), rel=1e-2)
    more = [make_event("bot", "a", EventType.VIEW, time_ms=NOW_MS + place, surface="cart") for place in range(100)]
    others = [make_event(f"u{place}", "a", EventType.PURCHASE) for place in range(3)]
    assert applied(403, "second", more + others, batch=50) == pytest.approx((4, 4, 4), rel=1e-2)
    assert live_counts(redis_url, "t", '{"surface": "cart"}', NOW_MS)[item_key("a")][2] == pytest.approx(1, rel=1e-2)
    back = [make_event(f"u{place}", "a", EventType.RETURN) for place in range(3)]
    assert applied(406, "third", back, batch=50) == pytest.approx((1, 1, 1), rel=1e-2)


def test_a_replay_from_the_start_leaves_the_same_bytes(bus: Bus, redis_url: str, tmp_path: Path) -> None:
    events = stream(600)
    bus.send(events)
    client = redis.Redis.from_url(redis_url)

    def play(group: str) -> dict[bytes, object]:
        stop = threading.Event()
        processor, _ = make_processor(bus, make_sink(redis_url, "t"), stop, group, batch=37)
        thread = threading.Thread(target=processor.run)
        thread.start()
        wait_for(lambda: applied_count(redis_url, "t") == len(events))
        stop.set()
        thread.join()
        return dump(redis_url)

    once = play("first")
    # Without the positions everything is read again, and every user's own position says that it is known.
    client.delete(*client.keys("applied:*"))  # type: ignore[misc]
    assert play("second") == once
    # Into an empty store, in batches of another size.
    with undisturbed(bus, "t", len(events), tmp_path / "r") as again:
        assert again == once


def test_poison_goes_to_the_dead_letters_and_the_rest_flows_on(bus: Bus, redis_url: str, background: Start) -> None:
    good = [(b"u", encode(make_event(item=f"i{position}"), NOW_MS)) for position in range(4)]
    poison = [(b"u", b"\xff not a message"), (b"u", b""), (b"u", encode(pb.Event(event_id="x"), NOW_MS))]
    stop = threading.Event()
    processor, registry = make_processor(bus, make_sink(redis_url, "t"), stop, "g")
    bus.send_raw([good[0], poison[0], good[1], poison[1], poison[2], *good[2:]])
    background(processor.run, stop)
    wait_for(lambda: applied_count(redis_url, "t") == 7)
    counts = view_state(redis.Redis.from_url(redis_url).get(live_key("u")))  # type: ignore[arg-type]
    assert counts.interaction_count == 4
    letters = read_back(bus.kafka, {b"u"}, 3, DEAD_LETTERS)
    assert [letter.value() or b"" for letter in letters] == [payload for _, payload in poison]
    headers = [dict(letter.headers()) for letter in letters]
    assert [int(one["offset"]) for one in headers] == [1, 3, 4]
    assert headers[0]["reason"] == b"not a LoggedEvent message"
    assert registry.get_sample_value("engine_processor_poison_total", {"sink": "live"}) == 3


def test_a_broken_state_in_the_store_stops_nobody(bus: Bus, redis_url: str, background: Start) -> None:
    redis.Redis.from_url(redis_url).set(live_key("u"), b"\x09 of another version")
    bus.send([make_event("u"), make_event("v")])
    stop = threading.Event()
    background(make_processor(bus, make_sink(redis_url, "t"), stop, "g")[0].run, stop)
    wait_for(lambda: applied_count(redis_url, "t") == 2)
    assert view_state(redis.Redis.from_url(redis_url).get(live_key("u"))).interaction_count == 1  # type: ignore[arg-type]


@pytest.mark.parametrize("loses", [False, True])
def test_redis_restarted_under_way_changes_nothing(loses: bool, bus: Bus, background: Start, tmp_path: Path) -> None:
    """Stopped in order, and killed, so that it forgets everything since its last snapshot."""
    rng = random.Random(KILL_SEED)
    events = stream(KILL_EVENTS)
    *disturbed, rest = portions(events)
    stop = threading.Event()
    server = EmbeddedRedis(tmp_path / "r")
    url, sent = server.url, 0
    try:
        background(make_processor(bus, make_sink(url, "t"), stop, "g", KILL_BATCH)[0].run, stop)
        for part in disturbed:
            wait_for(lambda: applied_count(url, "t") >= sent - len(part) // 2, KILL_TIMEOUT_S)  # noqa: B023
            if loses:
                redis.Redis.from_url(url).save()
            bus.send(part)
            wait_for(lambda: applied_count(url, "t") > sent, KILL_TIMEOUT_S)  # noqa: B023
            sent += len(part)
            time.sleep(rng.uniform(0, 0.2))
            if loses:
                assert server.pid is not None
                redis.Redis.from_url(url).config_set("save", "")
                _kill(server.pid)
            server.close()
            time.sleep(rng.uniform(0, 0.4))
            server = EmbeddedRedis(tmp_path / "r")
        bus.send(rest)
        wait_for(lambda: applied_count(url, "t") == len(events), KILL_TIMEOUT_S)
        with undisturbed(bus, "t", len(events), tmp_path / "other") as expected:
            assert dump(url) == expected
    finally:
        stop.set()
        server.close()


def test_what_redis_loses_while_nothing_happens_comes_back_by_itself(
    bus: Bus, redis_url: str, background: Start
) -> None:
    stop = threading.Event()
    background(make_processor(bus, make_sink(redis_url, "t"), stop, "g")[0].run, stop)
    bus.send(stream(100))
    wait_for(lambda: applied_count(redis_url, "t") == 105)
    whole = dump(redis_url)
    redis.Redis.from_url(redis_url).flushdb()
    wait_for(lambda: applied_count(redis_url, "t") == 105)
    assert dump(redis_url) == whole


def test_a_cut_connection_to_kafka_changes_nothing(redis_url: str, background: Start, tmp_path: Path) -> None:
    rng = random.Random(KILL_SEED)
    events = stream(KILL_EVENTS)
    *disturbed, rest = portions(events)
    stop = threading.Event()
    with EmbeddedKafka(tmp_path / "k") as kafka:
        bus, sent = Bus.over(KafkaConfig(brokers=kafka.brokers), delivery_timeout_ms=20_000), 0
        try:
            background(make_processor(bus, make_sink(redis_url, "t"), stop, "g", KILL_BATCH)[0].run, stop)
            for part in disturbed:
                wait_for(lambda: applied_count(redis_url, "t") >= sent - len(part) // 2, KILL_TIMEOUT_S)  # noqa: B023
                bus.send(part)
                wait_for(lambda: applied_count(redis_url, "t") > sent, KILL_TIMEOUT_S)  # noqa: B023
                sent += len(part)
                time.sleep(rng.uniform(0, 0.1))
                kafka.set_reachable(False)
                time.sleep(rng.uniform(0.1, 0.6))
                kafka.set_reachable(True)
            bus.send(rest)
            wait_for(lambda: applied_count(redis_url, "t") == len(events), KILL_TIMEOUT_S)
            with undisturbed(bus, "t", len(events), tmp_path / "other") as expected:
                assert dump(redis_url) == expected
        finally:
            stop.set()


def test_a_second_processor_takes_its_share_and_the_first_goes_on_alone(
    bus: Bus, redis_url: str, background: Start, tmp_path: Path
) -> None:
    # The embedded broker waits for a session's length before it hands partitions to others.
    bus = Bus.over(bus.kafka, properties={"session.timeout.ms": "1000", "heartbeat.interval.ms": "200"})
    events = stream(2000)
    stops = threading.Event(), threading.Event()
    first, _ = make_processor(bus, make_sink(redis_url, "t"), stops[0], "g", 20)
    second, registry = make_processor(bus, make_sink(redis_url, "t"), stops[1], "g", 20)
    background(first.run, stops[0])
    bus.send(events[:500])
    wait_for(lambda: applied_count(redis_url, "t") >= 100)
    background(second.run, stops[1])

    def moved() -> bool:
        return (registry.get_sample_value("engine_processor_events_total", {"sink": "live"}) or 0) > 0

    sent = 500
    while not moved() and sent < 1800:
        bus.send(events[sent : sent + 20])
        sent += 20
        time.sleep(0.1)
    assert moved()
    stops[1].set()
    bus.send(events[sent:])
    wait_for(lambda: applied_count(redis_url, "t") == len(events))
    stops[0].set()
    with undisturbed(bus, "t", len(events), tmp_path / "other") as expected:
        assert dump(redis_url) == expected


def _kill(pid: int) -> None:
    import os
    import signal

    os.kill(pid, signal.SIGKILL)
