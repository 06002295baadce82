"""The topic is deleted and made again, or the broker is another one, under processors that run or are stopped.

See case 02-kafka-log-recreated for the replaced broker.
"""

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import redis
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient
from prometheus_client import REGISTRY

from engine.adapters.kafka.embedded import EmbeddedKafka
from engine.adapters.kafka.topics import create_topics
from engine.adapters.redis.keys import live_key
from engine.app.processor import process
from engine.config.serving import EngineConfig
from engine.config.stream import KafkaConfig
from engine.errors import LogMismatch
from engine.stream.state import unpack_state
from engine_client.v1 import event_pb2 as pb
from tests.engine.stream.conftest import Bus, make_event
from tests.engine.stream.test_processor import wait_for
from tests.kafka import delete_topics

real_kafka = pytest.mark.skipif("KAFKA_BROKERS" not in os.environ, reason="the embedded broker deletes no topics")
USERS = [f"user-{number}" for number in range(20)]
OLD = 120


def clicks(count: int) -> list[pb.Event]:
    return [make_event(USERS[number % len(USERS)], f"item-{number}") for number in range(count)]


def settings(bus: Bus, url: str, home: Path, **processor: Any) -> EngineConfig:
    quick = {"session.timeout.ms": "2000", "heartbeat.interval.ms": "300"}
    return EngineConfig.load(
        kafka=bus.kafka.model_dump() | {"properties": quick},
        redis={"url": url},
        bundle={"directory": home / "none"},
        processor={
            "archive_directory": home / "archive" / "events", "archive_flush_s": 0.3, "retry_max_s": 0.5,
            "fresh_users_per_s": 0, **processor,
        },
    )  # fmt: skip


@contextmanager
def processing(config: EngineConfig) -> Iterator[None]:
    """`engine process` in a thread; what it raises is raised at the end."""
    stop = threading.Event()
    raised: list[BaseException] = []

    def run() -> None:
        try:
            process(config, stop)
        except BaseException as error:  # whatever it is, the test must hear of it
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(60)
    assert not raised


def counted(url: str) -> Counter[str]:
    blobs = redis.Redis.from_url(url).mget([live_key(user) for user in USERS])
    found = dict(zip(USERS, blobs, strict=True))  # type: ignore[arg-type]
    return Counter({user: unpack_state(blob).interaction_count for user, blob in found.items() if blob})


def refusals(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The errors that a processor has ended with."""
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    return [error.getMessage() for error in errors if error.name == "engine.app.processor"]


def archived(home: Path) -> list[str]:
    files = (home / "archive" / "events").rglob("*.parquet")
    return sorted(row for path in files for row in pl.read_parquet(path, hive_partitioning=False)["event_id"].to_list())


def ledger(url: str, home: Path, events: Sequence[pb.Event]) -> Callable[[], bool]:
    """Whether each of these events, and nothing else, is in Redis and in the archive, once."""
    by_user = Counter(event.user_id for event in events)
    ids = sorted(event.event_id for event in events)
    return lambda: counted(url) == by_user and archived(home) == ids


def figure(name: str) -> float:
    return sum(REGISTRY.get_sample_value(name, {"sink": sink}) or 0.0 for sink in ("live", "archive"))


@real_kafka
@pytest.mark.parametrize("running", [True, False], ids=["running", "stopped"])
@pytest.mark.parametrize("new", [10, 3 * OLD], ids=["shorter", "longer"])
def test_a_topic_made_anew_loses_and_doubles_nothing(
    new: int, running: bool, bus: Bus, redis_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = settings(bus, redis_url, tmp_path)
    before, after, later = clicks(OLD), clicks(new), clicks(7)
    renewed = figure("engine_processor_new_logs_total")

    def make_anew() -> None:
        delete_topics(bus.kafka)
        create_topics(bus.brokers, bus.kafka)
        bus.send(after)

    with processing(config):
        bus.send(before)
        wait_for(ledger(redis_url, tmp_path, before))
        if running:
            make_anew()
            wait_for(ledger(redis_url, tmp_path, before + after), 60)
    if not running:
        make_anew()
    # And after a restart.
    with processing(config):
        bus.send(later)
        wait_for(ledger(redis_url, tmp_path, before + after + later), 60)
        time.sleep(0.5)
    assert ledger(redis_url, tmp_path, before + after + later)()
    assert figure("engine_processor_new_logs_total") > renewed
    assert figure("engine_processor_log_mismatch") == 0
    assert "is another log than the stored one" in caplog.text


@real_kafka
def test_a_topic_made_anew_is_refused_where_settings_say_so(
    bus: Bus, redis_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = settings(bus, redis_url, tmp_path, accept_new_log="never")
    with processing(config):
        bus.send(clicks(OLD))
        wait_for(lambda: counted(redis_url).total() == OLD and len(archived(tmp_path)) == OLD)
    delete_topics(bus.kafka)
    create_topics(bus.brokers, bus.kafka)
    bus.send(clicks(3 * OLD))
    for _ in range(2):
        caplog.clear()
        with pytest.raises(LogMismatch):
            process(config, threading.Event())
        [error] = refusals(caplog)
        assert "processor.log" in error
        assert figure("engine_processor_log_mismatch") >= 1
        assert (counted(redis_url).total(), len(archived(tmp_path))) == (OLD, OLD)


def test_another_cluster_stops_the_processor_with_one_error_until_settings_accept_it(
    redis_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before, after = clicks(OLD), clicks(10)
    with EmbeddedKafka(tmp_path / "one") as kafka:
        bus = Bus.over(KafkaConfig(brokers=kafka.brokers))
        with processing(settings(bus, redis_url, tmp_path)):
            bus.send(before)
            wait_for(ledger(redis_url, tmp_path, before))
    with EmbeddedKafka(tmp_path / "two") as kafka:
        bus = Bus.over(KafkaConfig(brokers=kafka.brokers))
        bus.send(after)
        for _ in range(2):
            caplog.clear()
            with pytest.raises(LogMismatch):
                process(settings(bus, redis_url, tmp_path), threading.Event())
            [error] = refusals(caplog)
            assert "processor.log" in error
            assert 'processor.accept_new_log = "cluster"' in error
            assert figure("engine_processor_log_mismatch") >= 1
        # As the message says: either way all of the new log is read.
        with processing(settings(bus, redis_url, tmp_path, accept_new_log="cluster")):
            wait_for(ledger(redis_url, tmp_path, before + after))


def test_the_metric_is_there_to_be_scraped_and_the_exit_status_says_so(redis_url: str, tmp_path: Path) -> None:
    with EmbeddedKafka(tmp_path / "one") as kafka:
        bus = Bus.over(KafkaConfig(brokers=kafka.brokers))
        with processing(settings(bus, redis_url, tmp_path)):
            bus.send(clicks(OLD))
            wait_for(lambda: counted(redis_url).total() == OLD and len(archived(tmp_path)) == OLD)
    with EmbeddedKafka(tmp_path / "two") as kafka, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        environment = {
            "ENGINE_KAFKA__BROKERS": kafka.brokers,
            "ENGINE_REDIS__URL": redis_url,
            "ENGINE_BUNDLE__DIRECTORY": str(tmp_path / "none"),
            "ENGINE_PROCESSOR__METRICS_PORT": str(port),
        }
        command = [sys.executable, "-m", "engine", "process"]
        running = subprocess.Popen(command, env=os.environ | environment, stderr=subprocess.PIPE, text=True)
        try:

            def mismatch() -> bool:
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                        return 'engine_processor_log_mismatch{sink="live"} 1.0' in answer.read().decode()
                except OSError:
                    return False

            wait_for(mismatch, 60)
            # Whoever stops it meanwhile need not wait.
            running.send_signal(signal.SIGTERM)
            _, said = running.communicate(timeout=60)
        finally:
            running.kill()
            running.wait()
        assert running.returncode == 2
        [error] = [line for line in said.splitlines() if " ERROR " in line]
        assert "processor.log" in error


@real_kafka
def test_what_retention_removed_unread_is_counted(
    bus: Bus, redis_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = settings(bus, redis_url, tmp_path)
    expired = figure("engine_processor_expired_total")
    user = USERS[0]
    with processing(config):
        bus.send([make_event(user, f"item-{number}") for number in range(30)])
        wait_for(lambda: counted(redis_url).total() == 30 and len(archived(tmp_path)) == 30)
    bus.send([make_event(user, f"item-{number}") for number in range(20)])
    admin = AdminClient({"bootstrap.servers": bus.brokers})
    name = bus.kafka.named("engine.events.v1")
    # By hand what retention does: half of what nobody has read goes.
    [partition] = [part for part in range(8) if _end(bus, name, part)]
    for removed in admin.delete_records([TopicPartition(name, partition, 40)]).values():
        removed.result()
    with processing(config):
        wait_for(lambda: counted(redis_url).total() == 40 and len(archived(tmp_path)) == 40)
    assert figure("engine_processor_expired_total") - expired == 20  # ten of each sink
    assert "10 messages" in caplog.text


def _end(bus: Bus, name: str, partition: int) -> int:
    consumer = Consumer({"bootstrap.servers": bus.brokers, "group.id": "ends"})
    try:
        return int(consumer.get_watermark_offsets(TopicPartition(name, partition), timeout=10)[1])
    finally:
        consumer.close()
