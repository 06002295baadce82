"""`engine synth` writes a world of the sizes asked for."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from engine.data.tables import read_tables
from engine_bench.commands.synth import synth

app = typer.Typer()
app.command()(synth)


def test_sizes_period_and_summary(tmp_path: Path) -> None:
    sizes = ["--items", "300", "--users", "40", "--events", "2000", "--seed", "2"]
    options = [*sizes, "--days", "10", "--until", "2025-03-01"]
    result = CliRunner().invoke(app, [str(tmp_path / "out"), *options])
    assert result.exit_code == 0, result.output
    tables = read_tables(tmp_path / "out")
    assert (tables.items.height, tables.users.height) == (300, 40)
    assert 2000 <= tables.interactions.height < 2250
    first, last = tables.interactions["timestamp_ms"].min(), tables.interactions["timestamp_ms"].max()
    assert first >= datetime(2025, 2, 19, tzinfo=UTC).timestamp() * 1000
    assert last < datetime(2025, 3, 1, tzinfo=UTC).timestamp() * 1000
    assert f"{tables.interactions.height:,}" in result.output
    assert "purchase" in result.output


@pytest.mark.parametrize("wrong", [["--items", "0"], ["--users", "many"], ["--until", "soon"], ["--days", "-1"]])
def test_impossible_options_are_refused(tmp_path: Path, wrong: list[str]) -> None:
    result = CliRunner().invoke(app, [str(tmp_path / "out"), *wrong])
    assert result.exit_code == 2
    assert not (tmp_path / "out").exists()
