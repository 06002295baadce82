"""A small world with its bundle, the tiled graph of its ranker, and users in a real Redis."""

import datetime
from dataclasses import dataclass
from pathlib import Path

import pytest

from engine.adapters.redis.embedded import EmbeddedRedis
from engine.adapters.redis.store import RedisFeatureStore
from engine.app.model import load_model
from engine.bundle.bundle import Bundle
from engine.config.serving import EngineConfig, RedisConfig
from engine.request.model import ServingModel
from engine_bench.load_world import publish_crowd
from engine_bench.peers.sample import StageInputs, stage_inputs
from engine_bench.peers.settings import PeerSettings
from engine_bench.peers.tiled_export import export_tiled
from engine_bench.world import build_world, world_bundle, world_ranker

ITEMS, USERS = 2_000, 200


@dataclass(frozen=True)
class Small:
    """bundles: the directory that `[bundle]` names. now: when the last event of every session has happened."""

    bundles: Path
    bundle: Bundle
    settings: PeerSettings
    user_ids: list[str]
    now: datetime.datetime

    @property
    def time_ms(self) -> int:
        return int(self.now.timestamp() * 1000)


@pytest.fixture(scope="package")
def small(tmp_path_factory: pytest.TempPathFactory, redis_server: EmbeddedRedis) -> Small:
    home = tmp_path_factory.mktemp("peers")
    dataset, vectors = build_world(ITEMS)
    # Named as the bench names them in its cache.
    bundle = world_bundle(home / f"bundles-{ITEMS}", dataset, vectors)
    tiled = home / f"tiled-{ITEMS}-{bundle.version}.onnx"
    export_tiled(world_ranker(dataset, vectors), bundle, tiled)
    # After the world's end, and the same every time: near-ties of scores come out alike.
    now = datetime.datetime(2026, 1, 2, 12, tzinfo=datetime.UTC)
    time_ms = int(now.timestamp() * 1000)
    user_ids = publish_crowd(bundle, dataset, vectors, redis_server.url, USERS, time_ms, lambda done, total: None)
    settings = PeerSettings(bundle.path, tiled, redis_server.url)
    return Small(home / f"bundles-{ITEMS}", bundle, settings, user_ids, now)


@pytest.fixture(scope="package")
def model(small: Small) -> ServingModel:
    return load_model(small.bundle.path, EngineConfig())


@pytest.fixture
async def inputs(small: Small, model: ServingModel) -> list[StageInputs]:
    store = RedisFeatureStore(small.settings.redis_url, RedisConfig(timeout_ms=5_000))
    try:
        return await stage_inputs(model, store, small.user_ids[:8], small.time_ms, EngineConfig())
    finally:
        await store.close()
