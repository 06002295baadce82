"""Exposures into a real Kafka protocol; and what becomes of them, and of who offers them, without Kafka."""

import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.adapters.kafka import exposures as kafka_exposures
from engine.adapters.kafka.embedded import EmbeddedKafka
from engine.adapters.kafka.exposures import KafkaExposureLog
from engine.config.stream import ExposuresConfig, KafkaConfig
from engine.contract.exposures import Exposure, decode_exposure
from engine.stream.topics import EXPOSURES
from tests.engine.stream.test_exposures import exposure
from tests.kafka import broker, read_back

NOWHERE = "127.0.0.1:1"


@pytest.fixture(autouse=True)
def _leaves_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_exposures, "_CLOSE_S", 1.0 if os.environ.get("KAFKA_BROKERS") else 0.5)


def made(brokers: str, kafka: KafkaConfig | None = None, **config: float) -> KafkaExposureLog:
    return KafkaExposureLog(brokers, kafka or KafkaConfig(), ExposuresConfig(**config))  # type: ignore[arg-type]


def until(holds: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < give_up, "waited in vain"
        time.sleep(0.01)


def offer(log: KafkaExposureLog, exposures: list[Exposure]) -> None:
    for one in exposures:
        log.offer(one)


def test_what_is_offered_is_in_the_topic_by_unit(tmp_path: Path) -> None:
    users = [f"{uuid.uuid4().hex}" for _ in range(5)]
    with broker(tmp_path) as kafka:
        log = made(kafka.brokers, kafka)
        offer(log, [exposure(number, user=users[number % 5]) for number in range(200)])
        log.close()
        assert log.counts == (200, 0, 0)
        messages = read_back(kafka, {user.encode() for user in users}, 200, EXPOSURES)
    found = [decode_exposure(message.value()) for message in messages]
    assert sorted(one.request_id for one in found) == sorted(f"r{number}" for number in range(200))
    assert all(message.key().decode() == one.unit_id for message, one in zip(messages, found, strict=True))
    partitions = {(message.key(), message.partition()) for message in messages}
    assert len(partitions) == 5


def test_without_kafka_they_wait_up_to_a_bound_and_are_counted_past_it() -> None:
    log = made(NOWHERE, max_queued=50)
    offer(log, [exposure(number) for number in range(80)])
    assert log.counts == (0, 30, 0)
    log.close()
    assert log.counts == (0, 30, 50)


def test_what_waits_too_long_goes_and_makes_room() -> None:
    log = made(NOWHERE, max_queued=50, delivery_timeout_s=0.2)
    offer(log, [exposure(number) for number in range(50)])
    until(lambda: log.counts.failed == 50)
    offer(log, [exposure()])
    assert log.counts.refused == 0
    log.close()


def test_an_outage_in_between_loses_nothing_that_fits(tmp_path: Path) -> None:
    user = uuid.uuid4().hex
    with EmbeddedKafka(tmp_path) as kafka:
        log = made(kafka.brokers)
        offer(log, [exposure(0, user=user)])
        until(lambda: log.counts.logged == 1)
        kafka.set_reachable(False)
        offer(log, [exposure(number, user=user) for number in range(1, 100)])
        time.sleep(0.3)
        kafka.set_reachable(True)
        until(lambda: log.counts.logged == 100)
        log.close()
        # An idempotent producer: in order, and each once.
        messages = read_back(KafkaConfig(brokers=kafka.brokers), {user.encode()}, 100, EXPOSURES)
    assert [decode_exposure(message.value()).request_id for message in messages] == [f"r{n}" for n in range(100)]


def test_one_that_cannot_be_encoded_costs_itself_alone(caplog: pytest.LogCaptureFixture) -> None:
    log = made(NOWHERE, max_queued=50)
    broken = exposure()._replace(served_ms="never")  # type: ignore[arg-type]
    offer(log, [broken, exposure(1), broken])
    until(lambda: log.counts.failed == 2)
    log.close()
    assert log.counts == (0, 0, 3)
