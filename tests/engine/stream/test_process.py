"""`engine process` as a process of its own: killed at any moment, stopped in order; and what requests see of it."""

import asyncio
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import redis

from engine.adapters.redis.embedded import EmbeddedRedis
from engine.adapters.redis.keys import nearline_key, record_key
from engine.app.processor import process, run_until_stopped
from engine.app.publish import publish_once
from engine.app.serve import open_pipeline
from engine.bundle.bundle import open_bundle
from engine.bundle.store import BundleStore
from engine.config.serving import EngineConfig, RedisConfig
from engine.config.stream import ProcessorConfig
from engine.features.record import unpack_record
from engine.request.pipeline import Pipeline
from engine.training.config import AlsConfig
from engine.types import EventType, Recommendation, RecommendQuery, Strategy
from tests.conftest import Trained
from tests.engine.stream.conftest import (
    KILL_BATCH,
    KILL_EVENTS,
    KILL_SEED,
    KILL_TIMEOUT_S,
    Bus,
    make_event,
    portions,
)
from tests.engine.stream.test_processor import applied_count, dump, stream, undisturbed, wait_for

Start = Callable[[Callable[[], None], threading.Event], None]
LOG = "t"


@contextmanager
def child(bus: Bus, url: str, home: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`engine process`, with the limits of test_processor and small batches, so that there is much to interrupt."""
    settings = home / "engine.toml"
    settings.write_text(
        f"""
        [kafka]
        brokers = "{bus.brokers}"
        topic_prefix = "{bus.kafka.topic_prefix}"
        properties = {{"session.timeout.ms" = "1000", "heartbeat.interval.ms" = "200"}}
        [redis]
        url = "{url}"
        seen_limit = 20
        [bundle]
        directory = "{home / "none"}"
        [processor]
        log = "{LOG}"
        batch_events = {KILL_BATCH}
        session_events = 10
        popular_items = 100
        archive_directory = "{home / "archive"}"
        archive_rows = {max(50, KILL_EVENTS // 80)}
        archive_flush_s = 0.5
        """
    )
    # Made from the environment's own interpreter: the tests must not depend on what PATH says.
    command = [sys.executable, "-m", "engine", "process", "--config", str(settings)]
    running = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        yield running
    finally:
        running.kill()
        running.wait()


def archived(home: Path) -> list[tuple[int, int, str]]:
    """(partition, offset, event id) of everything in the archive, in order."""
    frames = [pl.read_parquet(path) for path in (home / "archive").rglob("*.parquet")]
    return sorted(pl.concat(frames).select("partition", "offset", "event_id").rows()) if frames else []


def test_killed_at_random_moments_it_leaves_what_an_undisturbed_run_leaves(
    bus: Bus, redis_url: str, tmp_path: Path
) -> None:
    rng = random.Random(KILL_SEED)
    events = stream(KILL_EVENTS, users=max(300, KILL_EVENTS // 20))
    *disturbed, rest = portions(events)
    sent = 0
    for part in disturbed:
        bus.send(part)
        sent += len(part)
        before = applied_count(redis_url, LOG)
        with child(bus, redis_url, tmp_path) as running:
            enough = max(before, sent - 2 * len(part))
            wait_for(lambda enough=enough: applied_count(redis_url, LOG) > enough, KILL_TIMEOUT_S)  # type: ignore[misc]
            time.sleep(rng.uniform(0, 0.25))
            running.kill()
    bus.send(rest)
    with child(bus, redis_url, tmp_path) as running:
        wait_for(lambda: applied_count(redis_url, LOG) == len(events), KILL_TIMEOUT_S)
        running.send_signal(signal.SIGTERM)
        assert running.wait(20) == 0
    with undisturbed(bus, LOG, len(events), tmp_path / "r") as expected:
        assert dump(redis_url) == expected
    # What a stop in order holds back is written; what is not yet read is left to the next run.
    with child(bus, redis_url, tmp_path):
        wait_for(lambda: len(archived(tmp_path)) >= len(events), KILL_TIMEOUT_S)
    rows = archived(tmp_path)
    assert len({row[:2] for row in rows}) == len(rows) == len(events)
    assert sorted(row[2] for row in rows) == sorted(event.event_id for event in events)
    for partition in range(8):
        offsets = [offset for part, offset, _ in rows if part == partition]
        assert offsets == list(range(len(offsets)))


def test_what_the_processor_does_is_measured_over_http(bus: Bus, redis_url: str, background: Start) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = ProcessorConfig(metrics_port=port, log="m", group=f"metrics-{port}")
    config = bus.config.model_copy(update={"redis": RedisConfig(url=redis_url), "processor": settings})
    stop = threading.Event()
    background(lambda: process(config, stop), stop)
    bus.send([make_event("u")])

    def figures() -> dict[str, float]:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}

    wait_for(lambda: applied_count(redis_url, "m") >= 1)
    wait_for(lambda: figures().get('engine_processor_events_total{sink="live"}', 0) >= 1)
    found = figures()
    assert found['engine_processor_poison_total{sink="live"}'] >= 0
    assert found['engine_processor_batch_seconds_count{sink="live"}'] >= 1
    wait_for(lambda: figures()['engine_processor_lag{sink="live"}'] == 0)


def test_a_loop_that_breaks_stops_the_others_and_is_heard_of() -> None:
    stop = threading.Event()

    def broken() -> None:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        run_until_stopped([lambda: assert_stops(stop), broken], stop)
    assert stop.is_set()


def assert_stops(stop: threading.Event) -> None:
    assert stop.wait(10)


@pytest.fixture(scope="module")
def served(trained: Trained, redis_server: EmbeddedRedis) -> EngineConfig:
    """Settings of an engine whose users are published."""
    url = os.environ.get("REDIS_URL", redis_server.url)
    redis.Redis.from_url(url).flushdb()
    config = EngineConfig.load(
        server={"request_timeout_ms": 20_000},
        redis={"url": url, "timeout_ms": 5_000},
        bundle={"directory": trained.bundles.directory},
    )
    publish_once(trained.data, config)
    return config


async def ask(pipeline: Pipeline, user: str) -> Recommendation:
    query = RecommendQuery(user, "home", 50, time.time_ns() // 1_000_000)
    return await pipeline.recommend(query, time.monotonic() + 20)


async def test_what_a_user_does_is_in_their_next_answer(
    trained: Trained, served: EngineConfig, bus: Bus, background: Start
) -> None:
    config = _on_its_own_log(served, bus)
    stop = threading.Event()
    background(lambda: process(config, stop), stop)
    histories = trained.dataset.histories().lengths()
    user = trained.dataset.users["user_id"][int(histories.argmax())]
    now_ms = time.time_ns() // 1_000_000
    async with open_pipeline(config) as pipeline:
        before = await ask(pipeline, user)
        assert before.strategy is Strategy.PERSONALIZED
        bought = before.item_ids[10:13]
        bus.send([make_event(user, item, EventType.PURCHASE, time_ms=now_ms - 1000) for item in bought], now_ms)
        for _ in range(400):
            after = await ask(pipeline, user)
            if not set(bought) & set(after.item_ids):
                break
            await asyncio.sleep(0.02)
        assert not set(bought) & set(after.item_ids)
        # Not the same slate with three gaps filled from behind: the session has moved the query.
        kept = [item for item in before.item_ids if item not in bought]
        assert [item for item in after.item_ids if item in kept] != kept[: len(after.item_ids)]
        assert after.degraded_reasons == ()
        # Publishing again takes nothing of it away.
        publish_once(trained.data, config)
        assert not set(bought) & set((await ask(pipeline, user)).item_ids)


def _on_its_own_log(config: EngineConfig, bus: Bus) -> EngineConfig:
    """The same on this test's broker, its positions apart from those of other tests' brokers in the same Redis."""
    processor = config.processor.model_copy(update={"log": bus.kafka.topic_prefix})
    return config.model_copy(update={"kafka": bus.config.kafka, "processor": processor})


async def test_enough_live_events_end_the_cold_start(
    trained: Trained, served: EngineConfig, bus: Bus, background: Start
) -> None:
    config = _on_its_own_log(served, bus)
    stop = threading.Event()
    background(lambda: process(config, stop), stop)
    histories = trained.dataset.histories().lengths()
    user = trained.dataset.users["user_id"][int(histories.argmin())]
    items = trained.dataset.items["item_id"].to_list()
    now_ms = time.time_ns() // 1_000_000
    async with open_pipeline(config) as pipeline:
        assert (await ask(pipeline, user)).strategy is not Strategy.PERSONALIZED
        bus.send([make_event(user, item, EventType.VIEW, time_ms=now_ms) for item in items[:5]], now_ms)
        for _ in range(400):
            answer = await ask(pipeline, user)
            if answer.strategy is Strategy.PERSONALIZED:
                break
            await asyncio.sleep(0.02)
        assert (answer.strategy, answer.interaction_count) == (Strategy.PERSONALIZED, 5)


@pytest.fixture(scope="module")
def without_towers(trained: Trained, factorized: BundleStore, redis_server: EmbeddedRedis) -> EngineConfig:
    """Settings of an engine whose bundle has no towers, and whose users are published."""
    config = EngineConfig.load(
        server={"request_timeout_ms": 20_000},
        redis={"url": os.environ.get("REDIS_URL", redis_server.url), "timeout_ms": 5_000},
        bundle={"directory": factorized.directory},
    )
    publish_once(trained.data, config)
    return config


async def test_without_a_user_tower_newcomers_alone_are_folded_in(
    trained: Trained, without_towers: EngineConfig, bus: Bus, background: Start
) -> None:
    config = _on_its_own_log(without_towers, bus)
    stop = threading.Event()
    background(lambda: process(config, stop), stop)
    newcomer = f"new-{time.time_ns()}"
    known = trained.dataset.users["user_id"][int(trained.dataset.histories().lengths().argmax())]
    items = trained.dataset.items["item_id"].to_list()
    now_ms = time.time_ns() // 1_000_000
    async with open_pipeline(config) as pipeline:
        generation = pipeline.model.bundle.manifest.generation
        client = redis.Redis.from_url(config.redis.url)
        # What an earlier, unpublished life of a user has left gives way to the published record.
        client.set(nearline_key(known, generation), b"outdated")
        assert (await ask(pipeline, newcomer)).strategy is Strategy.POPULARITY
        bus.send(
            [
                make_event(user, item, EventType.PURCHASE, time_ms=now_ms)
                for item in items[:5]
                for user in (newcomer, known)
            ],
            now_ms,
        )
        for _ in range(2000):
            answer = await ask(pipeline, newcomer)
            if answer.strategy is Strategy.PERSONALIZED:
                break
            await asyncio.sleep(0.02)
        assert (answer.strategy, answer.interaction_count) == (Strategy.PERSONALIZED, 5)
        assert not set(items[:5]) & set(answer.item_ids)
        wait_for(lambda: not client.exists(nearline_key(known, generation)))
        state = await pipeline._features(known, generation, 5.0)
        record = unpack_record(client.get(record_key(known, generation)))  # type: ignore[arg-type]
        assert state[0].record is not None
        np.testing.assert_array_equal(state[0].record.embedding, record.embedding)

    # The vector is the one that training folds in from the same history.
    fresh = unpack_record(client.get(nearline_key(newcomer, generation)))  # type: ignore[arg-type]
    bundle = open_bundle(Path(config.bundle.directory) / "current")
    vectors = bundle.item_vectors.astype(np.float64)
    als = AlsConfig.model_validate(bundle.manifest.training["als"])
    own = vectors[list(map(bundle.items.ids(np.arange(len(vectors))).index, items[:5]))]
    left = vectors.T @ vectors + (als.alpha - 1) * own.T @ own + als.regularization * np.eye(vectors.shape[1])
    expected = np.linalg.solve(left, als.alpha * own.sum(axis=0))
    np.testing.assert_allclose(fresh.embedding, expected, rtol=2e-2, atol=2e-3)
