"""`engine import movielens` and `completejourney`: each writes tables and says what it wrote."""

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from engine.data.tables import read_tables
from engine.errors import DataError
from engine_bench.commands.datasets import completejourney
from engine_bench.commands.datasets import movielens as import_movielens

RATINGS = "userId,movieId,rating,timestamp\n1,20,4.0,1000000000\n2,20,5.0,1100000000\n"
MOVIES = "movieId,title,genres\n20,Heat (1995),Action\n30,Alien (1979),Horror\n"


app = typer.Typer()
app.command("movielens")(import_movielens)
app.command()(completejourney)


@pytest.fixture
def movielens(tmp_path: Path) -> Path:
    source = tmp_path / "in"
    source.mkdir()
    (source / "ratings.csv").write_text(RATINGS)
    (source / "movies.csv").write_text(MOVIES)
    return source


def test_movielens_writes_tables_and_a_summary(movielens: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["movielens", str(movielens), str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert read_tables(tmp_path / "out").interactions.height == 2
    words = result.output.split()
    for expected in ("items", "interactions", "click", "2001-09-09", "2004-11-09"):
        assert expected in words
    assert f"Written to {tmp_path / 'out'}" in result.output


def test_wrong_source_raises_one_sentence(movielens: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["completejourney", str(movielens), str(tmp_path / "out")])
    assert isinstance(result.exception, DataError)
    assert str(movielens) in str(result.exception)
    assert not (tmp_path / "out").exists()


@pytest.mark.shared_data
def test_completejourney_says_what_it_dropped(shared_data: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["completejourney", str(shared_data / "completejourney"), str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "416 lines without a positive quantity dropped" in result.output
    assert "74,583" in result.output
