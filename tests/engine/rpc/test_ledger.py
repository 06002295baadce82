"""Every acknowledged event is in Redis and in the archive exactly once, whoever is killed or frozen meanwhile.

Processors and the broker are processes of their own: a real Kafka that `make test-kafka` brings, which this test may
break. KAFKA_VERSION says which.
"""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path

import grpc
import polars as pl
import pytest
import redis

from deploy.local_kafka import LocalKafka
from engine.adapters.kafka.bus import KafkaEventLog, KafkaProducer
from engine.adapters.kafka.topics import create_topics
from engine.adapters.redis.embedded import EmbeddedRedis
from engine.adapters.redis.keys import live_key
from engine.config.stream import KafkaConfig
from engine.stream.state import unpack_state
from engine_client.v1 import event_pb2 as pb
from engine_client.v1 import event_pb2_grpc as pb_grpc
from tests.engine.rpc.conftest import OpenChannel, StartServer
from tests.kafka import click

pytestmark = pytest.mark.skipif("KAFKA_VERSION" not in os.environ, reason="needs a Kafka to break: make test-kafka")

PREFIX = "ledger."
USERS = [f"user-{number}" for number in range(200)]
BATCH = 20
PATIENCE_S = 120.0
# A processor that says nothing for so long has lost its partitions to the others.
SESSION_S = 2.0


@pytest.fixture
def kafka(tmp_path: Path) -> Iterator[LocalKafka]:
    with LocalKafka(tmp_path / "broker", os.environ["KAFKA_VERSION"]) as broker:
        create_topics(broker.brokers, KafkaConfig(topic_prefix=PREFIX))
        yield broker


@pytest.fixture
def home(tmp_path: Path, kafka: LocalKafka, redis_server: EmbeddedRedis) -> Path:
    """The settings of the processors, over an empty Redis."""
    redis.Redis.from_url(redis_server.url).flushdb()
    (tmp_path / "engine.toml").write_text(
        f"""
        [kafka]
        brokers = "{kafka.brokers}"
        topic_prefix = "{PREFIX}"
        properties = {{"session.timeout.ms" = "{SESSION_S * 1000:.0f}", "heartbeat.interval.ms" = "300"}}
        [redis]
        url = "{redis_server.url}"
        [bundle]
        directory = "{tmp_path / "none"}"
        [processor]
        batch_events = 50
        archive_directory = "{tmp_path / "archive"}"
        archive_rows = 200
        archive_flush_s = 0.5
        """
    )
    return tmp_path


@pytest.fixture
def processors(home: Path) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Starts `engine process`; kills all of them at the end."""
    running: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "engine", "process", "--config", str(home / "engine.toml")]
        with (home / f"processor-{len(running)}.log").open("wb") as output:
            running.append(subprocess.Popen(command, stderr=output))
        return running[-1]

    yield start
    for process in running:
        process.kill()
        process.wait()


@pytest.fixture
async def events(
    kafka: LocalKafka, start_server: StartServer, open_channel: OpenChannel
) -> AsyncIterator[pb_grpc.EventServiceStub]:
    """The service, as a client that repeats nothing by itself calls it."""
    producer = KafkaProducer(kafka.brokers, KafkaConfig(topic_prefix=PREFIX))
    server = await start_server(event_log=KafkaEventLog(producer), request_timeout_ms=10_000)
    yield pb_grpc.EventServiceStub(open_channel(server))
    await asyncio.to_thread(producer.close)


async def record(events: pb_grpc.EventServiceStub, acknowledged: set[str], stop: asyncio.Event) -> None:
    """Record new events until told to stop; what is refused is not sent again, so that each is sent once."""
    rng = random.Random(1)
    while not stop.is_set():
        batch = [click(rng.choice(USERS), f"item-{rng.randrange(500)}") for _ in range(BATCH)]
        with suppress(grpc.aio.AioRpcError):
            answer = await events.RecordEvents(pb.RecordEventsRequest(events=batch), timeout=10)
            assert answer.accepted_count == BATCH
            acknowledged.update(event.event_id for event in batch)
        await asyncio.sleep(0.02)


def archived(home: Path) -> pl.DataFrame:
    frames = [pl.read_parquet(path, hive_partitioning=False) for path in (home / "archive").rglob("*.parquet")]
    columns = ["event_id", "user_id", "partition", "offset"]
    return pl.concat(frames).select(columns) if frames else pl.DataFrame(schema=dict.fromkeys(columns, pl.String))


async def until_archived(home: Path, acknowledged: set[str]) -> None:
    give_up = time.monotonic() + PATIENCE_S
    while not acknowledged <= set(await asyncio.to_thread(lambda: archived(home)["event_id"].to_list())):
        assert time.monotonic() < give_up, f"not archived in time: {len(acknowledged)} acknowledged"
        await asyncio.sleep(0.5)


def interactions(url: str) -> dict[str, int]:
    """How many events each user's live state has counted."""
    found = redis.Redis.from_url(url).mget([live_key(user) for user in USERS])
    return {user: unpack_state(blob).interaction_count for user, blob in zip(USERS, found, strict=True) if blob}  # type: ignore[arg-type]


async def test_processors_and_broker_killed_and_frozen_lose_and_double_nothing(
    kafka: LocalKafka,
    home: Path,
    processors: Callable[[], subprocess.Popen[bytes]],
    events: pb_grpc.EventServiceStub,
    redis_server: EmbeddedRedis,
) -> None:
    acknowledged: set[str] = set()
    stop = asyncio.Event()
    recording = asyncio.create_task(record(events, acknowledged, stop))
    steady, unlucky = processors(), processors()
    try:
        await until_archived(home, set(list(acknowledged)[:1]))
        # A processor dies; one takes its place.
        unlucky.kill()
        unlucky = processors()
        await asyncio.sleep(2)
        # Another is frozen until its partitions are others', then goes on as if nothing had happened.
        steady.send_signal(signal.SIGSTOP)
        await asyncio.sleep(2 * SESSION_S + 1)
        steady.send_signal(signal.SIGCONT)
        await asyncio.sleep(1)
        # The broker is frozen for longer than an event waits, then dies, and comes back over what is on its disk.
        kafka.freeze()
        await asyncio.sleep(3)
        kafka.thaw()
        await asyncio.sleep(2)
        await asyncio.to_thread(kafka.kill)
        unlucky.kill()
        await asyncio.to_thread(kafka.start)
        processors()
        counted = len(acknowledged)
        give_up = time.monotonic() + PATIENCE_S
        while len(acknowledged) < counted + 5 * BATCH:
            assert time.monotonic() < give_up, "nothing is accepted any more"
            await asyncio.sleep(0.1)
    finally:
        stop.set()
        await recording
    await until_archived(home, acknowledged)

    rows = await asyncio.to_thread(archived, home)
    assert len(acknowledged) > 20 * BATCH
    assert rows["event_id"].n_unique() == len(rows)
    assert rows.select("partition", "offset").n_unique() == len(rows)
    # What was sent without an answer may be in the log, too: Redis has counted what the archive holds, each once.
    expected = Counter(rows["user_id"].to_list())
    give_up = time.monotonic() + PATIENCE_S
    while interactions(redis_server.url) != expected:
        assert time.monotonic() < give_up, "Redis and the archive differ"
        await asyncio.sleep(0.2)
        expected = Counter((await asyncio.to_thread(archived, home))["user_id"].to_list())
