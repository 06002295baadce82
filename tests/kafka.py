"""A broker for tests, the embedded one or the one in KAFKA_BROKERS, and what is in its topics."""

import os
import time
import uuid
from collections.abc import Iterator, Set
from contextlib import contextmanager
from pathlib import Path

from confluent_kafka import Consumer, Message

from engine.adapters.embedded_kafka import EmbeddedKafka
from engine.adapters.kafka_bus import create_topics
from engine.config import KafkaConfig
from engine.stream.topics import EVENTS, Topic
from engine.v1 import event_pb2 as pb

TIMEOUT_S = 20.0


@contextmanager
def broker(home: Path) -> Iterator[str]:
    """Its address; the topics are there."""
    brokers = os.environ.get("KAFKA_BROKERS")
    if brokers:
        create_topics(brokers, KafkaConfig())
        yield brokers
    else:
        with EmbeddedKafka(home) as embedded:
            yield embedded.brokers


def read_back(
    brokers: str, keys: Set[bytes], count: int, topic: Topic = EVENTS, timeout_s: float = 20
) -> list[Message]:
    """The messages with these keys, by partition in order; waits until there are `count`, and a little for more."""
    consumer = Consumer(
        {
            "bootstrap.servers": brokers,
            "group.id": f"test-{uuid.uuid4().hex}",
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 10,
        }
    )
    found: list[Message] = []
    give_up = time.monotonic() + TIMEOUT_S
    try:
        consumer.subscribe([topic.name])
        while len(found) < count and time.monotonic() < give_up:
            found += [message for message in consumer.consume(1000, 0.1) if message.key() in keys]
        found += [message for message in consumer.consume(1000, 0.2) if message.key() in keys]
    finally:
        consumer.close()
    return sorted(found, key=lambda message: (message.partition(), message.offset()))


def click(user_id: str, item_id: str, now_ms: int | None = None) -> pb.Event:
    """A valid event, of this moment."""
    event = pb.Event(
        event_id=uuid.uuid4().hex, user_id=user_id, item_id=item_id, type=pb.EVENT_TYPE_CLICK, surface="home"
    )
    event.time.FromMilliseconds(time.time_ns() // 1_000_000 if now_ms is None else now_ms)
    return event
