"""The bench of the exposure log in small, over real servers; and how its figures are made of runs."""

import json

import pytest
from typer.testing import CliRunner

from engine_bench import exposures
from engine_bench.commands.bench import app
from engine_bench.exposures import Run, report
from tests.ports import free_port


def run(answers: int, cpu_s: float = 1.0, failed: int = 0) -> Run:
    return Run(answers, failed, 10.0, cpu_s, [1.0] * answers)


def test_shares_compare_the_runs_of_one_round() -> None:
    runs = {
        "off": [run(1000), run(500), run(2000)],
        "on": [run(990, 1.09), run(480, 1.0), run(1000, 0.55)],
        "kafka_away": [run(1000), run(500), run(2000, failed=1)],
    }
    found = report(runs, logged=2469, answered=2470)
    assert found["cost_shares"] == [0.01, 0.04, 0.5]
    assert found["cost_share"] == 0.04
    assert found["cpu_cost_share"] == 0.1
    assert found["kafka_away_cost_share"] == 0.0
    assert {target["name"]: (target["value"], target["met"]) for target in found["targets"]} == {
        "cost_share": (0.04, False),
        "kafka_away_cost_share": (0.0, True),
        "kafka_away_failed": (1, False),
        "answers_not_logged": (1, False),
    }


def test_a_small_run_from_end_to_end(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path_factory.mktemp("b")  # a short name: Redis gets a socket in there
    monkeypatch.setattr(exposures, "_USERS", 200)
    monkeypatch.setattr(exposures, "_WARM_UP_S", 0.2)
    out = home / "exposures.json"
    sizes = ["--items", "2000", "--seconds", "0.4", "--rounds", "1", "--port", str(free_port(3))]
    result = CliRunner().invoke(app, ["exposures", "--json", str(out), "--cache", str(home), *sizes])
    assert result.exit_code == 0, result.output
    found = json.loads(out.read_text())
    for kind in ("off", "on", "kafka_away"):
        [rate] = found[kind]["answers_per_s"]
        assert rate > 0
        assert found[kind]["cpu_ms_per_answer"][0] > 0
    # Whatever became of the others: each answer of the server that logs is in the topic.
    assert found["logged"] >= found["answered"] > 0
