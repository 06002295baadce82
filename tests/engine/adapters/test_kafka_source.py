"""The consumer while its topic is deleted and made anew, and what is said of a broker that refuses or is not there."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import TopicPartition

from engine.adapters.kafka_bus import create_topics
from engine.adapters.kafka_source import KafkaSource
from engine.config import KafkaConfig
from engine.errors import DependencyUnavailable
from engine.stream.processor import Message
from engine.stream.topics import EVENTS
from tests.engine.stream.conftest import Bus, make_event
from tests.kafka import broker, delete_topics

PATIENCE_S = 30.0


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[Bus]:
    with broker(tmp_path / "kafka") as kafka:
        yield Bus.over(kafka)


@pytest.fixture
def source(bus: Bus) -> Iterator[KafkaSource]:
    """A member of its group, with partitions."""
    source = KafkaSource(bus.brokers, bus.kafka, "g", 100, 4)
    source.subscribe(lambda: None, lambda: None)
    give_up = time.monotonic() + PATIENCE_S
    while not source.assigned:
        assert time.monotonic() < give_up, "no partitions"
        source.poll(0.1)
    yield source
    source.close()


def polled(source: KafkaSource, count: int) -> list[Message]:
    found: list[Message] = []
    give_up = time.monotonic() + PATIENCE_S
    while len(found) < count:
        assert time.monotonic() < give_up, f"{len(found)} of {count} messages"
        found += source.poll(0.1)
    return found


def test_the_log_says_what_it_is_and_holds(source: KafkaSource, bus: Bus) -> None:
    now = source.log(source.assigned)
    assert now.name == bus.kafka.named("engine.events.v1")
    assert now.identity.cluster
    assert set(now.extents.values()) == {(0, 0)}
    bus.send([make_event("u") for _ in range(3)])
    assert sorted(source.log(source.assigned).extents.values())[-1] == (0, 3)
    assert source.log(()).identity == now.identity


def test_a_position_that_is_not_in_the_log_is_said_and_not_read_over(source: KafkaSource, bus: Bus) -> None:
    bus.send([make_event("u") for _ in range(3)])
    source.start(dict.fromkeys(source.assigned, 50))
    with pytest.raises(DependencyUnavailable):
        polled(source, 1)


@pytest.mark.skipif("KAFKA_BROKERS" not in os.environ, reason="the embedded broker deletes no topics")
def test_nothing_of_a_new_log_is_taken_for_what_follows_in_the_old_one(source: KafkaSource, bus: Bus) -> None:
    bus.send([make_event("u") for _ in range(5)])
    old = source.log(source.assigned)
    source.start({partition: extent.first for partition, extent in old.extents.items()})
    assert len(polled(source, 5)) == 5
    # As one who is cut off, or frozen, meanwhile: it never sees the new log shorter than its position.
    places = [TopicPartition(bus.kafka.named(EVENTS.name), partition) for partition in source.assigned]
    source._consumer.pause(places)
    time.sleep(0.5)
    delete_topics(bus.kafka)
    create_topics(bus.brokers, bus.kafka)
    bus.send([make_event("u") for _ in range(50)])
    source._consumer.resume(places)
    time.sleep(1.0)  # so that whatever is fetched is there
    with pytest.raises(DependencyUnavailable):
        polled(source, 1)
    new = source.log(source.assigned)
    assert new.identity.topic not in ("", old.identity.topic)
    assert new.identity.cluster == old.identity.cluster


def test_a_broker_that_is_not_there_is_named_with_the_reason() -> None:
    source = KafkaSource("127.0.0.1:1", KafkaConfig(), "g", 100, 4)
    with pytest.raises(DependencyUnavailable, match=r"127\.0\.0\.1:1.*Connection refused"):
        source.log(())
    source.close()
