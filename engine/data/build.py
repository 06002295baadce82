"""A Dataset (positions for ids) from the canonical tables."""

import logging
import time
from pathlib import Path

import numpy as np
import polars as pl

from engine.data.dataset import Dataset, Interactions
from engine.data.rules import TableRules
from engine.data.tables import Tables, read_tables
from engine.errors import DataError
from engine.features.schema import DEMOGRAPHICS
from engine.types import EventType, Int16Array, Int32Array, Int64Array

log = logging.getLogger(__name__)

_EVENT_VOCABULARIES = ("surface", "device", "country")
_EVENT_CODES = {kind.name.lower(): int(kind) for kind in EventType}


def load_dataset(directory: Path, more_items: pl.DataFrame | None = None, rules: TableRules | None = None) -> Dataset:
    """Read, validate and index a data directory; see read_tables for the errors and the arguments."""
    return build_dataset(read_tables(directory, more_items, rules))


def build_dataset(tables: Tables, now_ms: int | None = None) -> Dataset:
    """Give positions to items (table order) and users (table order, then order of appearance), and sort events by time.

    An event after `now_ms` (Unix milliseconds; None: the machine's clock) counts as of then, as one does that reaches
    the log before its own time: nothing that reads a data set can be carried into the future by somebody's clock.
    Events with equal timestamps keep the table's order. An event id that was seen before is the same event delivered
    twice and counts once; events without an id always count.

    Raises:
        DataError: more surfaces, devices or countries than int16 codes.

    Cost: hash joins and one stable sort, O(n log n); memory about 60 bytes an event above the tables.
    """
    events = tables.interactions
    repeated = events["event_id"].is_not_null() & ~events["event_id"].is_first_distinct()
    if repeated.any():
        events = events.filter(~repeated)
    times_ms = _until(events["timestamp_ms"].to_numpy(), time.time_ns() // 1_000_000 if now_ms is None else now_ms)
    order = np.argsort(times_ms, kind="stable")
    users = _all_users(tables.users, events)
    vocabularies = {name: _vocabulary(events[name]) for name in _EVENT_VOCABULARIES}
    codes = {name: _event_codes(events[name], vocabularies[name])[order] for name in _EVENT_VOCABULARIES}
    vocabularies |= {name: _vocabulary(users[name]) for name in DEMOGRAPHICS}
    interactions = Interactions(
        users=_positions(events["user_id"], users["user_id"])[order],
        rows=_positions(events["item_id"], tables.items["item_id"])[order],
        event_types=events["event_type"].replace_strict(_EVENT_CODES, return_dtype=pl.UInt8).to_numpy()[order],
        timestamps_ms=times_ms[order],
        values=events["value"].cast(pl.Float32).fill_null(float("nan")).to_numpy()[order],
        surfaces=codes["surface"],
        devices=codes["device"],
        countries=codes["country"],
    )
    return Dataset(tables.items, users, interactions, vocabularies)


def _until(times_ms: Int64Array, now_ms: int) -> Int64Array:
    ahead = times_ms > now_ms
    if ahead.any():
        log.warning(
            "%d of %d events are of the future, up to %s, and count as of now; look at the clocks and time zones",
            ahead.sum(),
            len(times_ms),
            time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(int(times_ms.max()) // 1000)),
        )
    return np.minimum(times_ms, now_ms)


def _all_users(users: pl.DataFrame, events: pl.DataFrame) -> pl.DataFrame:
    active = events.select(pl.col("user_id").unique(maintain_order=True))
    return pl.concat([users, active.join(users, on="user_id", how="anti", maintain_order="left")], how="diagonal")


def _positions(values: pl.Series, known: pl.Series) -> Int32Array:
    """int32 (n,): the position of each value in `known`, which has each of them once."""
    numbered = pl.DataFrame({"id": known, "position": np.arange(len(known), dtype=np.int32)})
    joined = pl.DataFrame({"id": values}).join(numbered, on="id", how="left", maintain_order="left")
    return joined["position"].to_numpy()


def _vocabulary(values: pl.Series) -> tuple[str, ...]:
    return tuple(values.drop_nulls().unique().sort())


def _event_codes(values: pl.Series, vocabulary: tuple[str, ...]) -> Int16Array:
    if len(vocabulary) >= np.iinfo(np.int16).max:
        raise DataError(f"column {values.name!r}: {len(vocabulary)} different values, fewer than 32767 are supported")
    codes = pl.Series(range(1, len(vocabulary) + 1), dtype=pl.Int16)
    known = pl.Series(vocabulary, dtype=pl.String)
    return values.replace_strict(known, codes, default=0, return_dtype=pl.Int16).to_numpy()
