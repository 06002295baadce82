"""The consumer while its topic is deleted and made again, and what is said of a broker that refuses or is not there."""

import asyncio
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from engine.adapters.kafka.bus import KafkaProducer
from engine.adapters.kafka.source import KafkaSource
from engine.adapters.kafka.topics import create_topics
from engine.config.stream import KafkaConfig
from engine.errors import DependencyUnavailable
from engine.stream.log_identity import LogNow
from engine.stream.protocols import Message
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


def looked_at(source: KafkaSource, partitions: tuple[int, ...]) -> LogNow:
    """The log, once the broker leads what it has just made."""
    give_up = time.monotonic() + PATIENCE_S
    while True:
        try:
            return source.log(partitions)
        except DependencyUnavailable:
            assert time.monotonic() < give_up
            time.sleep(0.1)


def test_the_log_says_what_it_is_and_holds(source: KafkaSource, bus: Bus) -> None:
    now = looked_at(source, source.assigned)
    assert now.name == bus.kafka.named("engine.events.v1")
    assert now.identity.cluster
    assert set(now.extents.values()) == {(0, 0)}
    bus.send([make_event("u") for _ in range(3)])
    assert sorted(looked_at(source, source.assigned).extents.values())[-1] == (0, 3)
    assert looked_at(source, ()).identity == now.identity


def test_a_position_that_is_not_in_the_log_is_said_and_not_read_over(source: KafkaSource, bus: Bus) -> None:
    bus.send([make_event("u") for _ in range(3)])
    source.start(dict.fromkeys(source.assigned, 50))
    with pytest.raises(DependencyUnavailable):
        polled(source, 1)


@pytest.mark.skipif("KAFKA_BROKERS" not in os.environ, reason="the embedded broker deletes no topics")
def test_nothing_of_a_new_log_is_taken_for_what_follows_in_the_old_one(source: KafkaSource, bus: Bus) -> None:
    bus.send([make_event("u") for _ in range(5)])
    old = looked_at(source, source.assigned)
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
    new = looked_at(source, source.assigned)
    assert new.identity.topic not in ("", old.identity.topic)
    assert new.identity.cluster == old.identity.cluster


def test_a_broker_that_is_not_there_is_named_with_the_reason() -> None:
    source = KafkaSource("127.0.0.1:1", KafkaConfig(), "g", 100, 4)
    with pytest.raises(DependencyUnavailable, match=r"127\.0\.0\.1:1.*Connection refused"):
        source.log(())
    source.close()


SASL = {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN", "sasl.username": "engine"}


@pytest.fixture
def asks_for_a_password(bus: Bus) -> Callable[[str], KafkaConfig]:
    """Settings with this password, for the broker's listener that asks for one."""
    if "KAFKA_SASL_BROKERS" not in os.environ:
        pytest.skip("the embedded broker asks for no password")
    brokers = os.environ["KAFKA_SASL_BROKERS"]
    known = {"brokers": brokers, "topic_prefix": bus.kafka.topic_prefix}
    return lambda password: KafkaConfig.model_validate(known | {"properties": SASL | {"sasl.password": password}})


def test_a_wrong_password_is_said_at_once_by_whoever_meets_it(
    asks_for_a_password: Callable[[str], KafkaConfig],
) -> None:
    wrong = asks_for_a_password("not this one")
    reason = "authentication failed"

    async def producing() -> None:
        producer = KafkaProducer(wrong.brokers, wrong)
        try:
            await producer.connect()
        finally:
            await asyncio.to_thread(producer.close)

    started = time.monotonic()
    with pytest.raises(DependencyUnavailable, match=reason):
        create_topics(wrong.brokers, wrong)
    with pytest.raises(DependencyUnavailable, match=reason):
        asyncio.run(producing())
    source = KafkaSource(wrong.brokers, wrong, "g", 100, 4)
    with pytest.raises(DependencyUnavailable, match=reason):
        source.log(())
    source.close()
    assert time.monotonic() - started < PATIENCE_S


def test_with_the_right_password_all_is_well(asks_for_a_password: Callable[[str], KafkaConfig]) -> None:
    right = asks_for_a_password("secret")
    assert create_topics(right.brokers, right) == []
    source = KafkaSource(right.brokers, right, "g", 100, 4)
    assert looked_at(source, (0,)).identity.cluster
    source.close()


@pytest.mark.skipif("KAFKA_BROKERS" not in os.environ, reason="the embedded broker makes topics without the protocol")
def test_a_topic_that_the_broker_made_by_itself_says_what_to_do(bus: Bus) -> None:
    """As with auto.create.topics.enable: one partition."""
    delete_topics(bus.kafka, [EVENTS])
    name = bus.kafka.named(EVENTS.name)
    admin = AdminClient({"bootstrap.servers": bus.brokers})
    admin.create_topics([NewTopic(name, num_partitions=1)])[name].result()
    remedy = rf"{name} has 1 partitions instead of 8.*auto\.create\.topics.*Delete.*engine topics create"
    source = KafkaSource(bus.brokers, bus.kafka, "g", 100, 4)
    refusal, give_up = "", time.monotonic() + PATIENCE_S
    while not re.search(remedy, refusal):  # brokers hear of it one after the other
        assert time.monotonic() < give_up, refusal
        try:
            source.log(())
        except DependencyUnavailable as error:
            refusal = str(error)
    source.close()
    with pytest.raises(DependencyUnavailable, match=remedy):
        create_topics(bus.brokers, bus.kafka)
