"""Events, real brokers and real stores for stream tests.

KAFKA_BROKERS and REDIS_URL in the environment choose other servers. KILL_EVENTS is how many events run through the
tests that kill the processor, cut its broker and restart its Redis (4,000 unless it says otherwise; more events, more
kills), and KILL_SEED draws the moments:
`KILL_EVENTS=100000 python -m pytest tests/engine/stream -k "killed_at or restarted_under or cut_connection"`.
"""

import itertools
import os
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis
from confluent_kafka import Producer

from engine.adapters.kafka.bus import producer_settings
from engine.adapters.redis.embedded import EmbeddedRedis
from engine.config.serving import EngineConfig
from engine.config.stream import KafkaConfig
from engine.contract.events import encode
from engine.stream.topics import EVENTS
from engine.types import EventType
from engine_client.v1 import event_pb2 as pb
from tests.kafka import broker

NOW_MS = 1_764_000_000_000
KILL_EVENTS = int(os.environ.get("KILL_EVENTS", "4000"))
KILL_SEED = int(os.environ.get("KILL_SEED", "1"))
# How often a run is disturbed, how much is applied in one step, and how long a busy machine may take for all of it.
DISTURBANCES = 4 + KILL_EVENTS // 10_000
KILL_BATCH = max(20, KILL_EVENTS // 500)
KILL_TIMEOUT_S = 40.0 + KILL_EVENTS / 250


def make_event(
    user: str = "u",
    item: str = "i",
    kind: EventType = EventType.CLICK,
    name: str = "",
    time_ms: int = NOW_MS,
    surface: str = "home",
) -> pb.Event:
    """A valid event of the API."""
    event = pb.Event(
        event_id=name or uuid.uuid4().hex,
        user_id=user,
        item_id=item,
        type=kind + 1,
        surface=surface,  # type: ignore[arg-type]
    )
    event.time.FromMilliseconds(time_ms)
    if kind in (EventType.PURCHASE, EventType.RETURN):
        event.value = 9.5
    if kind == EventType.DWELL:
        event.dwell_ms = 1200
    return event


def portions(events: Sequence[pb.Event]) -> list[Sequence[pb.Event]]:
    """The events in as many parts of one size as there are disturbances, and a last one for what comes after them.

    The embedded broker keeps 5 MB of a partition: a part is sent when most of what came before it is applied.
    """
    size = len(events) // (DISTURBANCES + 1)
    ends = [size * part for part in range(DISTURBANCES + 1)] + [len(events)]
    return [events[start:end] for start, end in itertools.pairwise(ends)]


@dataclass(frozen=True)
class Bus:
    """A broker with topics that nobody else uses."""

    config: EngineConfig

    @property
    def kafka(self) -> KafkaConfig:
        return self.config.kafka

    @property
    def brokers(self) -> str:
        return self.kafka.brokers

    @staticmethod
    def over(kafka: KafkaConfig, **kafka_settings: object) -> "Bus":
        """Patient, since a busy machine may take its time."""
        settings = kafka.model_dump() | {"delivery_timeout_ms": 10_000} | kafka_settings
        return Bus(EngineConfig.load(kafka=settings))

    def send(self, events: Sequence[pb.Event], received_ms: int = NOW_MS) -> None:
        """Append events as the server does."""
        self.send_raw([(event.user_id.encode(), encode(event, received_ms)) for event in events])

    def send_raw(self, records: Sequence[tuple[bytes, bytes]]) -> None:
        producer = Producer(producer_settings(self.brokers, self.config.kafka))
        errors: list[object] = []
        name = self.kafka.named(EVENTS.name)
        for key, payload in records:
            producer.produce(name, payload, key, on_delivery=lambda error, _: error and errors.append(error))
            producer.poll(0)
        assert producer.flush(20) == 0
        assert not errors


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[Bus]:
    """A broker of this test's own, or the one in KAFKA_BROKERS."""
    with broker(tmp_path / "kafka") as kafka:
        yield Bus.over(kafka)


@pytest.fixture
def redis_url(redis_server: EmbeddedRedis) -> str:
    """An empty Redis: the run's own, or the one in REDIS_URL."""
    url = os.environ.get("REDIS_URL", redis_server.url)
    redis.Redis.from_url(url).flushdb()
    return url


@pytest.fixture
def background() -> Iterator[Callable[[Callable[[], None], threading.Event], None]]:
    """Runs loops in threads and stops them at the end; what they raise fails the test."""
    running: list[tuple[threading.Thread, threading.Event]] = []
    raised: list[BaseException] = []

    def start(loop: Callable[[], None], stop: threading.Event) -> None:
        def body() -> None:
            try:
                loop()
            except BaseException as error:  # whatever it is, the test must hear of it
                raised.append(error)

        thread = threading.Thread(target=body)
        thread.start()
        running.append((thread, stop))

    yield start
    for _, stop in running:
        stop.set()
    for thread, _ in running:
        thread.join(20)
    assert not raised
