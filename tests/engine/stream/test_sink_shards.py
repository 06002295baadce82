"""Sinks side by side: each its own partitions, and whatever one of them does is nobody else's trouble."""

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest

from engine.contract.events import encode
from engine.errors import DependencyUnavailable
from engine.stream.events import EventBatch, read_events
from engine.stream.log_identity import LogNow, Place
from engine.stream.protocols import Message
from engine.stream.sink_shards import SinkShards
from tests.engine.stream.conftest import NOW_MS, make_event
from tests.engine.stream.logs import log_now, nexts


@dataclass
class Kept:
    """A sink that keeps what it is given in memory, after everyone has arrived."""

    together: threading.Barrier
    stored: dict[int, int] = field(default_factory=dict)
    writes: list[list[tuple[int, int]]] = field(default_factory=list)
    fails: bool = False
    takes_s: float = 0.0
    forgotten: int = 0

    def positions(self, partitions: Iterable[int], log: LogNow) -> dict[int, Place | None]:
        return {part: Place(self.stored[part] + 1, None) if part in self.stored else None for part in partitions}

    def write(self, batch: EventBatch) -> dict[int, int]:
        self.together.wait(10)
        if self.fails:
            raise DependencyUnavailable("away")
        time.sleep(self.takes_s)
        self.writes.append(list(zip(batch.partitions.tolist(), batch.offsets.tolist(), strict=True)))
        self.stored |= batch.ends
        return {partition: offset + 1 for partition, offset in batch.ends.items()}

    def flush(self) -> dict[int, int]:
        return {}

    def forget(self) -> None:
        self.forgotten += 1


def events(*places: tuple[int, int]) -> EventBatch:
    payload = encode(make_event(), NOW_MS)
    return read_events([Message(partition, offset, None, payload) for partition, offset in places])[0]


@pytest.fixture
def sinks() -> list[Kept]:
    together = threading.Barrier(2)
    return [Kept(together), Kept(together)]


def test_each_sink_gets_its_partitions_in_order_and_at_the_same_time(sinks: list[Kept]) -> None:
    before = set(threading.enumerate())
    lanes = SinkShards(sinks)
    # The barrier lets nobody through alone.
    assert lanes.write(events((0, 5), (1, 7), (2, 0), (0, 6), (3, 2), (1, 8))) == {0: 7, 1: 9, 2: 1, 3: 3}
    assert sinks[0].writes == [[(0, 5), (2, 0), (0, 6)]]
    assert sinks[1].writes == [[(1, 7), (3, 2), (1, 8)]]
    assert nexts(lanes.positions([0, 1, 2, 3, 5], log_now())) == {0: 7, 1: 9, 2: 1, 3: 3, 5: None}
    assert lanes.write(events()) == {}
    assert [len(sink.writes) for sink in sinks] == [2, 2]
    lanes.forget()
    assert [sink.forgotten for sink in sinks] == [1, 1]
    assert set(threading.enumerate()) > before
    lanes.close()
    assert set(threading.enumerate()) <= before


def test_a_sink_without_messages_is_left_alone(sinks: list[Kept]) -> None:
    sinks[0].together = sinks[1].together = threading.Barrier(1)
    lanes = SinkShards(sinks)
    assert lanes.write(events((1, 0))) == {1: 1}
    assert not sinks[0].writes
    lanes.close()


def test_where_one_fails_what_the_other_stored_stays(sinks: list[Kept]) -> None:
    lanes = SinkShards(sinks)
    sinks[0].fails, sinks[1].takes_s = True, 0.2
    with pytest.raises(DependencyUnavailable):
        lanes.write(events((0, 5), (1, 7)))
    assert nexts(lanes.positions([0, 1], log_now())) == {0: None, 1: 8}
    # Who hears of the failure may ask for positions at once: nobody is writing any more.
    assert sinks[1].writes == [[(1, 7)]]
    sinks[0].fails = False
    assert lanes.write(events((0, 5), (1, 8))) == {0: 6, 1: 9}
    lanes.close()
