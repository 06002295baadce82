"""`engine evaluate --protocol next-event` prints what it writes."""

import json
from pathlib import Path

import typer
from typer.testing import CliRunner

from engine.cli.evaluate import evaluate
from engine.evaluation.replay import METHODS
from tests.conftest import Trained

app = typer.Typer()
app.command()(evaluate)


def test_next_event_report(trained: Trained, tmp_path: Path) -> None:
    (tmp_path / "training.toml").write_text('embeddings = "als"\n[als]\ndim = 16\niterations = 5\n')
    (tmp_path / "serving.toml").write_text("[blend]\nwindow_s = 60.0\n")
    narrow, wide = tmp_path / "narrow.json", tmp_path / "wide.json"
    options = [
        str(trained.data),
        "--protocol",
        "next-event",
        "--seeds",
        "1",
        "--config",
        str(tmp_path / "training.toml"),
    ]
    shown = CliRunner().invoke(app, [*options, "--json", str(wide)])
    assert shown.exit_code == 0, shown.output
    assert (
        CliRunner()
        .invoke(app, [*options, "--json", str(narrow), "--serving-config", str(tmp_path / "serving.toml")])
        .exit_code
        == 0
    )
    report = json.loads(wide.read_text())
    assert (report["protocol"], report["seeds"], list(report["methods"])) == ("next-event", 1, list(METHODS))
    for name, figures in report["methods"].items():
        assert figures["method"] == name
        assert f"{figures['hr_at_10']['mean']:.4f}" in shown.output
        assert f"{figures['in_session']['hr_at_50']['mean']:.4f}" in shown.output
        assert len(figures["seed_means"]["ndcg_at_10"]) == 1
    # The serving settings count: a session of a minute is a shorter one.
    assert json.loads(narrow.read_text())["in_session_events"] < report["in_session_events"]
