"""`engine evaluate` prints what it writes, protocol by protocol."""

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from engine.cli.evaluate import evaluate
from engine.evaluation.new_users import METHODS as NEW_USER_METHODS
from engine.evaluation.next_event import METHODS
from tests.conftest import SMALL_TRAINING, Trained

app = typer.Typer()
app.command()(evaluate)


def report_of(trained: Trained, path: Path, *options: str) -> tuple[dict[str, Any], str]:
    """The JSON report of a run over one seed, and what was printed."""
    shown = CliRunner().invoke(app, [str(trained.data), "--seeds", "1", "--json", str(path), *options])
    assert shown.exit_code == 0, shown.output
    return json.loads(path.read_text()), shown.output


@pytest.fixture
def als(tmp_path: Path) -> str:
    path = tmp_path / "training.toml"
    path.write_text(
        'embeddings = "als"\n[als]\ndim = 16\niterations = 5\n'
        "[ranker]\nepochs = 1\nhidden = [16]\ncross_rank = 4\nmax_examples = 200\n"
    )
    return str(path)


def test_next_event_report(trained: Trained, tmp_path: Path, als: str) -> None:
    (tmp_path / "serving.toml").write_text("[blend]\nwindow_s = 60.0\n")
    options = ("--protocol", "next-event", "--config", als)
    report, shown = report_of(trained, tmp_path / "wide.json", *options)
    assert (report["protocol"], report["seeds"], list(report["methods"])) == ("next-event", 1, list(METHODS))
    for name, figures in report["methods"].items():
        assert figures["method"] == name
        assert f"{figures['hr_at_10']['mean']:.4f}" in shown
        assert f"{figures['in_session']['hr_at_50']['mean']:.4f}" in shown
        assert len(figures["seed_means"]["ndcg_at_10"]) == 1
    # The serving settings count: a session of a minute is a shorter one.
    narrow, _ = report_of(
        trained, tmp_path / "narrow.json", *options, "--serving-config", str(tmp_path / "serving.toml")
    )
    assert narrow["in_session_events"] < report["in_session_events"]


def test_what_diversity_costs(trained: Trained, tmp_path: Path, als: str) -> None:
    plot = tmp_path / "trade-off.png"
    report, shown = report_of(
        trained, tmp_path / "report.json", "--config", als, "--mmr-weights", "0,0.3,0.8", "--plot", str(plot)
    )
    names = ["popularity", "ALS", "pipeline", "pipeline, MMR 0.3", "pipeline, MMR 0.8"]
    assert list(report["methods"]) == names
    for length in (10, 50):
        by_weight = [report["methods"][name][f"intra_list_similarity_at_{length}"]["mean"] for name in names[2:]]
        assert by_weight == sorted(by_weight, reverse=True)
        assert all(f"{similarity:.3f}" in shown for similarity in by_weight)
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_new_items_report(trained: Trained, tmp_path: Path) -> None:
    small = SMALL_TRAINING.two_tower
    (tmp_path / "towers.toml").write_text(
        f"[als]\ndim = 16\niterations = 5\n[two_tower]\ndim = {small.dim}\nwindow = {small.window}\nlayers = 1\n"
        "epochs = 1\nnegatives = 50\n"
    )
    report, shown = report_of(
        trained, tmp_path / "report.json", "--protocol", "new-items", "--config", str(tmp_path / "towers.toml")
    )
    assert report["items"] > 0
    assert report["users"] == report["questions"]
    for name, figures in report["methods"].items():
        assert figures["method"] == name
        assert f"{figures['hr_at_50']['mean']:.4f}" in shown
        assert f"{figures['hr_at_50_gain']['mean']:.4f}" in shown


def test_new_users_report(trained: Trained, tmp_path: Path) -> None:
    report, shown = report_of(trained, tmp_path / "report.json", "--protocol", "new-users")
    assert list(report["methods"]) == list(NEW_USER_METHODS)
    assert f"{report['users']:,} with demographics" in shown
    for figures in (*report["methods"].values(), report["gain"]):
        assert f"{figures['first_items_at_50']['mean']:.4f} ± {figures['first_items_at_50']['standard_error']:.4f}" in (
            shown
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--mmr-weights", "0,much"], "not numbers"),
        (["--mmr-weights", "0,1.5"], "not in [0, 1]"),
        (["--protocol", "new-users", "--plot", "x.png"], "leave-one-out"),
    ],
)
def test_options_that_make_no_sense(trained: Trained, options: list[str], message: str) -> None:
    shown = CliRunner().invoke(app, [str(trained.data), *options])
    assert shown.exit_code == 2
    assert message in " ".join(shown.output.split())
