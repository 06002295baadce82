"""`engine import movielens` and `engine import completejourney`: public data sets into canonical tables."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from engine.cli.summary import print_summary
from engine_bench.datasets.completejourney import import_completejourney
from engine_bench.datasets.movielens import import_movielens

_Source = Annotated[Path, typer.Argument(metavar="DIR", help="Directory with the data set's .csv or .csv.gz files.")]
_Out = Annotated[Path, typer.Argument(metavar="OUT", help="Directory to write the tables to.")]


def movielens(source: _Source, out: _Out) -> None:
    """MovieLens: ratings.csv, movies.csv and, if there, tags.csv."""
    imported = import_movielens(source, out)
    print_summary(Console(), imported.tables, out, imported.notes)


def completejourney(source: _Source, out: _Out) -> None:
    """The Complete Journey: transactions_sample.csv, products.csv and, if there, demographics.csv."""
    imported = import_completejourney(source, out)
    print_summary(Console(), imported.tables, out, imported.notes)
