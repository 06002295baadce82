"""What the importers share: reading foreign CSV files, and what an import returns."""

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from engine.data.tables import Tables
from engine.errors import DataError


@dataclass(frozen=True, slots=True)
class Imported:
    """The tables that were written, and what a person should know about the conversion (one sentence each)."""

    tables: Tables
    notes: tuple[str, ...] = ()


def read_source(directory: Path, name: str, columns: tuple[str, ...]) -> pl.DataFrame:
    """The named columns of `name`.csv or `name`.csv.gz, all as text, empty cells as null.

    Raises:
        DataError: no such directory or file, an unreadable one, or a column that is not in it.
    """
    if not directory.is_dir():
        raise DataError(f"{directory}: no such directory")
    path = find_source(directory, name)
    if path is None:
        raise DataError(f"{directory}: neither {name}.csv nor {name}.csv.gz is there")
    try:
        frame = pl.read_csv(path, infer_schema=False)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{path}: cannot be read: {str(error).splitlines()[0]}") from None
    for column in columns:
        if column not in frame.columns:
            raise DataError(f"{path}: column {column!r} is missing; found: {', '.join(frame.columns)}")
    return frame.select(columns)


def find_source(directory: Path, name: str) -> Path | None:
    """The file of that name in the directory, plain before compressed; None when there is none."""
    return next((path for suffix in (".csv", ".csv.gz") if (path := directory / f"{name}{suffix}").exists()), None)
