"""The tables of a data directory, with everything that is wrong with them.

The archived event log counts as interactions: what the stream processor writes is what training reads.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import polars as pl

from engine.data.faults import Fault, row_fault, summary
from engine.data.files import Unreadable, read_frame
from engine.data.rules import TableRules
from engine.data.schema import INTERACTIONS, ITEMS, USERS, TableSchema
from engine.data.validate import Inspected, inspect, unknown_items
from engine.errors import DataError

log = logging.getLogger(__name__)

EVENTS_DIRECTORY: Final = "events"


def read_event_log(directory: Path, items: pl.DataFrame, rules: TableRules) -> pl.DataFrame:
    """The interactions of an archive (engine.stream.archive), canonical columns, in the order of the log.

    An event that a client sent twice is there once. Events of items that the item table does not have, and whatever
    the API would have refused, are left out and counted in the log: a client's mistake must not stop training.

    Args:
        directory: holds *.parquet, at any depth. items: canonical. rules: all but the surfaces.

    Raises:
        DataError: a file cannot be read.
    """
    files = sorted(directory.rglob("*.parquet"))
    if not files:
        return pl.DataFrame(schema=INTERACTIONS.polars)
    try:
        frame = pl.read_parquet(files, glob=False, hive_partitioning=False)
        frame = frame.sort("received_ms", "partition", "offset").select(list(INTERACTIONS.polars))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{directory}: cannot be read: {str(error).splitlines()[0]}") from None
    events = frame.unique("event_id", keep="first", maintain_order=True)
    # Which surfaces there were, the server knew that took the event in; today's settings may be others.
    judged = inspect(events, INTERACTIONS, str(directory), replace(rules, surfaces=None))
    unknown = unknown_items(judged.frame, items)
    good = judged.frame.filter(~(judged.bad | unknown))
    for fault in judged.faults:
        if fault.count:
            log.warning("left out %d events: %s", fault.count, fault)
    if unknown.any():
        log.warning("%s: left out %d of %d events, of no known item", directory, unknown.sum(), len(events))
    return good


log = logging.getLogger(__name__)

SUFFIXES = (".parquet", ".csv", ".csv.gz")
_ORDER = (ITEMS, INTERACTIONS, USERS)


@dataclass(frozen=True, slots=True)
class Tables:
    """Validated tables with every canonical column (engine.data.schema), null where nothing is known."""

    interactions: pl.DataFrame
    items: pl.DataFrame
    users: pl.DataFrame


@dataclass(frozen=True, slots=True)
class Inspection:
    """What was found. frames: by table, every row, null where a value could not be used. bad: bool (n,) by table, the
    rows that a fault names. faults: in the order in which the tables were read. logged: events of the archive, good
    ones, which come after those of the table.
    """

    frames: Mapping[str, pl.DataFrame]
    bad: Mapping[str, pl.Series]
    faults: tuple[Fault, ...]
    logged: pl.DataFrame

    @property
    def bad_rows(self) -> int:
        return sum(int(bad.sum()) for bad in self.bad.values())

    def usable(self, skip_bad_rows: int = 0, directory: Path | None = None) -> Tables:
        """The tables, where nothing is wrong or so few rows are that they may be left out.

        Raises DataError with the first fault and how many more there are.
        """
        if not all(fault.of_rows for fault in self.faults) or self.bad_rows > skip_bad_rows:
            where = "" if directory is None else str(directory)
            raise DataError(summary(self.faults, where))
        for fault in self.faults:
            log.warning("left out %d rows: %s", fault.count, fault)
        return self.good()

    def good(self) -> Tables:
        """The rows that nothing is wrong with, and no events of items that were left out."""
        interactions, items, users = (
            self.frames[schema.name].filter(~self.bad[schema.name]) for schema in (INTERACTIONS, ITEMS, USERS)
        )
        if self.bad[ITEMS.name].any():
            known = interactions.filter(~unknown_items(interactions, items))
            log.warning("left out %d events of items that were left out", len(interactions) - len(known))
            interactions = known
        return Tables(pl.concat([interactions, self.logged]), items, users)


def inspect_directory(directory: Path, rules: TableRules, more_items: pl.DataFrame | None = None) -> Inspection:
    """Read every table of a data directory and judge it; see engine.data.tables.read_tables.

    Raises DataError for no such directory alone: all else is a fault.
    """
    if not directory.is_dir():
        raise DataError(f"{directory}: no such directory")
    events = directory / EVENTS_DIRECTORY
    found: dict[str, Inspected] = {}
    sources: dict[str, str] = {}
    for schema in _ORDER:
        may_be_absent = schema.may_be_absent or (schema is INTERACTIONS and events.is_dir())
        found[schema.name], sources[schema.name] = _read(directory, schema, may_be_absent, rules)
    if more_items is not None and more_items.height:
        found[ITEMS.name] = _with_more(found[ITEMS.name], more_items, rules)
    logged, faults = _logged(events, found[ITEMS.name].frame, rules)
    interactions = found[INTERACTIONS.name]
    if events.is_dir() and interactions.frame.is_empty() and logged.is_empty() and not faults:
        faults = (Fault(str(events), None, "the table has no rows"),)
    return _inspection(found, sources, logged, faults)


def inspect_frames(
    frames: Mapping[str, pl.DataFrame | None], sources: Mapping[str, str], rules: TableRules
) -> Inspection:
    """The same for tables in memory."""
    found = {schema.name: _inspect(frames[schema.name], schema, sources[schema.name], rules) for schema in _ORDER}
    return _inspection(found, sources, _nothing(INTERACTIONS), ())


def _inspection(
    found: dict[str, Inspected], sources: Mapping[str, str], logged: pl.DataFrame, faults: tuple[Fault, ...]
) -> Inspection:
    items, interactions = found[ITEMS.name], found[INTERACTIONS.name]
    # Of items that could not be read at all, every event would seem to be unknown.
    if items.frame.height:
        unknown = unknown_items(interactions.frame, items.frame)
        reason = f"no such item in {sources[ITEMS.name]}"
        fault = row_fault(unknown, interactions.frame["item_id"], sources[INTERACTIONS.name], reason)
        if fault is not None:
            found[INTERACTIONS.name] = Inspected(
                interactions.frame, interactions.bad | unknown, (*interactions.faults, fault)
            )
    return Inspection(
        frames={name: one.frame for name, one in found.items()},
        bad={name: one.bad for name, one in found.items()},
        faults=(*(fault for one in found.values() for fault in one.faults), *faults),
        logged=logged,
    )


def _read(directory: Path, schema: TableSchema, may_be_absent: bool, rules: TableRules) -> tuple[Inspected, str]:
    """One table and the name of its file."""
    try:
        path = _find(directory, schema)
        if path is None and not may_be_absent:
            wanted = f"{schema.name}{{{','.join(SUFFIXES)}}}"
            raise Unreadable(Fault(str(directory), None, f"no {schema.name} table; wanted is one of {wanted}"))
        frame = None if path is None else read_frame(path)
    except Unreadable as error:
        return Inspected(_nothing(schema), _no_rows(), error.faults), schema.name
    source = schema.name if path is None else str(path)
    return _inspect(frame, schema, source, rules), source


def _inspect(frame: pl.DataFrame | None, schema: TableSchema, source: str, rules: TableRules) -> Inspected:
    if frame is None:
        return Inspected(_nothing(schema), _no_rows(), ())
    return inspect(frame, schema, source, rules)


def _with_more(items: Inspected, more_items: pl.DataFrame, rules: TableRules) -> Inspected:
    """The item table, followed by the valid items of `more_items` that it does not have."""
    more = inspect(more_items, ITEMS, "the catalogue overlay", rules)
    for fault in more.faults:
        log.warning("left out %d items: %s", fault.count, fault)
    new = more.frame.filter(~more.bad).join(items.frame, on="item_id", how="anti", maintain_order="left")
    bad = pl.concat([items.bad, pl.repeat(False, new.height, dtype=pl.Boolean, eager=True)])
    return Inspected(pl.concat([items.frame, new]), bad, items.faults)


def _logged(events: Path, items: pl.DataFrame, rules: TableRules) -> tuple[pl.DataFrame, tuple[Fault, ...]]:
    if not events.is_dir():
        return _nothing(INTERACTIONS), ()
    try:
        return read_event_log(events, items, rules), ()
    except DataError as error:
        return _nothing(INTERACTIONS), (Fault(str(events), None, str(error).removeprefix(f"{events}: ")),)


def _nothing(schema: TableSchema) -> pl.DataFrame:
    return pl.DataFrame(schema=schema.polars)


def _no_rows() -> pl.Series:
    return pl.Series("bad", [], pl.Boolean)


def _find(directory: Path, schema: TableSchema) -> Path | None:
    found = [path for suffix in SUFFIXES if (path := directory / f"{schema.name}{suffix}").exists()]
    if len(found) > 1:
        reason = f"both {found[0].name} and {found[1].name} are there; keep one of them"
        raise Unreadable(Fault(str(directory), None, reason))
    return found[0] if found else None
