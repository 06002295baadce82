"""Live counts reach what is being served: over a real bundle, a real Redis, and the processor's own writer."""

import asyncio
import json
import logging
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import redis

from engine.adapters.redis.embedded import EmbeddedRedis
from engine.adapters.redis.trending import RedisTrending
from engine.app.model import load_model
from engine.app.serve import running_server
from engine.app.trending import Trending
from engine.bundle.store import BundleStore
from engine.config.serving import EngineConfig, RedisConfig
from engine.features.schema import CODE_FEATURES
from engine.request.model import ServingModel
from engine.stream.topics import EVENTS
from engine.types import Float32Array, RankingContext
from engine_client import AsyncRecommendationClient
from tests.conftest import Trained
from tests.engine.trends import write_events

LOG = "trends"
POLL_S = 0.1


def settings(directory: Path, home: Path, url: str, poll_s: float = POLL_S) -> EngineConfig:
    return EngineConfig.load(
        server={"host": "127.0.0.1", "port": 0, "request_timeout_ms": 20_000, "drain_s": 2},
        redis={"url": url, "timeout_ms": 5_000},
        kafka={"directory": home / "kafka"},
        processor={"log": LOG},
        bundle={"directory": directory, "poll_s": 0.05},
        trending={"poll_s": poll_s},
        # What is popular comes first for everybody.
        cold_start={"rotation_share": 0.0},
    )


@pytest.fixture
def live_redis(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(tmp_path / "redis") as server:
        yield server


@pytest.fixture
def model(trained: Trained) -> ServingModel:
    return load_model(trained.bundles.current(), EngineConfig.load())


def trending_over(url: str) -> Trending:
    return Trending(RedisTrending(url, RedisConfig(), LOG, EVENTS.partitions), 50.0)


def least_popular(model: ServingModel) -> tuple[int, str]:
    """The row and id of the least popular item that may be shown at home."""
    bitmap = model.catalogue.of_surface("home")
    rows = [int(row) for row in model.bundle.popularity.overall.rows if bitmap[row >> 3] >> (row & 7) & 1]
    return rows[-1], model.bundle.items.ids(np.array(rows[-1:]))[0]


def clicks(item_id: str, count: int) -> list[tuple[str, int]]:
    return [(item_id, round(time.time() * 1000))] * count


def scores(model: ServingModel) -> Float32Array:
    """What the ranker makes of every item for somebody."""
    schema = model.bundle.schema
    rng = np.random.default_rng(0)
    context = RankingContext(
        query=np.array(model.bundle.item_vectors[0], np.float32),
        session=np.zeros(schema.embedding_dim, np.float32),
        collaborative=rng.normal(size=schema.collaborative_dim).astype(np.float32),
        dense=rng.normal(size=schema.dense_dim).astype(np.float32),
        codes=np.zeros(len(CODE_FEATURES), np.int64),
    )
    return model.ranker.score(context, np.arange(len(model.bundle.items)))


async def test_a_trend_leads_an_unknown_users_slate_within_two_polls(
    trained: Trained, model: ServingModel, live_redis: EmbeddedRedis, tmp_path: Path
) -> None:
    _, item_id = least_popular(model)
    async with (
        running_server(settings(trained.bundles.directory, tmp_path, live_redis.url)) as server,
        AsyncRecommendationClient(f"127.0.0.1:{server.port}", timeout_s=20) as client,
    ):
        before = await client.recommend("nobody", "home")
        assert item_id not in {item.item_id for item in before.items}
        await asyncio.to_thread(write_events, live_redis.url, LOG, clicks(item_id, 300))
        # Two polls, and room for a machine that is busy with something else.
        give_up = time.monotonic() + 2 * POLL_S + 10
        while (await client.recommend("nobody", "home", diversity_weight=0)).items[0].item_id != item_id:
            assert time.monotonic() < give_up, "the trend did not arrive"
            await asyncio.sleep(0.01)
        assert len((await client.recommend("nobody", "home")).items) == 50


def test_the_rankers_scores_of_what_trends_change_and_come_back(model: ServingModel, live_redis: EmbeddedRedis) -> None:
    trending = trending_over(live_redis.url)
    row, item_id = least_popular(model)
    bundle_counts, before = model.catalogue.item_dynamic.copy(), scores(model)
    write_events(live_redis.url, LOG, [*clicks(item_id, 300), *clicks("an item of another catalogue", 5)])
    trending.refresh(model)
    changed = np.flatnonzero((model.catalogue.item_dynamic != bundle_counts).any(axis=1))
    assert changed.tolist() == [row]
    np.testing.assert_allclose(np.expm1(model.catalogue.item_dynamic[row]), 300, rtol=0.01)
    assert np.flatnonzero(scores(model) != before).tolist() == [row]
    assert model.popularity.lists.overall.rows[0] == row
    redis.Redis.from_url(live_redis.url).flushdb()
    trending.refresh(model)
    np.testing.assert_array_equal(model.catalogue.item_dynamic, bundle_counts)
    np.testing.assert_array_equal(scores(model), before)
    assert model.popularity.lists is model.bundle.popularity


def test_without_live_counts_nothing_is_touched(model: ServingModel, live_redis: EmbeddedRedis) -> None:
    bundle_counts = model.catalogue.item_dynamic.copy()
    trending_over(live_redis.url).refresh(model)
    assert model.catalogue.item_dynamic.tobytes() == bundle_counts.tobytes()
    assert model.popularity.lists is model.bundle.popularity


def test_popularity_stays_while_redis_is_away_and_moves_on_with_it(
    model: ServingModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    row, item_id = least_popular(model)
    with EmbeddedRedis(tmp_path) as server:
        trending = trending_over(server.url)
        write_events(server.url, LOG, clicks(item_id, 100))
        trending.refresh(model)
    trend, counts = model.popularity.lists, model.catalogue.item_dynamic[row].copy()
    with caplog.at_level(logging.WARNING, "engine.app.trending"):
        for _ in range(5):
            trending.refresh(model)
    assert len(caplog.records) <= 1
    assert model.popularity.lists is trend
    np.testing.assert_array_equal(model.catalogue.item_dynamic[row], counts)
    with EmbeddedRedis(tmp_path) as server:
        write_events(server.url, LOG, clicks(item_id, 200))
        trending.refresh(model)
    assert model.catalogue.item_dynamic[row, 0] > counts[0]


async def test_a_new_bundle_serves_with_what_is_live_from_its_first_answer(
    trained: Trained, model: ServingModel, live_redis: EmbeddedRedis, tmp_path: Path
) -> None:
    bundles = BundleStore(tmp_path / "bundles")
    original = shutil.copytree(trained.bundles.current(), bundles.directory / trained.bundles.current().name)
    bundles.point_to(original.name)
    _, item_id = least_popular(model)
    # After its first poll at the start the follower sleeps: what the new bundle shows, it was given before the swap.
    config = settings(bundles.directory, tmp_path, live_redis.url, poll_s=600)
    async with (
        running_server(config) as server,
        AsyncRecommendationClient(f"127.0.0.1:{server.port}", timeout_s=20) as client,
    ):
        await asyncio.sleep(0.5)
        await asyncio.to_thread(write_events, live_redis.url, LOG, clicks(item_id, 300))
        newer = shutil.copytree(original, bundles.directory / "newer")
        manifest = json.loads((newer / "manifest.json").read_text())
        (newer / "manifest.json").write_text(json.dumps({**manifest, "version": "newer"}))
        bundles.point_to("newer")
        give_up = time.monotonic() + 20
        while (answer := await client.recommend("nobody", "home", diversity_weight=0)).bundle_version != "newer":
            assert item_id not in {item.item_id for item in answer.items}
            assert time.monotonic() < give_up, "the new bundle does not serve"
            await asyncio.sleep(0.01)
        assert answer.items[0].item_id == item_id


async def test_following_can_be_off(
    trained: Trained, model: ServingModel, live_redis: EmbeddedRedis, tmp_path: Path
) -> None:
    _, item_id = least_popular(model)
    write_events(live_redis.url, LOG, clicks(item_id, 300))
    async with (
        running_server(settings(trained.bundles.directory, tmp_path, live_redis.url, poll_s=0)) as server,
        AsyncRecommendationClient(f"127.0.0.1:{server.port}", timeout_s=20) as client,
    ):
        await asyncio.sleep(0.5)
        answer = await client.recommend("nobody", "home")
    assert item_id not in {item.item_id for item in answer.items}
