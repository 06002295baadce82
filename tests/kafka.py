"""A broker for tests, the embedded one or the one in KAFKA_BROKERS (`make test-kafka`), and what is in its topics.

Every use has topics of its own, by a prefix of its own: no test sees what another one has left on a shared broker.
"""

import os
import time
import uuid
from collections.abc import Iterable, Iterator, Set
from contextlib import contextmanager
from pathlib import Path

from confluent_kafka import Consumer, Message
from confluent_kafka.admin import AdminClient

from engine.adapters.kafka.embedded import EmbeddedKafka
from engine.adapters.kafka.topics import create_topics
from engine.config.stream import KafkaConfig
from engine.stream.topics import EVENTS, TOPICS, Topic
from engine_client.v1 import event_pb2 as pb

TIMEOUT_S = 20.0


def fresh_prefix() -> str:
    """A prefix that nobody else has."""
    return f"t{uuid.uuid4().hex[:12]}."


@contextmanager
def broker(home: Path) -> Iterator[KafkaConfig]:
    """The settings of a broker with all topics, which are empty and go at the end."""
    brokers = os.environ.get("KAFKA_BROKERS")
    prefix = fresh_prefix()
    if not brokers:
        with EmbeddedKafka(home, prefix) as embedded:
            yield KafkaConfig(brokers=embedded.brokers, topic_prefix=prefix)
        return
    config = KafkaConfig(brokers=brokers, topic_prefix=prefix)
    create_topics(brokers, config)
    try:
        yield config
    finally:
        delete_topics(config)


def own_topics(config: KafkaConfig) -> dict[str, object]:
    """The address and the prefix, for settings that hold more."""
    return {"brokers": config.brokers, "topic_prefix": config.topic_prefix}


def delete_topics(config: KafkaConfig, topics: Iterable[Topic] = TOPICS) -> None:
    """Delete the topics of this prefix that are there; returns once the broker has done so."""
    admin = AdminClient({"bootstrap.servers": config.brokers, "log_level": 0})
    found = admin.list_topics(timeout=TIMEOUT_S).topics
    names = [name for name in (config.named(topic.name) for topic in topics) if name in found]
    if names:
        for future in admin.delete_topics(names, request_timeout=TIMEOUT_S).values():
            future.result()


def read_back(
    kafka: KafkaConfig, keys: Set[bytes], count: int, topic: Topic = EVENTS, timeout_s: float = 20
) -> list[Message]:
    """The messages with these keys, by partition in order; waits until there are `count`, and a little for more."""
    consumer = Consumer(
        {
            "bootstrap.servers": kafka.brokers,
            "group.id": f"test-{uuid.uuid4().hex}",
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 10,
        }
    )
    found: list[Message] = []
    give_up = time.monotonic() + TIMEOUT_S
    try:
        consumer.subscribe([kafka.named(topic.name)])
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
