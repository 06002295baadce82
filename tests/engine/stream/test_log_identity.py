"""Where reading goes on, by what is stored and what is there."""

import itertools
from pathlib import Path

import polars as pl
import pytest
import redis

from engine.adapters.redis.keys import applied_log_key, live_key
from engine.adapters.redis.state import RedisLiveStore
from engine.config.serving import RedisConfig
from engine.config.stream import ProcessorConfig
from engine.contract.events import encode
from engine.errors import LogMismatch, LogShorter, PositionLost
from engine.stream.archive import EVENTS_LAYOUT, ArchiveSink
from engine.stream.events import EventBatch, read_events
from engine.stream.live import LiveSink
from engine.stream.log_identity import AcceptNewLog, Extent, LogIdentity, LogNow, Place, start_of
from engine.stream.protocols import Message
from engine.stream.state import Limits, unpack_state
from tests.engine.stream.conftest import NOW_MS, make_event
from tests.engine.stream.logs import IDENTITY, OTHER_CLUSTER, OTHER_TOPIC, log_now, nexts
from tests.engine.stream.test_archive import record

ACCEPTS: tuple[AcceptNewLog, ...] = ("topic", "cluster", "never")


def starts(place: Place | None, now: LogNow, accept: AcceptNewLog = "topic") -> tuple[int, bool, Extent | None]:
    """Offset, whether the log is a new one, and what has expired."""
    start = start_of({3: place}, now, accept)
    return start.offsets[3], start.renewed == (3,), start.expired.get(3)


def test_an_identity_survives_being_stored() -> None:
    for identity in (IDENTITY, LogIdentity("mock", ""), LogIdentity("", "")):
        assert LogIdentity.parse(str(identity)) == identity


@pytest.mark.parametrize("accept", ACCEPTS)
def test_the_same_log_goes_on_where_it_was(accept: AcceptNewLog) -> None:
    now = log_now(first=10, end=50)
    assert starts(None, now, accept) == (10, False, None)
    assert starts(Place(30, IDENTITY), now, accept) == (30, False, None)
    assert starts(Place(50, IDENTITY), now, accept) == (50, False, None)
    # Retention was faster.
    assert starts(Place(4, IDENTITY), now, accept) == (10, False, Extent(4, 10))
    # Stored before positions had an identity.
    assert starts(Place(30, None), now, accept) == (30, False, None)
    assert starts(Place(4, None), now, accept) == (10, False, Extent(4, 10))


@pytest.mark.parametrize("end", [5, 500])
@pytest.mark.parametrize(
    ("now", "accept", "goes_on"),
    [
        (OTHER_TOPIC, "topic", True),
        (OTHER_TOPIC, "cluster", True),
        (OTHER_TOPIC, "never", False),
        (OTHER_CLUSTER, "topic", False),
        (OTHER_CLUSTER, "cluster", True),
        (OTHER_CLUSTER, "never", False),
    ],
)
def test_another_log_is_read_from_its_beginning_or_refused_whatever_its_length(
    end: int, now: LogIdentity, accept: AcceptNewLog, goes_on: bool
) -> None:
    place = Place(40, IDENTITY)
    if goes_on:
        assert starts(place, log_now(now, 2, end), accept) == (2, True, None)
        return
    with pytest.raises(LogMismatch, match=r"another log.*accept_new_log.*processor\.log") as refusal:
        starts(place, log_now(now, 2, end), accept)
    assert not isinstance(refusal.value, LogShorter)


def test_a_log_that_has_become_shorter_is_refused_unless_its_position_says_nothing_of_whose_it_is() -> None:
    now = log_now(end=10)
    for accept in ACCEPTS:
        with pytest.raises(LogShorter, match=r"shorter.*processor\.log"):
            starts(Place(40, IDENTITY), now, accept)
    for accept in ("topic", "never"):
        with pytest.raises(LogShorter):
            starts(Place(40, None), now, accept)
    assert starts(Place(40, None), now, "cluster") == (0, True, None)


@pytest.mark.parametrize(("stored", "now"), [*itertools.permutations((IDENTITY, OTHER_TOPIC, OTHER_CLUSTER), 2)])
def test_a_refusal_says_which_id_differs_and_up_to_where_events_are_stored(
    stored: LogIdentity, now: LogIdentity
) -> None:
    place, log = Place(40, stored), log_now(now, 2, 50)
    assert starts(place, log, "cluster") == (2, True, None)
    with pytest.raises(LogMismatch) as refusal:
        starts(place, log, "never")
    what = "topic" if stored.cluster == now.cluster else "cluster"
    assert "partition 3, up to offset 39" in str(refusal.value)
    assert f"{what} {getattr(now, what)} instead of {getattr(stored, what)}" in str(refusal.value)
    assert f'set processor.accept_new_log = "{what}"' in str(refusal.value)


def test_a_refusal_of_a_shorter_log_says_where_it_ends_and_up_to_where_events_are_stored() -> None:
    with pytest.raises(LogShorter, match="partition 3 ends before offset 10, and is stored up to 39"):
        starts(Place(40, IDENTITY), log_now(end=10))


def test_the_settings_know_these_words() -> None:
    assert [ProcessorConfig(accept_new_log=word).accept_new_log for word in ACCEPTS] == list(ACCEPTS)


def sink(directory: Path) -> ArchiveSink:
    return ArchiveSink(directory, "log", EVENTS_LAYOUT, 1_000, 1e9)


def archived(directory: Path) -> list[tuple[int, str]]:
    frames = [pl.read_parquet(path, hive_partitioning=False) for path in directory.rglob("*.parquet")]
    return sorted(pl.concat(frames).select("offset", "event_id").rows())


def test_the_archive_keeps_two_logs_apart(tmp_path: Path) -> None:
    old, new = [record(offset) for offset in range(5)], [record(offset) for offset in range(3)]
    archive = sink(tmp_path)
    assert nexts(archive.positions([0], log_now())) == {0: None}
    archive.write(old)
    archive.flush()
    for _ in range(2):
        assert sink(tmp_path).positions([0, 1], log_now()) == {0: Place(5, IDENTITY), 1: None}
        # The topic was made again: what is stored is of the other one, until something of this one is.
        assert sink(tmp_path).positions([0], log_now(OTHER_TOPIC, end=3)) == {0: Place(5, IDENTITY)}
    again = sink(tmp_path)
    again.positions([0], log_now(OTHER_TOPIC))
    again.write(new)
    assert again.flush() == {0: 3}
    assert sink(tmp_path).positions([0], log_now(OTHER_TOPIC)) == {0: Place(3, OTHER_TOPIC)}
    assert sink(tmp_path).positions([0], log_now()) == {0: Place(5, IDENTITY)}
    assert len(archived(tmp_path)) == 8


def without_identity(directory: Path, count: int) -> None:
    """What an engine from before has left."""
    archive = sink(directory)
    archive.write([record(offset) for offset in range(count)])
    archive.flush()


def test_files_from_before_belong_to_the_first_log_that_they_fit(tmp_path: Path) -> None:
    without_identity(tmp_path, 5)
    archive = sink(tmp_path)
    assert archive.positions([0], log_now(end=9)) == {0: Place(5, IDENTITY)}
    archive.write([record(5), record(6)])
    archive.flush()
    assert sink(tmp_path).positions([0], log_now(end=9)) == {0: Place(7, IDENTITY)}
    # From then on they are that log's, and no other's.
    assert sink(tmp_path).positions([0], log_now(OTHER_TOPIC, end=9)) == {0: Place(7, IDENTITY)}


def test_files_from_before_that_do_not_fit_are_not_taken_for_this_log(tmp_path: Path) -> None:
    without_identity(tmp_path, 5)
    archive = sink(tmp_path)
    place = archive.positions([0], log_now(end=2))[0]
    assert place == Place(5, None)
    with pytest.raises(LogShorter):
        start_of({0: place}, log_now(end=2), "topic")
    # Where that is accepted, the new log's files do not clash with them.
    archive.write([record(0), record(1)])
    assert archive.flush() == {0: 2}


def test_two_processors_of_one_log_notice_each_other(tmp_path: Path) -> None:
    slow, fast = sink(tmp_path), sink(tmp_path)
    for archive in (slow, fast):
        archive.positions([0], log_now())
        archive.write([record(0)])
    fast.flush()
    with pytest.raises(PositionLost):
        slow.flush()


def test_what_an_engine_from_before_writes_meanwhile_is_noticed_too(tmp_path: Path) -> None:
    without_identity(tmp_path, 3)
    archive = sink(tmp_path)
    archive.positions([0], log_now())
    archive.write([record(1)])
    with pytest.raises(PositionLost):
        archive.flush()


def batch(*offsets: int) -> EventBatch:
    """One new click of one user at each offset of partition 0."""
    messages = [Message(0, offset, b"u", encode(make_event("u"), NOW_MS)) for offset in offsets]
    return read_events(messages)[0]


def counted(url: str) -> int:
    return unpack_state(redis.Redis.from_url(url).get(live_key("u"))).interaction_count  # type: ignore[arg-type]


def test_redis_keeps_two_logs_apart(redis_url: str) -> None:
    def live() -> LiveSink:
        store = RedisLiveStore(redis_url, RedisConfig(), ProcessorConfig(), "t", lambda: None)
        return LiveSink(store, "t", Limits(), popular_items=100)

    first = live()
    assert first.positions([0, 1], log_now()) == {0: None, 1: None}
    first.write(batch(0, 1, 2, 3))
    assert live().positions([0, 1], log_now()) == {0: Place(4, IDENTITY), 1: None}
    # Of the new log the same offsets are other events: every one of them counts.
    second = live()
    assert second.positions([0], log_now(OTHER_TOPIC)) == {0: Place(4, IDENTITY)}
    second.write(batch(0, 1))
    assert second.write(batch()) == {}
    assert counted(redis_url) == 6
    assert live().positions([0], log_now()) == {0: Place(2, OTHER_TOPIC)}
    # Who still holds the old one writes no more.
    with pytest.raises(PositionLost):
        first.write(batch(4))
    assert counted(redis_url) == 6


def test_redis_of_an_engine_from_before_goes_on(redis_url: str) -> None:
    store = RedisLiveStore(redis_url, RedisConfig(), ProcessorConfig(), "t", lambda: None)
    old = LiveSink(store, "t", Limits(), popular_items=100)
    old.positions([0], log_now())
    old.write(batch(0, 1, 2))
    redis.Redis.from_url(redis_url).delete(applied_log_key("t", 0))
    sink = LiveSink(store, "t", Limits(), popular_items=100)
    assert sink.positions([0], log_now()) == {0: Place(3, None)}
    sink.write(batch(3))
    assert sink.positions([0], log_now()) == {0: Place(4, IDENTITY)}
    assert counted(redis_url) == 4
