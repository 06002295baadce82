"""The three canonical tables on disk: reading with validation, writing.

A data directory holds `interactions`, `items` and, optionally, `users`, each as .parquet, .csv or .csv.gz. Beside or
instead of `interactions` a directory `events` may hold the archived event log, which continues it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from engine.data.event_log import EVENTS_DIRECTORY, read_event_log
from engine.data.schema import INTERACTIONS, ITEMS, USERS, TableSchema
from engine.data.validate import check_references, conform
from engine.errors import DataError

_SUFFIXES = (".parquet", ".csv", ".csv.gz")


@dataclass(frozen=True, slots=True)
class Tables:
    """Validated tables with every canonical column (engine.data.schema), null where nothing is known."""

    interactions: pl.DataFrame
    items: pl.DataFrame
    users: pl.DataFrame


def make_tables(
    interactions: pl.DataFrame,
    items: pl.DataFrame,
    users: pl.DataFrame | None = None,
    sources: Mapping[str, str] | None = None,
) -> Tables:
    """Tables from frames in memory, by the rules of read_tables.

    `sources` says what an error calls each table, e.g. the file that it was converted from.
    """
    frames = {INTERACTIONS.name: interactions, ITEMS.name: items, USERS.name: users}
    return _conform_all(frames, {name: f"table {name}" for name in frames} | dict(sources or {}))


def read_tables(directory: Path, more_items: pl.DataFrame | None = None) -> Tables:
    """Read and validate the tables of a data directory.

    Args:
        more_items: canonical columns of items that the item table need not have, e.g. those that came while serving;
            of an item in both, the table's row counts.

    Raises:
        DataError: for a missing, unreadable, ambiguous or empty file; a missing or unknown column; values that are
            null, unparsable, out of range or repeated where they may not be; an interaction with an item that the
            item table does not have. The text names the file, the column, the first bad row and its value.

    Cost: one read of each file and a few passes over each column; memory about twice the tables.
    """
    if not directory.is_dir():
        raise DataError(f"{directory}: no such directory")
    frames: dict[str, pl.DataFrame | None] = {}
    sources: dict[str, str] = {}
    events = directory / EVENTS_DIRECTORY
    for schema in (ITEMS, INTERACTIONS, USERS):
        path = _find(directory, schema, schema.may_be_absent or (schema is INTERACTIONS and events.is_dir()))
        frames[schema.name] = None if path is None else read_frame(path)
        sources[schema.name] = schema.name if path is None else str(path)
    if more_items is not None and more_items.height:
        known = conform(_present(frames[ITEMS.name]), ITEMS, sources[ITEMS.name])
        frames[ITEMS.name] = pl.concat([known, more_items.join(known, on="item_id", how="anti", maintain_order="left")])
    if events.is_dir():
        frames[INTERACTIONS.name] = _continue(frames, sources, events)
    return _conform_all(frames, sources)


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
        for suffix in _SUFFIXES[1:]:
            other = directory / f"{name}{suffix}"
            if other.exists():
                raise DataError(f"{other}: in the way of {name}.parquet; remove it or choose another directory")
    for name, frame in (
        (INTERACTIONS.name, tables.interactions), (ITEMS.name, tables.items), (USERS.name, tables.users),
    ):  # fmt: skip
        partial = directory / f".{name}.parquet.partial"
        frame.write_parquet(partial, compression="zstd")
        partial.replace(directory / f"{name}.parquet")


def _conform_all(frames: dict[str, pl.DataFrame | None], sources: dict[str, str]) -> Tables:
    conformed = {}
    for schema in (ITEMS, INTERACTIONS, USERS):
        frame = frames[schema.name]
        conformed[schema.name] = conform(
            pl.DataFrame(schema=schema.polars) if frame is None else frame, schema, sources[schema.name]
        )
    tables = Tables(conformed[INTERACTIONS.name], conformed[ITEMS.name], conformed[USERS.name])
    check_references(tables.interactions, tables.items, sources[INTERACTIONS.name], sources[ITEMS.name])
    return tables


def _continue(frames: dict[str, pl.DataFrame | None], sources: dict[str, str], events: Path) -> pl.DataFrame:
    """The interactions of the table, if there is one, and then those of the event log."""
    table = frames[INTERACTIONS.name]
    logged = read_event_log(events, conform(_present(frames[ITEMS.name]), ITEMS, sources[ITEMS.name]))
    if table is None:
        sources[INTERACTIONS.name] = str(events)
        return logged
    return pl.concat([conform(table, INTERACTIONS, sources[INTERACTIONS.name]), logged])


def _present(items: pl.DataFrame | None) -> pl.DataFrame:
    assert items is not None  # _find has seen to it
    return items


def _find(directory: Path, schema: TableSchema, may_be_absent: bool) -> Path | None:
    found = [path for suffix in _SUFFIXES if (path := directory / f"{schema.name}{suffix}").exists()]
    if len(found) > 1:
        raise DataError(f"{directory}: both {found[0].name} and {found[1].name} are there; keep one of them")
    if found:
        return found[0]
    if may_be_absent:
        return None
    raise DataError(f"{directory}: no {schema.name} table; wanted is one of {schema.name}{{{','.join(_SUFFIXES)}}}")


def read_frame(path: Path) -> pl.DataFrame:
    """The raw columns of one file; CSV as text throughout, so that conversion can name the row that fails.

    Empty lines at the end of a CSV file are no rows. Raises DataError when the file cannot be read.
    """
    try:
        if path.suffix == ".parquet":
            return pl.read_parquet(path, glob=False)
        frame = pl.read_csv(path, infer_schema=False, glob=False)
    except pl.exceptions.NoDataError:
        raise DataError(f"{path}: the file is empty") from None
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{path}: cannot be read: {str(error).splitlines()[0]}") from None
    filled = frame.select(~pl.all_horizontal(pl.all().is_null())).to_series().arg_true()
    return frame.head(filled[-1] + 1 if len(filled) else 0)
