"""The three canonical tables on disk: reading with validation, writing.

A data directory holds `interactions`, `items` and, optionally, `users`, each as .parquet, .csv or .csv.gz. Beside or
instead of `interactions` a directory `events` may hold the archived event log, which continues it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from engine.data.files import read_frame as read_frame
from engine.data.inspect import SUFFIXES, inspect_directory, inspect_frames
from engine.data.inspect import Tables as Tables
from engine.data.rules import TableRules
from engine.data.schema import INTERACTIONS, ITEMS, USERS
from engine.errors import DataError


@dataclass(frozen=True, slots=True)
class Imported:
    """The tables that were written, and what a user should know about the conversion (one sentence each)."""

    tables: Tables
    notes: tuple[str, ...] = ()


def make_tables(
    interactions: pl.DataFrame,
    items: pl.DataFrame,
    users: pl.DataFrame | None = None,
    sources: Mapping[str, str] | None = None,
    rules: TableRules | None = None,
) -> Tables:
    """Tables from frames in memory, by the rules of read_tables; without `rules` they may name any surface.

    `sources` says what an error calls each table, e.g. the file that it was converted from.
    """
    frames = {INTERACTIONS.name: interactions, ITEMS.name: items, USERS.name: users}
    names = {name: f"table {name}" for name in frames} | dict(sources or {})
    rules = rules or replace(TableRules.default(), surfaces=None)
    return inspect_frames(frames, names, rules).usable(rules.skip_bad_rows)


def read_tables(directory: Path, more_items: pl.DataFrame | None = None, rules: TableRules | None = None) -> Tables:
    """Read and validate the tables of a data directory.

    Args:
        more_items: canonical columns of items that the item table need not have, e.g. those that came while serving;
            of an item in both, the table's row counts. One that breaks the rules is left out, and the log says so.
        rules: what a deployment decides; none: what one decides that sets nothing.

    Raises:
        DataError: for a missing, unreadable, ambiguous or empty file; a missing or unknown column; values that are
            null, unparsable, out of range or repeated where they may not be; an interaction with an item that the
            item table does not have. The text names the file, the column, the first bad row and its value, and how
            many more problems there are.

    Cost: one read of each file and a few passes over each column; memory about twice the tables.
    """
    rules = rules or TableRules.default()
    return inspect_directory(directory, rules, more_items).usable(rules.skip_bad_rows, directory)


def write_tables(tables: Tables, directory: Path) -> None:
    """Write the tables as Parquet (zstd), each replaced in one step; the directory is made when absent.

    Raises DataError when it cannot be written, or when it already holds one of the tables in another format, which
    would make it ambiguous.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _write_all(tables, directory)
    except OSError as error:
        raise DataError(f"{directory}: cannot be written: {error.strerror or error}") from None


def _write_all(tables: Tables, directory: Path) -> None:
    for name in (INTERACTIONS.name, ITEMS.name, USERS.name):
        for suffix in SUFFIXES[1:]:
            other = directory / f"{name}{suffix}"
            if other.exists():
                raise DataError(f"{other}: in the way of {name}.parquet; remove it or choose another directory")
    for name, frame in (
        (INTERACTIONS.name, tables.interactions), (ITEMS.name, tables.items), (USERS.name, tables.users),
    ):  # fmt: skip
        partial = directory / f".{name}.parquet.partial"
        frame.write_parquet(partial, compression="zstd")
        partial.replace(directory / f"{name}.parquet")
