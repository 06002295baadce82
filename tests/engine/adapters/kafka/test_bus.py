"""The producer against a real broker: order, acknowledgement, outage, bounds."""

import asyncio
import ctypes
import dataclasses
import logging
import os
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from confluent_kafka import KafkaError

from engine.adapters.kafka import topics as kafka_topics
from engine.adapters.kafka.bus import KafkaEventLog, KafkaProducer, Record, producer_settings
from engine.adapters.kafka.embedded import EmbeddedKafka, _library
from engine.adapters.kafka.topics import create_topics, new_topic
from engine.config.stream import KafkaConfig
from engine.contract.events import decode
from engine.errors import ConfigError, DependencyUnavailable, Overloaded
from engine.stream.topics import DEAD_LETTERS, EVENTS, TOPICS, Topic
from tests.kafka import broker, click, delete_topics, fresh_prefix, read_back

QUICK = KafkaConfig(delivery_timeout_ms=500, max_queued_events=500)
NOWHERE = "127.0.0.1:1"


@pytest.fixture
def kafka(tmp_path: Path) -> Iterator[KafkaConfig]:
    with broker(tmp_path) as config:
        yield config


@pytest.fixture
async def producer(kafka: KafkaConfig) -> AsyncIterator[KafkaProducer]:
    producer = KafkaProducer(kafka.brokers, kafka.model_copy(update={"delivery_timeout_ms": 20_000}))
    yield producer
    await asyncio.to_thread(producer.close)


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[EmbeddedKafka]:
    """A broker that the test may break."""
    with EmbeddedKafka(tmp_path / "own") as kafka:
        yield kafka


@pytest.fixture
async def quick(embedded: EmbeddedKafka) -> AsyncIterator[KafkaProducer]:
    producer = KafkaProducer(embedded.brokers, QUICK)
    yield producer
    await asyncio.to_thread(producer.close)


def records(count: int, key: bytes = b"k") -> list[Record]:
    return [Record(key, b"%d" % number) for number in range(count)]


async def published(producer: KafkaProducer, batch: list[Record], topic: Topic = EVENTS) -> bool:
    return all(error is None for error in await producer.publish(topic, batch))


async def published_at_last(producer: KafkaProducer, batch: list[Record]) -> None:
    # By time, not by attempts: on a loaded machine a producer may refuse many at once before it is back.
    give_up = time.monotonic() + 30
    while time.monotonic() < give_up:
        if await published(producer, batch):
            return
        await asyncio.sleep(0.05)
    pytest.fail("published in vain")


def test_the_producer_loses_repeats_and_reorders_nothing() -> None:
    settings = producer_settings("a:1,b:1", KafkaConfig(properties={"security.protocol": "SSL"}))
    assert settings["enable.idempotence"] is True
    assert settings["acks"] == "all"
    assert settings["bootstrap.servers"] == "a:1,b:1"
    assert settings["security.protocol"] == "SSL"


@pytest.mark.parametrize("name", ["acks", "enable.idempotence", "bootstrap.servers"])
def test_what_keeps_events_safe_is_not_for_settings_to_change(name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        KafkaProducer(NOWHERE, KafkaConfig(properties={name: "0"}))


async def test_events_of_a_user_are_in_one_partition_in_order(producer: KafkaProducer, kafka: KafkaConfig) -> None:
    users = [f"user-{place}-{uuid.uuid4().hex}" for place in range(20)]
    events = [click(user, f"item-{number}") for number in range(10) for user in users]
    log = KafkaEventLog(producer)
    await asyncio.gather(log.append(events[:100], 1_700_000_000_000), log.append(events[100:], 1_700_000_000_000))

    messages = read_back(kafka, {user.encode() for user in users}, len(events))
    assert len(messages) == len(events)
    for user in users:
        of_user = [message for message in messages if message.key() == user.encode()]
        assert len({message.partition() for message in of_user}) == 1
        logged = [decode(message.value()) for message in of_user]
        assert [entry.event for entry in logged] == [event for event in events if event.user_id == user]
        assert {entry.received_ms for entry in logged} == {1_700_000_000_000}
    assert len({message.partition() for message in messages}) > 1


async def test_headers_travel(producer: KafkaProducer, kafka: KafkaConfig) -> None:
    key = uuid.uuid4().bytes
    assert await published(producer, [Record(key, b"?", (("reason", b"no message"),))], DEAD_LETTERS)
    [message] = read_back(kafka, {key}, 1, DEAD_LETTERS)
    assert message.headers() == [("reason", b"no message")]


async def test_nothing_to_publish_needs_no_broker() -> None:
    producer = KafkaProducer(NOWHERE, QUICK)
    assert await producer.publish(EVENTS, []) == []
    await asyncio.to_thread(producer.close)


async def test_an_outage_is_told_in_time_and_its_end_needs_no_restart(
    quick: KafkaProducer, embedded: EmbeddedKafka
) -> None:
    await published_at_last(quick, records(1))
    embedded.set_reachable(False)
    started = time.monotonic()
    errors = await quick.publish(EVENTS, records(3))
    assert [error.code() for error in errors if error is not None] == [KafkaError._MSG_TIMED_OUT] * 3
    assert time.monotonic() - started < 5
    with pytest.raises(DependencyUnavailable, match=r"1 of 1 events.*again"):
        await KafkaEventLog(quick).append([click("u", "i")], 0)

    embedded.set_reachable(True)
    await published_at_last(quick, records(1, b"after"))
    assert [message.value() for message in read_back(KafkaConfig(brokers=embedded.brokers), {b"after"}, 1)][:1] == [
        b"0"
    ]


async def test_a_full_queue_takes_none_of_a_batch(quick: KafkaProducer, embedded: EmbeddedKafka) -> None:
    embedded.set_reachable(False)
    waiting = asyncio.create_task(quick.publish(EVENTS, records(400)))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="limit of 500"):
        await quick.publish(EVENTS, records(101))
    embedded.set_reachable(True)
    await waiting
    await published_at_last(quick, records(500))


async def test_a_caller_that_gives_up_leaves_the_queue_counted(quick: KafkaProducer, embedded: EmbeddedKafka) -> None:
    embedded.set_reachable(False)
    waiting = asyncio.create_task(quick.publish(EVENTS, records(400)))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    with pytest.raises(Overloaded):
        await quick.publish(EVENTS, records(101))


async def test_close_sends_what_is_on_its_way(kafka: KafkaConfig) -> None:
    key = uuid.uuid4().bytes
    producer = KafkaProducer(kafka.brokers, kafka.model_copy(update={"linger_ms": 200}))
    sending = asyncio.create_task(producer.publish(EVENTS, records(5, key)))
    await asyncio.sleep(0)
    await asyncio.to_thread(producer.close)
    assert all(error is None for error in await sending)
    assert len(read_back(kafka, {key}, 5)) == 5


async def test_close_gives_up_on_a_broker_that_is_away() -> None:
    producer = KafkaProducer(NOWHERE, QUICK)
    sending = asyncio.create_task(producer.publish(EVENTS, records(2)))
    await asyncio.sleep(0)
    started = time.monotonic()
    await asyncio.to_thread(producer.close)
    assert time.monotonic() - started < 5
    assert all(error is not None for error in await sending)


async def test_a_fatal_error_is_not_for_ever(embedded: EmbeddedKafka, caplog: pytest.LogCaptureFixture) -> None:
    refused = 31  # CLUSTER_AUTHORIZATION_FAILED, which librdkafka takes for fatal when it asks for a producer id
    _library().rd_kafka_mock_push_request_errors(ctypes.c_void_p(embedded._cluster), 22, 1, refused)
    with caplog.at_level(logging.ERROR, "engine"):
        producer = KafkaProducer(embedded.brokers, QUICK)
        await published_at_last(producer, records(1))
    assert "starting a new producer" in caplog.text
    await asyncio.to_thread(producer.close)


async def test_connect_says_what_is_wrong(producer: KafkaProducer) -> None:
    await producer.connect()
    lost = KafkaProducer(NOWHERE, QUICK)
    with pytest.raises(DependencyUnavailable, match=NOWHERE):
        await lost.connect()
    await asyncio.to_thread(lost.close)


def test_topics_in_kafkas_terms() -> None:
    topic = new_topic(EVENTS, "a.engine.events.v1", 3)
    assert (topic.topic, topic.num_partitions, topic.replication_factor) == ("a.engine.events.v1", 8, 3)
    assert topic.config["retention.ms"] == str(7 * 86_400_000)


def test_topics_that_are_there_stay(kafka: KafkaConfig) -> None:
    assert create_topics(kafka.brokers, kafka) == []


@pytest.mark.skipif("KAFKA_BROKERS" not in os.environ, reason="the embedded broker makes topics without the protocol")
def test_missing_topics_are_made() -> None:
    kafka = KafkaConfig(brokers=os.environ["KAFKA_BROKERS"], topic_prefix=fresh_prefix())
    try:
        assert create_topics(kafka.brokers, kafka) == list(TOPICS)
        assert create_topics(kafka.brokers, kafka) == []
    finally:
        delete_topics(kafka)


async def test_two_installations_on_one_cluster_do_not_meet(kafka: KafkaConfig, tmp_path: Path) -> None:
    with broker(tmp_path) as other:
        assert other.topic_prefix != kafka.topic_prefix
        for config in (kafka, other):
            producer = KafkaProducer(config.brokers, config.model_copy(update={"delivery_timeout_ms": 20_000}))
            assert await published(producer, records(1, config.topic_prefix.encode()))
            await asyncio.to_thread(producer.close)
        keys = {kafka.topic_prefix.encode(), other.topic_prefix.encode()}
        for config in (kafka, other):
            found = await asyncio.to_thread(read_back, config, keys, 1)
            assert [message.key() for message in found] == [config.topic_prefix.encode()]


def test_a_topic_that_somebody_else_makes_first_is_there(kafka: KafkaConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two `engine topics create` at once: the second hears from Kafka that the topics are there."""
    if "KAFKA_BROKERS" not in os.environ:
        pytest.skip("the embedded broker makes topics without the protocol")
    looks: Iterator[list[Topic]] = iter([list(TOPICS)])
    look = kafka_topics._missing_topics
    monkeypatch.setattr(kafka_topics, "_missing_topics", lambda *known: next(looks, None) or look(*known))
    assert create_topics(kafka.brokers, kafka) == []


def test_topics_of_other_partitions_are_refused(embedded: EmbeddedKafka, monkeypatch: pytest.MonkeyPatch) -> None:
    wider = dataclasses.replace(EVENTS, partitions=16)
    monkeypatch.setattr("engine.adapters.kafka.topics.TOPICS", (wider, *TOPICS[1:]))
    with pytest.raises(DependencyUnavailable, match=r"8 partitions instead of 16.*engine topics create"):
        create_topics(embedded.brokers, KafkaConfig())
