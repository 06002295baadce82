"""The catalogue overlay on a real Redis: written, read as a whole, and followed through whatever happens to it."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import redis

from engine.adapters.redis import catalog as redis_catalog
from engine.adapters.redis.catalog import RedisCatalogSource, RedisCatalogWriter
from engine.adapters.redis.embedded import EmbeddedRedis
from engine.adapters.redis.keys import CATALOG_CHANGES, CATALOG_ITEMS
from engine.catalog.changes import Change, Overlay, StockChange, VectorChange
from engine.config.serving import RedisConfig
from engine.errors import DependencyUnavailable, SnapshotNeeded
from engine.types import item_key
from tests.engine.catalog.items import remove, stock, upsert


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(tmp_path / "redis") as running:
        yield running


@pytest.fixture
def source(server: EmbeddedRedis) -> Iterator[RedisCatalogSource]:
    reading = RedisCatalogSource(server.url, RedisConfig())
    yield reading
    reading.close()


async def write(server: EmbeddedRedis, *changes: Change) -> None:
    writer = RedisCatalogWriter(server.url, RedisConfig())
    await writer.write(changes)
    await writer.close()


def held(overlay: Overlay) -> dict[int, tuple[object, ...]]:
    return {
        state.key: (
            state.stored and state.stored.SerializeToString(),
            state.in_stock,
            {generation: vector.tobytes() for generation, vector in state.vectors.items()},
        )
        for state in overlay.since(0)
    }


VECTOR = np.arange(4, dtype=np.float32)
SOME: list[Change] = [
    upsert("a", price=3.5, attributes=["x", "y"]), stock("b", False), stock("b", True), remove("a"), upsert("c"),
    VectorChange(item_key("c"), 77, VECTOR), VectorChange(item_key("c"), 78, VECTOR + 1), stock("é\n", False),
]  # fmt: skip


async def test_a_snapshot_and_a_follower_hold_the_same(server: EmbeddedRedis, source: RedisCatalogSource) -> None:
    followed = Overlay()
    followed.replace(source.snapshot([77, 78]))
    assert len(followed) == 0
    for change in SOME:
        await write(server, change)
    await write(server, *(stock(f"item-{number}", number % 3 > 0) for number in range(1000)))
    while changes := source.follow(0.01):
        followed.add(changes)
    late = Overlay()
    late.replace(RedisCatalogSource(server.url, RedisConfig()).snapshot([77, 78]))
    assert held(late) == held(followed)
    assert len(late) == 1004
    one_space = Overlay()
    one_space.replace(RedisCatalogSource(server.url, RedisConfig()).snapshot([77]))
    assert {state.key: list(state.vectors) for state in one_space.since(0) if state.vectors} == {item_key("c"): [77]}


async def test_a_change_wakes_a_waiting_follower(server: EmbeddedRedis, source: RedisCatalogSource) -> None:
    source.snapshot([])
    found: list[tuple[float, list[Change]]] = []
    waiting = threading.Thread(target=lambda: found.append((time.monotonic(), source.follow(20.0))))
    waiting.start()
    started = time.monotonic()
    await write(server, stock("a", False))
    waiting.join(10)
    assert found[0][1] == [StockChange(item_key("a"), False)]
    assert time.monotonic() - started < 5.0


async def test_nothing_of_a_batch_is_stored_when_redis_is_away(server: EmbeddedRedis) -> None:
    writer = RedisCatalogWriter(server.url, RedisConfig(connect_timeout_s=0.3))
    server.close()
    with pytest.raises(DependencyUnavailable, match="catalogue store"):
        await writer.write(SOME)
    with pytest.raises(DependencyUnavailable):
        RedisCatalogSource(server.url, RedisConfig(connect_timeout_s=0.3)).snapshot([])
    await writer.close()


async def test_another_server_and_lost_changes_are_noticed(tmp_path: Path) -> None:
    home = tmp_path / "redis"
    with EmbeddedRedis(home) as first:
        source = RedisCatalogSource(first.url, RedisConfig())
        await write(first, *SOME)
        before = len(source.snapshot([]))
        url = first.url
    with EmbeddedRedis(home) as second:
        assert second.url == url, "the same place, so that the source finds the new one by itself"
        await write(second, stock("d", False))
        # The first attempt may meet the old connection's end.
        for _ in range(3):
            try:
                source.follow(0.05)
            except DependencyUnavailable:
                continue
            except SnapshotNeeded:
                break
        else:
            pytest.fail("the new server went unnoticed")
        assert len(source.snapshot([])) == before + 1
        assert source.follow(0.01) == []
        redis.Redis.from_url(second.url).delete(CATALOG_CHANGES)
        with pytest.raises(SnapshotNeeded):
            source.follow(0.01)


async def test_a_follower_that_is_too_far_behind_reads_everything_again(
    server: EmbeddedRedis, source: RedisCatalogSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_catalog, "_STREAM_BATCHES", 10)
    await write(server, stock("a", False))
    source.snapshot([])
    for number in range(500):
        await write(server, stock(f"item-{number}", False))
    with pytest.raises(SnapshotNeeded, match="gone from the stream"):
        source.follow(0.01)
    assert len(source.snapshot([])) == 501
    assert source.follow(0.01) == []


async def test_what_cannot_be_read_is_left_out(server: EmbeddedRedis, source: RedisCatalogSource) -> None:
    source.snapshot([])
    client = redis.Redis.from_url(server.url)
    client.xadd(CATALOG_CHANGES, {b"?12345678": b"of a later engine", b"i12345678": b"\xff\xff garbage"})
    client.hset(CATALOG_ITEMS, b"12345678", b"\xff\xff garbage")
    await write(server, stock("a", False))
    assert source.follow(1.0) == [StockChange(item_key("a"), False)]
    assert source.snapshot([]) == [StockChange(item_key("a"), False)]
