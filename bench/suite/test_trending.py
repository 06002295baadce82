"""What an update from live counts costs by catalogue size: its own time, and how long others wait for it."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis

from engine.adapters.redis.embedded import EmbeddedRedis
from engine.adapters.redis.keys import applied_key, popularity_key
from engine.adapters.redis.trending import RedisTrending
from engine.app.model import load_model
from engine.bundle.bundle import Bundle
from engine.config.serving import EngineConfig, RedisConfig
from engine.stream.popularity import OVERALL
from engine.stream.topics import EVENTS
from engine.stream.trending import scopes_of_popularity
from suite.serving import PublishedWorld
from tests.engine.stream.naive import pack_entry

LOG = "bench"
NOW_MS = 1_764_000_000_000
PRIOR_EVENTS = 50.0
ROUNDS = 8
TICK_S = 0.001


@pytest.fixture(scope="session")
def bundle(world: PublishedWorld) -> Bundle:
    return world.bundle


@pytest.fixture(params=[10_000, 100_000])
def live(request: pytest.FixtureRequest, bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis in which this many items are live overall, and a tenth of them in every other scope."""
    rng = np.random.default_rng(0)
    count = min(request.param, len(bundle.items))
    keys = rng.choice(bundle.items.sorted_keys, count, replace=False)
    home: Path = tmp_path_factory.mktemp("redis")
    with EmbeddedRedis(home) as server:
        client = redis.Redis.from_url(server.url)
        for scope in scopes_of_popularity(bundle.popularity):
            members = keys if scope == OVERALL else rng.choice(keys, count // 10, replace=False)
            for partition, own in enumerate(np.array_split(members, EVENTS.partitions)):
                entries = {
                    int(key).to_bytes(8, "little", signed=True): pack_entry((NOW_MS - age, hour, 3 * hour, 9 * hour))
                    for key, age, hour in zip(
                        own, rng.integers(0, 3_600_000, len(own)).tolist(), rng.pareto(1.2, len(own)) + 0.1, strict=True
                    )
                }
                client.hset(popularity_key(LOG, partition, scope), mapping=entries)
        yield server.url


def test_update(benchmark: Any, bundle: Bundle, live: str) -> None:
    popularity = load_model(bundle.path, EngineConfig.load()).popularity
    source = RedisTrending(live, RedisConfig(), LOG, EVENTS.partitions)
    client = redis.Redis.from_url(live)
    read_s: list[float] = []
    apply_s: list[float] = []

    def update(number: int) -> None:
        client.set(applied_key(LOG, 0), number)  # so that everything is read again
        started = time.perf_counter()
        counts = source.read(popularity.scopes, NOW_MS)
        read = time.perf_counter()
        popularity.apply(counts, PRIOR_EVENTS)
        read_s.append(read - started)
        apply_s.append(time.perf_counter() - read)

    async def beside() -> tuple[list[float], list[float]]:
        """How late a tick comes on the event loop, and how long a small read of Redis takes, during updates."""
        other = redis.asyncio.Redis.from_url(live)
        late, waits = [], []
        updates = asyncio.create_task(asyncio.to_thread(lambda: [update(-number) for number in range(1, ROUNDS + 1)]))
        while not updates.done():
            started = time.perf_counter()
            await asyncio.sleep(TICK_S)
            ticked = time.perf_counter()
            await other.get("nothing")
            late.append(ticked - started - TICK_S)
            waits.append(time.perf_counter() - ticked)
        await updates
        await other.aclose()
        return late, waits

    numbers = iter(range(10**6))
    benchmark.pedantic(lambda: update(next(numbers)), rounds=ROUNDS, warmup_rounds=1)
    reads, applies = read_s[-ROUNDS:], apply_s[-ROUNDS:]
    late, waits = asyncio.run(beside())
    assert len(popularity.lists.overall.rows) == len(bundle.items)
    figures = {
        "read_ms": np.median(reads) * 1000,
        "apply_ms": np.median(applies) * 1000,
        "loop_late_p99_ms": np.percentile(late, 99) * 1000,
        "loop_late_max_ms": max(late) * 1000,
        "redis_get_p50_ms": np.percentile(waits, 50) * 1000,
        "redis_get_p99_ms": np.percentile(waits, 99) * 1000,
    }
    benchmark.extra_info.update({name: round(float(value), 2) for name, value in figures.items()})
    benchmark.extra_info.update(
        items=len(bundle.items), scopes=len(popularity.scopes), lists=len(bundle.popularity.lists)
    )
    print()
    print(f"{len(popularity.scopes)} scopes, {len(bundle.popularity.lists)} lists, {len(bundle.items):,} items")
    for name, value in figures.items():
        print(f"{name:20} {value:8.2f}")
