"""`engine bench taste` prints what it writes."""

import json
from pathlib import Path

import typer
from typer.testing import CliRunner

from engine_bench.commands.taste import taste
from tests.conftest import Trained

app = typer.Typer()
app.command()(taste)


def test_figures_of_own_data(trained: Trained, tmp_path: Path) -> None:
    training, serving, written = tmp_path / "training.toml", tmp_path / "serving.toml", tmp_path / "taste.json"
    training.write_text(
        'embeddings = "als"\n[als]\ndim = 16\niterations = 5\n'
        "[ranker]\nepochs = 1\nhidden = [16]\ncross_rank = 4\nmax_examples = 200\n"
    )
    serving.write_text("[surfaces.shop]\ndiversity_weight = 0.2\n")
    shown = CliRunner().invoke(
        app,
        ["--data", str(trained.data), "--seeds", "1", "--config", str(training), "--serving-config", str(serving),
         "--json", str(written)],
    )  # fmt: skip
    assert shown.exit_code == 0, shown.output
    report = json.loads(written.read_text())
    figures = report["seeds"]["1"]
    assert [one["surface"] for one in figures] == ["shop", "shop"]
    assert report["lowest_main_share"] == min(one["main_share"] for one in figures)
    assert report["highest_most_shared"] == max(one["most_shared"] for one in figures)
    for one in figures:
        assert 0 < one["chance"] < one["retrieval_share"] <= 1
        assert f"shop, {one['moment']}" in shown.output
        assert f"{one['main_share']:.2f}" in shown.output
