"""Logged exposures as the archive keeps them."""

from typing import Any, Final

import polars as pl
from google.protobuf.timestamp_pb2 import Timestamp

from engine.contract.exposures import REASONS, SOURCES, STRATEGIES
from engine.stream.archive import ArchiveLayout
from engine_client.v1 import exposure_pb2 as pb

EXPOSURES_SCHEMA: Final[dict[str, pl.DataType | type[pl.DataType]]] = {
    "request_id": pl.String, "user_id": pl.String, "unit_id": pl.String, "surface": pl.String, "served_ms": pl.Int64,
    "experiments": pl.List(pl.Struct({"experiment": pl.String, "variant": pl.String, "overridden": pl.Boolean})),
    "strategy": pl.String, "bundle_version": pl.String, "degraded_reasons": pl.List(pl.String),
    "item_ids": pl.List(pl.String), "scores": pl.List(pl.Float32), "propensities": pl.List(pl.Float32),
    "sources": pl.List(pl.String),
    "stages": pl.List(pl.Struct({"stage": pl.String, "duration_ms": pl.Float64})), "total_ms": pl.Float64,
    "device": pl.String, "country": pl.String, "interaction_count": pl.Int64,
    "partition": pl.Int32, "offset": pl.Int64,
    # After the position in the log, since archives from before have no such columns.
    "time_ms": pl.Int64, "error": pl.String,
}  # fmt: skip
_TOTAL: Final = "total"


def to_row(partition: int, offset: int, exposure: pb.LoggedExposure) -> tuple[Any, ...]:
    """One row of EXPOSURES_SCHEMA; an empty string is null where the API leaves it to the caller."""
    stages = [
        {"stage": stage, "duration_ms": duration_ms}
        for stage, duration_ms in zip(exposure.stages, exposure.stage_ms, strict=True)
    ]
    return (
        exposure.request_id,
        exposure.user_id or None,
        exposure.unit_id,
        exposure.surface,
        served_ms(exposure),
        [
            {"experiment": one.experiment, "variant": one.variant, "overridden": one.overridden}
            for one in exposure.experiments
        ],
        STRATEGIES.get(exposure.strategy),
        exposure.bundle_version or None,
        [REASONS[reason] for reason in exposure.degraded_reasons],
        list(exposure.item_ids),
        list(exposure.scores),
        list(exposure.propensities),
        [SOURCES[source] for source in exposure.sources],
        stages,
        next((stage["duration_ms"] for stage in stages if stage["stage"] == _TOTAL), None),
        exposure.device or None,
        exposure.country or None,
        exposure.interaction_count,
        partition,
        offset,
        _ms(exposure.time) if exposure.HasField("time") else None,
        exposure.error or None,
    )


def served_ms(exposure: pb.LoggedExposure) -> int:
    """Milliseconds since 1970 at which the answer was ready."""
    return _ms(exposure.served)


def _ms(moment: Timestamp) -> int:
    return moment.seconds * 1000 + moment.nanos // 1_000_000


EXPOSURES_LAYOUT: Final[ArchiveLayout[pb.LoggedExposure]] = ArchiveLayout(EXPOSURES_SCHEMA, to_row, served_ms)
