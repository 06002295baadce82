"""The closed loop over real sockets: users, server, Kafka, processor, archive, report, held against the truth."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from engine.adapters.kafka.embedded import EmbeddedKafka
from engine.adapters.redis.embedded import EmbeddedRedis
from engine.app.model import train_bundle
from engine.app.publish import publish_once
from engine.app.serve import running_server
from engine.bundle.store import BundleStore
from engine.cli.main import app
from engine.config.serving import EngineConfig
from engine.data.build import load_dataset
from engine.errors import DataError, DependencyUnavailable
from engine.training.config import AlsConfig, RankerConfig, TrainingConfig
from engine_bench.processes import engine_process, wait_until_serving, write_settings
from engine_bench.simulation.run import RunSettings, simulate
from engine_bench.synthetic.tables import synthesize, world_of
from engine_bench.synthetic.world import WorldSize
from engine_client import RecommendationClient
from tests.conftest import Trained
from tests.ports import free_port

DAYS = 4
SEED = 6
# Answers differ a little from run to run, since events take their time, and a 95% interval misses the truth in one
# run of twenty by design. So the truth has to lie within this many widths of the interval's half, some four standard
# errors. How often the interval itself holds it is counted in simulation/test_coverage.py.
HALF_WIDTHS = 2.0
SETTINGS = """
[holdout]
share = 0.5
surfaces = ["home"]
[processor]
archive_directory = {archive}
archive_flush_s = 0.2
"""
PATIENCE_S = 60.0
TRAINING = TrainingConfig(
    embeddings="als",
    als=AlsConfig(dim=32, iterations=8),
    ranker=RankerConfig(epochs=2, hidden=(32, 16), cross_rank=8, max_examples=1_000),
)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A world with more to choose from than is popular, and a quickly trained bundle that knows some of its tastes."""
    home = tmp_path_factory.mktemp("simulated")
    synthesize(home / "data", WorldSize(items=3_000, users=300), event_count=90_000, seed=3)
    dataset = load_dataset(home / "data")
    store = BundleStore(home / "bundles")
    train_bundle(dataset, TRAINING, store)
    return Trained(home, home / "data", dataset, store)


@asynccontextmanager
async def engine(shop: Trained, home: Path) -> AsyncIterator[tuple[Path, int, int]]:
    """Server and processor as the demonstration starts them, and a server for the truth; settings and both ports."""
    port = free_port()
    with ExitStack() as resources:
        redis = resources.enter_context(EmbeddedRedis(home / "redis"))
        kafka = resources.enter_context(EmbeddedKafka(home / "kafka"))
        settings = write_settings(home, port, redis.url, kafka.brokers)
        text = settings.read_text().replace(str(home / "bundles"), str(shop.bundles.directory))
        text = text.replace("[redis]\n", "[redis]\ntimeout_ms = 5000\n")
        text = text.replace("[server]\n", "[server]\nrequest_timeout_ms = 20000\n")
        settings.write_text(text + SETTINGS.format(archive=json.dumps(str(home / "archive" / "events"))))
        config = EngineConfig.load(settings)
        publish_once(shop.data, config)
        server = resources.enter_context(engine_process("serve", settings))
        resources.enter_context(engine_process("process", settings))
        silent = EngineConfig.load(settings, server={"host": "127.0.0.1", "port": 0}, exposures={"enabled": False})
        async with running_server(silent) as other:
            with RecommendationClient(f"localhost:{port}", timeout_s=5.0) as client:
                await asyncio.to_thread(wait_until_serving, client, server)
            yield settings, port, other.port


def archived(directory: Path, column: str) -> pl.Series:
    files = sorted(directory.rglob("*.parquet"))
    return pl.read_parquet(files, columns=[column])[column] if files else pl.Series([], dtype=pl.String)


async def until_archived(archive: Path, summary: dict[str, Any]) -> None:
    """Every request, and the last event of each."""
    give_up = time.monotonic() + PATIENCE_S
    while time.monotonic() < give_up:
        exposures = await asyncio.to_thread(archived, archive / "exposures", "request_id")
        events = await asyncio.to_thread(archived, archive / "events", "request_id")
        if len(exposures) == summary["requests"] and events.n_unique() == summary["requests"]:
            return
        await asyncio.sleep(0.2)
    raise AssertionError("not everything was archived in time")


async def test_the_report_of_a_run_holds_the_truth(
    shop: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive, figures = tmp_path / "archive", tmp_path / "run.json"
    async with engine(shop, tmp_path) as (settings, port, truth_port):
        options = ("--target", f"localhost:{port}", "--truth-target", f"localhost:{truth_port}", "--days", DAYS)
        options += ("--visits", 0.35, "--position-bias", 0.5, "--seed", SEED, "--json", figures)
        # A loop of its own, as at the command line: this one is the second server's.
        command = ["simulate", str(shop.data), *map(str, options)]
        await asyncio.to_thread(app, command, standalone_mode=False)
        summary = json.loads(figures.read_text())
        await until_archived(archive, summary)
    shown = capsys.readouterr().out
    assert "with a click" in shown
    assert "--clock request" in shown
    assert summary["errors"] == {}

    report = ["report", "holdout", "--archive", str(archive), "--config", str(settings), "--clock", "request"]
    app(["experiment", *report, "--json", "-"], standalone_mode=False)
    read = json.loads(capsys.readouterr().out)
    assert read["verdict"]["readable"]
    [split] = read["splits"]
    assert not split["mismatch"]
    lines = {line["metric"]: line for line in read["comparisons"]}
    for metric in ("request_ctr", "item_ctr"):
        truth, lift = summary["truth"][metric], lines[metric]["lift"]
        assert truth > 0.1
        assert lift["value"] > 0
        margin = (HALF_WIDTHS - 1.0) * (lift["high"] - lift["low"]) / 2.0
        assert lift["low"] - margin <= truth <= lift["high"] + margin
    assert {line["error_share"] for line in read["guardrails"]} == {0.0}

    # What was counted is what was done: nobody is lost on the way, and days are the simulated ones.
    for variant, place in (("baseline", "control"), ("engine", "treatment")):
        earned = summary["variants"][variant]
        assert split["counts"][variant] == earned["users"]
        assert lines["request_ctr"][f"{place}_value"] == pytest.approx(earned["request_ctr"])
        assert lines["item_ctr"][f"{place}_value"] == pytest.approx(earned["item_ctr"])
        assert lines["revenue"][f"{place}_value"] == pytest.approx(earned["revenue"] / earned["sessions"], rel=1e-3)
    assert summary["begin_ms"] <= read["first_ms"] < read["last_ms"] < summary["end_ms"]
    assert read["last_ms"] - read["first_ms"] > (DAYS - 1) * 86_400_000
    assert 10 < lines["session_length"]["control_value"] < 300


async def test_the_same_seed_makes_the_same_choices(shop: Trained, tmp_path: Path) -> None:
    """Without a processor the server's answers are the same, whenever and how quickly they are asked for."""
    config = EngineConfig.load(
        server={"host": "127.0.0.1", "port": 0, "request_timeout_ms": 20_000},
        redis={"directory": tmp_path / "redis", "timeout_ms": 5_000},
        kafka={"directory": tmp_path / "kafka"},
        bundle={"directory": shop.bundles.directory},
        exploration={"share": 0.0},
        holdout={"share": 0.5},
    )
    publish_once(shop.data, config)
    world = world_of(shop.data)
    async with running_server(config) as server:
        few = RunSettings(f"127.0.0.1:{server.port}", users=40, days=1, visits_per_day=0.7, seed=2)
        one = await simulate(world, few)
        again = await simulate(world, replace(few, speed=200_000.0, concurrency=2))
        other = await simulate(world, replace(few, seed=3))
        # Nobody knows of this one.
        outside = await simulate(world, replace(few, experiment="another"))
    assert one["run"] != again["run"]
    assert one["requests"] > 20
    assert one["variants"] == again["variants"]
    assert set(one["variants"]) == {"baseline", "engine"}
    assert one["variants"] != other["variants"]
    assert set(outside["variants"]) == {"none"}
    assert one["truth"] is None


def test_a_server_that_is_not_there(shop: Trained) -> None:
    with pytest.raises(DependencyUnavailable, match="was not serving"):
        asyncio.run(simulate(world_of(shop.data), RunSettings("127.0.0.1:1", timeout_s=0.5)))


def test_a_world_is_known_by_its_data(shop: Trained, tmp_path: Path) -> None:
    world = world_of(shop.data)
    assert (world.size.items, world.size.users, world.seed) == (3_000, 300, 3)
    with pytest.raises(DataError, match="engine synth"):
        world_of(tmp_path)
    recipe = json.loads((shop.data / "world.json").read_text())
    (tmp_path / "items.parquet").write_bytes((shop.data / "items.parquet").read_bytes())
    (tmp_path / "world.json").write_text(json.dumps(recipe | {"seed": 4}))
    with pytest.raises(DataError, match="another world"):
        world_of(tmp_path)
    (tmp_path / "world.json").write_text("{}")
    with pytest.raises(DataError, match="no recipe"):
        world_of(tmp_path)
