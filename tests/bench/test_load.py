"""The load bench in small, over real sockets: world, Redis, a server process, and this process as the generator."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from engine.adapters.redis.embedded import EmbeddedRedis
from engine.adapters.redis.store import RedisFeatureStore
from engine.config.serving import EngineConfig, RedisConfig
from engine.rules.load import load_rules
from engine_bench import load_runs
from engine_bench.commands.bench import app
from engine_bench.load_world import publish_crowd, write_rules
from engine_bench.world import build_world, world_bundle
from tests.ports import free_port

ITEMS = 2_000
PIPELINE = (
    "features",
    "eligibility",
    "blend",
    "retrieve",
    "rank",
    "filter",
    "rules",
    "explore",
    "diversify",
    "respond",
    "receive",
    "return",
    "convert",
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("load")


def test_a_small_run_from_end_to_end(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_runs, "_CALIBRATION_PER_S", (20.0, 40.0))
    monkeypatch.setattr(load_runs, "_CALIBRATION_S", 0.5)
    monkeypatch.setattr(load_runs, "_IDLE_S", 0.5)
    monkeypatch.setattr(load_runs, "_SETTLING_S", 0.2)
    monkeypatch.setattr(load_runs, "_FEWEST_REQUESTS", 20)
    out = cache / "load.json"
    sizes = ["--items", str(ITEMS), "--users", "2500", "--seconds", "1", "--repeats", "1", "--port", str(free_port())]
    result = CliRunner().invoke(app, ["load", "--json", str(out), "--cache", str(cache), *sizes])
    assert result.exit_code == 0, result.output
    report = json.loads(out.read_text())
    assert report["settings"]["items"] == ITEMS
    unloaded = report["unloaded"]
    assert unloaded["requests"] == 100
    assert unloaded["latency_ms"]["p50"] <= unloaded["latency_ms"]["p99"] <= unloaded["latency_ms"]["max"]
    # Nobody took the road for strangers only: records, sessions and rules were all there to be worked on.
    assert set(PIPELINE) <= set(unloaded["stages_ms"])
    assert unloaded["server_cpu_ms_per_answer"] > 0
    assert unloaded["server_rss_mib"] > 50
    assert {run["name"].split()[0] for run in report["calibration"]["runs"]} == {"calibrate"}
    assert [rate["bound_ms"] for rate in report["rates"]] == [100.0, 25.0]
    assert len(report["targets"]) == 8
    assert report["floor"]["latency_ms"]["p50"] < unloaded["latency_ms"]["p50"]
    assert all(isinstance(target["value"], float) for target in report["targets"])
    # Only the bundle stays for the next time.
    assert [path.name for path in cache.iterdir() if path.is_dir()] == [f"bundles-{ITEMS}"]


async def test_a_crowd_has_records_seen_items_and_sessions_of_its_own(cache: Path, redis_server: EmbeddedRedis) -> None:
    dataset, vectors = build_world(ITEMS)
    bundle = world_bundle(cache / f"bundles-{ITEMS}", dataset, vectors)
    now_ms = time.time_ns() // 1_000_000
    told: list[int] = []
    user_ids = publish_crowd(
        bundle, dataset, vectors, redis_server.url, 4_500, now_ms, lambda done, total: told.append(done)
    )
    assert len(user_ids) == len(set(user_ids)) == told[-1] == 4_500
    generation = bundle.manifest.generation
    store = RedisFeatureStore(redis_server.url, RedisConfig(timeout_ms=5_000))
    try:
        states = [await store.fetch(user_id, generation) for user_id in user_ids[::100]]
    finally:
        await store.close()
    window_ms = EngineConfig().blend.window_s * 1000
    for state in states:
        assert state.record is not None
        assert state.record.generation == generation
        assert state.interaction_count >= EngineConfig().cold_start.min_interactions
        assert len(state.seen) > 0
        assert 1 <= len(state.session.item_keys) <= 20
        times = state.session.timestamps_ms
        assert (np.diff(times) >= 0).all()
        assert now_ms - window_ms / 2 < times[0] <= times[-1] <= now_ms
    assert len({state.session.item_keys.tobytes() for state in states}) > 40


def test_the_rules_are_good_and_concern_items(cache: Path) -> None:
    dataset, _ = build_world(ITEMS)
    path = cache / "rules.yaml"
    write_rules(path, dataset)
    rules = load_rules(path, ("home",))
    assert [rule.action for rule in rules.rules] == ["deny", "boost", "cap"]
    deny, boost, _ = json.loads(path.read_text())["rules"]
    assert 0 < (dataset.items["brand"] == deny["items"]["brand"]).sum() < ITEMS / 2
    assert 0 < (dataset.items["category"] == boost["items"]["category"]).sum() < ITEMS
