"""The whole bench in small: every peer that needs no further package, over real sockets."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from engine_bench import load_runs
from engine_bench.commands.bench import app
from engine_bench.peers import run, service_runs
from tests.bench.peers.conftest import ITEMS, Small
from tests.ports import free_port

LEFT_OUT = ("mosec", "scann")


def test_a_small_run_from_end_to_end(small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "_CALIBRATION_PER_S": (20.0,), "_CALIBRATION_S": 0.3, "_IDLE_S": 0.3, "_SETTLING_S": 0.1, "_SETTLINGS": 1,
        "_FEWEST_REQUESTS": 5, "_LONGEST": 1.0, "_ATTEMPTS": 1, "_STEPS": 1, "_FIRST_PER_S": 10.0, "_LOWEST_PER_S": 5.0,
    }.items():  # fmt: skip
        monkeypatch.setattr(load_runs, name, value)
    monkeypatch.setattr(service_runs, "_ROUNDS", 2)
    monkeypatch.setattr(run, "_CALLS", 20)
    out, cache = tmp_path / "peers.json", small.bundles.parent
    sizes = ["--items", str(ITEMS), "--users", "200", "--seconds", "1", "--repeats", "1"]
    skip = [option for name in LEFT_OUT for option in ("--skip", name)]
    places = ["--port", str(free_port()), "--cache", str(cache)]
    result = CliRunner().invoke(app, ["peers", "--json", str(out), *sizes, *skip, *places])
    assert result.exit_code == 0, result.output
    report = json.loads(out.read_text())
    assert report["items"] == ITEMS
    services = {service["name"]: service for service in report["services"]}
    for name in ("engine", "naive", "null"):
        unloaded = services[name]["unloaded"]
        assert unloaded["requests"] == 50
        assert unloaded["latency_ms"]["p50"] > 0
        assert services[name]["server_cpu_ms_per_answer"] >= 0
        assert [rate["bound_p99_ms"] for rate in services[name]["rates"]] == [25.0]
    skipped = {row["name"] for row in [*report["services"], *report["stages"]] if "skipped" in row}
    assert set(LEFT_OUT) <= skipped
    stages = {(row["stage"], row["name"]) for row in report["stages"]}
    assert {("features", "redis-py"), ("retrieve", "engine"), ("rank", "tiled"), ("diversify", "numpy")} <= stages
    assert [target["met"] for target in report["targets"] if "difference" in target["name"]] == [True]
    # What is only for this run is gone.
    assert not [path.name for path in cache.iterdir() if path.name.startswith("peers-")]


def test_a_peer_that_nobody_knows_is_refused() -> None:
    result = CliRunner().invoke(app, ["peers", "--skip", "sccan"])
    assert result.exit_code == 2
    assert "sccan is none of" in result.output.replace("\n", " ")
