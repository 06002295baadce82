"""What the importers share: reading foreign CSV files."""

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from engine.data.faults import row_fault
from engine.data.files import read_frame
from engine.data.schema import TableSchema
from engine.data.validate import inspect
from engine.errors import DataError


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
    inspected = inspect(frame.select(known), schema, str(path))
    if inspected.faults:
        raise DataError(str(inspected.faults[0]))
    return SourceTable(str(path), inspected.frame)


def refuse_first(bad: pl.Series, values: pl.Series, source: str, reason: str) -> None:
    """Raise DataError at the first true of `bad` (bool (n,), null is false), showing that row's value."""
    fault = row_fault(bad, values, source, reason)
    if fault is not None:
        raise DataError(str(fault))
