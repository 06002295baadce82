"""What the importers share: reading foreign CSV files, and what an import returns."""

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from engine.data.files import read_frame
from engine.data.schema import TableSchema
from engine.data.tables import Tables
from engine.data.validate import conform
from engine.errors import DataError


@dataclass(frozen=True, slots=True)
class Imported:
    """The tables that were written, and what a person should know about the conversion (one sentence each)."""

    tables: Tables
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SourceTable:
    """A foreign table, checked: `path` is the file (or the name, when an optional one is absent)."""

    path: str
    frame: pl.DataFrame


def read_source(directory: Path, schema: TableSchema) -> SourceTable:
    """The schema's columns of `{schema.name}.csv` or `.csv.gz`, parsed and checked; other columns are left out.

    Raises:
        DataError: no such directory or file, an unreadable one, or a column or value that is not as the schema says.
    """
    if not directory.is_dir():
        raise DataError(f"{directory}: no such directory")
    names = (f"{schema.name}.csv", f"{schema.name}.csv.gz")
    path = next((directory / name for name in names if (directory / name).exists()), None)
    if path is None and schema.may_be_absent:
        return SourceTable(schema.name, pl.DataFrame(schema=schema.polars))
    if path is None:
        raise DataError(f"{directory}: neither {' nor '.join(names)} is there")
    frame = read_frame(path)
    known = [name for name in frame.columns if name in schema.polars]
    return SourceTable(str(path), conform(frame.select(known), schema, str(path)))
