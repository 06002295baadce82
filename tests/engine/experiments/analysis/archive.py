"""Archives written by hand: exposures and events with the columns that the engine archives."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from engine.stream.archive import ARCHIVE_SCHEMA

EXPOSURE_SCHEMA = {
    "request_id": pl.String, "user_id": pl.String, "unit_id": pl.String, "surface": pl.String, "served_ms": pl.Int64,
    "experiments": pl.List(pl.Struct({"experiment": pl.String, "variant": pl.String, "overridden": pl.Boolean})),
    "strategy": pl.String, "bundle_version": pl.String, "degraded_reasons": pl.List(pl.String),
    "item_ids": pl.List(pl.String), "scores": pl.List(pl.Float32), "propensities": pl.List(pl.Float32),
    "sources": pl.List(pl.String), "stages": pl.List(pl.Struct({"stage": pl.String, "duration_ms": pl.Float64})),
    "total_ms": pl.Float64, "device": pl.String, "country": pl.String, "interaction_count": pl.Int64,
    "partition": pl.Int32, "offset": pl.Int64, "time_ms": pl.Int64, "error": pl.String,
}  # fmt: skip
# 2026-03-02T00:00:00Z, a Monday.
START_MS = 1_772_409_600_000
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS

_numbers = itertools.count()


def exposure(user: str, variant: str, ms: int, **fields: Any) -> dict[str, Any]:
    """One exposure in the experiment "worth", of three items unless told otherwise."""
    number = next(_numbers)
    overridden = fields.pop("overridden", False)
    items = fields.get("item_ids", ["a", "b", "c"])
    return {
        "request_id": f"request-{number}", "user_id": user, "unit_id": user, "surface": "home", "served_ms": ms,
        "experiments": [{"experiment": "worth", "variant": variant, "overridden": overridden}],
        "strategy": "personalized", "bundle_version": "v1", "degraded_reasons": [], "item_ids": items,
        "scores": [1.0] * len(items), "propensities": [1.0] * len(items), "sources": ["retrieval"] * len(items),
        "stages": [{"stage": "rank", "duration_ms": 1.0}], "total_ms": 5.0, "device": "mobile", "country": "DE",
        "interaction_count": 10, "partition": 0, "offset": number, "time_ms": ms, "error": None, **fields,
    }  # fmt: skip


def event(user: str, kind: str, item: str, ms: int, **fields: Any) -> dict[str, Any]:
    """One event; pass request_id for one that names its exposure."""
    number = next(_numbers)
    return {
        "user_id": user, "item_id": item, "event_type": kind, "timestamp_ms": ms, "event_id": f"event-{number}",
        "received_ms": ms, "partition": 0, "offset": number, **fields,
    }  # fmt: skip


def write(archive: Path, exposures: Sequence[Mapping[str, Any]], events: Iterable[Mapping[str, Any]] = ()) -> Path:
    """Both into the archive's layout, by the hour of arrival; returns the archive."""
    _write(archive / "exposures", "engine.exposures.v1", exposures, EXPOSURE_SCHEMA, "served_ms")
    _write(archive / "events", "engine.events.v1", events, ARCHIVE_SCHEMA, "received_ms")
    return archive


def _write(directory: Path, name: str, rows: Iterable[Mapping[str, Any]], schema: Any, arrival: str) -> None:
    frame = pl.DataFrame(list(rows), schema=schema)
    moment = pl.from_epoch(arrival, time_unit="ms")
    for (hour,), part in frame.group_by(moment.dt.strftime("%Y-%m-%d/%H")):
        (directory / str(hour)).mkdir(parents=True, exist_ok=True)
        first, last = part["offset"].min(), part["offset"].max()
        part.write_parquet(directory / str(hour) / f"{name}-0-{first:012d}-{last:012d}.parquet")
