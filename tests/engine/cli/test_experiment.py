"""`engine experiment`: reports, plans and estimates at the command line."""

import json
import sys
from pathlib import Path

import polars as pl
import pytest

from engine.cli.main import app, run
from tests.engine.experiments.analysis.shop import Shop, open_shop


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return open_shop(tmp_path_factory.mktemp("cli-shop"), seed=9, shop=Shop(users=1_500, lift=0.5))


def engine(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    app(["experiment", *map(str, arguments)], standalone_mode=False)
    return capsys.readouterr().out


def refusal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    monkeypatch.setattr(sys, "argv", ["engine", "experiment", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit_info:
        run()
    assert exit_info.value.code == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert "Traceback" not in output.err
    return output.err


def test_report(archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page, figures = tmp_path / "report.html", tmp_path / "report.json"
    options = ("--archive", archive, "--shares", "control=1,engine=1", "--html", page, "--json", figures)
    shown = engine(capsys, "report", "worth", *options)
    assert "engine earns" in shown
    assert "Requests with a click" in shown
    assert "as planned" in shown
    assert "guardrails" in shown
    read = json.loads(figures.read_text())
    assert read["verdict"]["headline"] in page.read_text()
    printed = engine(capsys, "report", "worth", "--archive", archive, "--shares", "control=1,engine=1", "--json", "-")
    assert json.loads(printed) == read


@pytest.mark.parametrize(("alpha", "confidence"), [("0.05", "95%"), ("0.1", "90%")])
def test_it_says_how_sure_its_intervals_are(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], alpha: str, confidence: str
) -> None:
    page = tmp_path / "report.html"
    shown = engine(capsys, "report", "worth", "--archive", archive, "--alpha", alpha, "--html", page)
    assert f"lift ({confidence})" in " ".join(shown.split())
    said = page.read_text()
    assert f"{confidence} interval" in said
    assert f"lift ({confidence})" in said


def test_a_part_of_it(archive: Path, capsys: pytest.CaptureFixture[str]) -> None:
    days = ("--from", "2026-03-03", "--to", "2026-03-05")
    printed = engine(capsys, "report", "worth", "--archive", archive, "--surface", "cart", *days, "--json", "-")
    read = json.loads(printed)
    assert read["surfaces"] == ["cart"]
    assert {day["day"] for day in read["days"]} <= {20_515, 20_516, 20_517}
    assert read["splits"] == []


def test_plan(archive: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = engine(capsys, "plan", "--archive", archive, "--lift", "0.1", "--shares", "control=10,engine=90")
    assert "Revenue per session" in shown
    assert "new users a day" in shown
    printed = engine(capsys, "plan", "--rate", "0.05", "--people-per-day", "1000", "--lift", "0.05", "--json", "-")
    [plan] = json.loads(printed)["plans"]
    # 16 sigma^2 / delta^2 a variant.
    assert plan["units"] / 2 == pytest.approx(121_600, rel=0.05)
    assert plan["days"] == pytest.approx(plan["units"] / 1000)


def test_off_policy(archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exposures = pl.read_parquet(archive / "exposures/*/*/*.parquet")
    served = exposures.filter(pl.col("experiments").list.first().struct.field("variant") == "control")
    # The same policy again: what it would have earned is what it did earn.
    target = served.select("request_id", item_id="item_ids").explode("item_id").with_columns(probability=pl.lit(1.0))
    target.write_parquet(tmp_path / "target.parquet")
    shown = engine(capsys, "ope", "worth", "control", tmp_path / "target.parquet", "--archive", archive)
    assert "support 1.000" in shown
    options = ("--archive", archive, "--json", "-")
    read = json.loads(engine(capsys, "ope", "worth", "control", tmp_path / "target.parquet", *options))
    assert read["ips"]["value"] == pytest.approx(read["logged"]["value"])
    assert read["requests"] == served["request_id"].n_unique()


def test_mistakes(archive: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def said(*arguments: object) -> str:
        return refusal(monkeypatch, capsys, *arguments)

    assert said("report", "x", "--archive", archive) == "engine: experiment: the archive has no exposures of 'x'\n"
    assert "nowhere/exposures: no such directory" in said("report", "worth", "--archive", archive / "nowhere")
    assert "reports.archive: names no directory" in said("report", "worth")
    assert "shares: say nothing of the variant" in said("report", "worth", "--archive", archive, "--shares", "engine=1")
    assert "not like control=10" in said("report", "worth", "--archive", archive, "--shares", "engine")
    assert "not a day like" in said("report", "worth", "--archive", archive, "--from", "yesterday")
    assert "must be one of holm, bh, none" in said("report", "worth", "--archive", archive, "--correction", "x")
    assert "either --archive" in said("plan")
    assert "no such file" in said("ope", "worth", "control", archive / "t.csv", "--archive", archive)
