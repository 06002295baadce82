"""Logged exposures as the archive keeps them."""

from typing import Any, Final

import polars as pl
from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp

from engine.contract.times import timestamp_ms
from engine.errors import InvalidRequest, PoisonMessage
from engine.stream.archive import ArchiveLayout
from engine.types import DegradedReason, ItemSource, Strategy
from engine.v1 import exposure_pb2 as pb

SCHEMA_VERSION: Final = 1

EXPOSURES_SCHEMA: Final[dict[str, pl.DataType | type[pl.DataType]]] = {
    "request_id": pl.String, "user_id": pl.String, "unit_id": pl.String, "surface": pl.String, "served_ms": pl.Int64,
    "experiments": pl.List(pl.Struct({"experiment": pl.String, "variant": pl.String, "overridden": pl.Boolean})),
    "strategy": pl.String, "bundle_version": pl.String, "degraded_reasons": pl.List(pl.String),
    "item_ids": pl.List(pl.String), "scores": pl.List(pl.Float32), "propensities": pl.List(pl.Float32),
    "sources": pl.List(pl.String),
    "stages": pl.List(pl.Struct({"stage": pl.String, "duration_ms": pl.Float64})), "total_ms": pl.Float64,
    "device": pl.String, "country": pl.String, "interaction_count": pl.Int64,
    "partition": pl.Int32, "offset": pl.Int64,
    # Behind the place in the log, since archives from before have no such columns.
    "time_ms": pl.Int64, "error": pl.String,
}  # fmt: skip
_STRATEGIES: Final = {strategy.value: strategy.name.lower() for strategy in Strategy}
_SOURCES: Final = {source.value: source.name.lower() for source in ItemSource}
_REASONS: Final = {reason.value: reason.name.lower() for reason in DegradedReason}
_TOTAL: Final = "total"


def decode_exposure(payload: bytes) -> pb.LoggedExposure:
    """The exposure of one message, complete.

    Raises:
        PoisonMessage: not a LoggedExposure, of another schema version, without request, unit, surface or time, with
            lists of different lengths, or with a code that this engine does not know.

    Cost: about 15 µs for 50 items.
    """
    try:
        exposure = pb.LoggedExposure.FromString(payload)
    except DecodeError as error:
        raise PoisonMessage("not a LoggedExposure message") from error
    if exposure.schema_version != SCHEMA_VERSION:
        raise PoisonMessage(f"schema version {exposure.schema_version}; this engine reads version {SCHEMA_VERSION}")
    for name in ("request_id", "unit_id", "surface"):
        if not getattr(exposure, name):
            raise PoisonMessage(f"{name}: is required")
    try:
        timestamp_ms("served", exposure.served if exposure.HasField("served") else None)
    except InvalidRequest as error:
        raise PoisonMessage(str(error)) from error
    count = len(exposure.item_ids)
    for name in ("scores", "propensities", "sources"):
        if len(getattr(exposure, name)) != count:
            raise PoisonMessage(f"{name}: {len(getattr(exposure, name))} for {count} items")
    if len(exposure.stages) != len(exposure.stage_ms):
        raise PoisonMessage(f"stage_ms: {len(exposure.stage_ms)} for {len(exposure.stages)} stages")
    unknown = not exposure.error and exposure.strategy not in _STRATEGIES
    if unknown or not _REASONS.keys() >= set(exposure.degraded_reasons):
        raise PoisonMessage("a strategy or degraded reason that this engine does not know")
    if not _SOURCES.keys() >= set(exposure.sources):
        raise PoisonMessage("sources: one that this engine does not know")
    return exposure


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
        _STRATEGIES.get(exposure.strategy),
        exposure.bundle_version or None,
        [_REASONS[reason] for reason in exposure.degraded_reasons],
        list(exposure.item_ids),
        list(exposure.scores),
        list(exposure.propensities),
        [_SOURCES[source] for source in exposure.sources],
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
