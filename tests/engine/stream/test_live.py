"""What one batch makes of what is stored, and who hears of it: over a real Redis, without a log."""

import redis

from engine.adapters.redis.keys import popularity_key
from engine.adapters.redis.state import RedisLiveStore
from engine.config.serving import RedisConfig
from engine.config.stream import ProcessorConfig
from engine.contract.events import encode
from engine.stream.events import EventBatch, read_events
from engine.stream.live import LiveSink
from engine.stream.protocols import Message
from engine.stream.state import Limits
from engine.types import EventType
from engine_client.v1 import event_pb2 as pb
from tests.engine.stream.conftest import NOW_MS, make_event
from tests.engine.stream.logs import log_now
from tests.engine.stream.naive import live_counts


def batch(first: int, *events: pb.Event) -> EventBatch:
    """The events from an offset of partition 0 on."""
    return read_events([Message(0, first + at, b"", encode(event, NOW_MS)) for at, event in enumerate(events)])[0]


def test_whoever_an_event_moves_is_told_of_and_nobody_else(redis_url: str) -> None:
    told: list[set[str]] = []
    store = RedisLiveStore(redis_url, RedisConfig(), ProcessorConfig(), "t", lambda: None)
    sink = LiveSink(store, "t", Limits(), popular_items=100, touched=lambda users: told.append(set(users)))
    sink.positions([0], log_now())
    # Each kind of event by a user of its name, and the same again: what came before moves nobody.
    events = [make_event(kind.name.lower(), kind=kind, name=f"{kind}") for kind in EventType]
    sink.write(batch(0, *events))
    sink.write(batch(len(events), *events))
    assert told == [{"view", "click", "cart", "purchase", "return"}, set()]


def test_who_sends_back_what_they_bought_is_no_longer_counted(redis_url: str) -> None:
    store = RedisLiveStore(redis_url, RedisConfig(), ProcessorConfig(), "t", lambda: None)
    sink = LiveSink(store, "t", Limits(), popular_items=100)
    sink.positions([0], log_now())

    def users(scope: str) -> list[float]:
        """How many users there are of the one item, as of now; none where it is not in the list."""
        return [round(counts[2], 3) for counts in live_counts(redis_url, "t", scope, NOW_MS).values()]

    bought = [make_event(user, kind=EventType.PURCHASE, name=user) for user in "abc"]
    sink.write(batch(0, *bought))
    assert users("") == users('{"surface": "home"}') == [3.0]
    sink.write(batch(3, make_event("a", kind=EventType.RETURN), make_event("d", kind=EventType.RETURN)))
    assert users("") == users('{"surface": "home"}') == [2.0]


def test_surfaces_that_take_turns_are_counted_in_log_order(redis_url: str) -> None:
    """Which items a full list drops depends on the order of the events, and not on where one batch ends."""
    store = RedisLiveStore(redis_url, RedisConfig(), ProcessorConfig(), "t", lambda: None)
    events = [
        make_event(f"u{n}", f"i{n}", name=f"{n}", time_ms=NOW_MS + 1000 * n, surface="home" if n % 2 else "cart")
        for n in range(9)
    ]

    def stored(*batches: EventBatch) -> dict[bytes, bytes]:
        client = redis.Redis.from_url(redis_url)
        client.flushdb()
        sink = LiveSink(store, "t", Limits(), popular_items=2)
        sink.positions([0], log_now())
        for one in batches:
            sink.write(one)
        return client.hgetall(popularity_key("t", 0, ""))

    one_by_one = stored(*(batch(n, event) for n, event in enumerate(events)))
    assert len(one_by_one) == 3
    assert stored(batch(0, *events)) == one_by_one
