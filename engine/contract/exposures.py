"""Exposures: what was served, and the messages of the exposure log."""

from typing import Final, NamedTuple

from google.protobuf.message import DecodeError

from engine.contract.times import timestamp_ms
from engine.errors import InvalidRequest, PoisonMessage
from engine.types import DegradedReason, ExperimentAssignment, ItemSource, Recommendation, RecommendQuery, Strategy
from engine_client.v1 import exposure_pb2 as pb

SCHEMA_VERSION: Final = 1

# What is stored of each code of the API.
STRATEGIES: Final = {strategy.value: strategy.name.lower() for strategy in Strategy}
SOURCES: Final = {source.value: source.name.lower() for source in ItemSource}
REASONS: Final = {reason.value: reason.name.lower() for reason in DegradedReason}


class Exposure(NamedTuple):
    """One answer with its request. served_ms: the server's clock, in milliseconds since 1970."""

    query: RecommendQuery
    recommendation: Recommendation
    served_ms: int


class Failure(NamedTuple):
    """One request that failed, not by the caller's fault. error: one of those that exposure.proto names."""

    query: RecommendQuery
    experiments: tuple[ExperimentAssignment, ...]
    failed_ms: int
    error: str


def encode_exposure(exposure: Exposure | Failure) -> bytes:
    """The payload of one message. Cost: about 20 µs for 50 items."""
    query = exposure.query
    logged = pb.LoggedExposure(
        schema_version=SCHEMA_VERSION,
        request_id=query.request_id,
        user_id=query.user_id,
        unit_id=query.unit_id,
        surface=query.surface,
        device=query.device,
        country=query.country,
    )
    logged.time.FromMilliseconds(query.time_ms)
    if isinstance(exposure, Failure):
        logged.error = exposure.error
        logged.served.FromMilliseconds(exposure.failed_ms)
        assigned = exposure.experiments
    else:
        _add_answer(logged, exposure.recommendation)
        logged.served.FromMilliseconds(exposure.served_ms)
        assigned = exposure.recommendation.experiments
    for assignment in assigned:
        logged.experiments.add(
            experiment=assignment.experiment, variant=assignment.variant, overridden=assignment.overridden
        )
    return logged.SerializeToString()


def _add_answer(logged: pb.LoggedExposure, answer: Recommendation) -> None:
    slate = answer.slate
    logged.strategy = answer.strategy.value  # type: ignore[assignment]  # enums are ints at run time
    logged.bundle_version = answer.bundle_version
    logged.degraded_reasons.extend(reason.value for reason in answer.degraded_reasons)  # type: ignore[misc]
    logged.item_ids.extend(answer.item_ids)
    logged.scores.extend(slate.scores.tolist())
    logged.propensities.extend(answer.propensities.tolist())
    logged.sources.extend(slate.sources.tolist())
    logged.stages.extend(timing.stage for timing in answer.timings)
    logged.stage_ms.extend(timing.duration_ms for timing in answer.timings)
    logged.interaction_count = answer.interaction_count


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
    unknown = not exposure.error and exposure.strategy not in STRATEGIES
    if unknown or not REASONS.keys() >= set(exposure.degraded_reasons):
        raise PoisonMessage("a strategy or degraded reason that this engine does not know")
    if not SOURCES.keys() >= set(exposure.sources):
        raise PoisonMessage("sources: one that this engine does not know")
    return exposure
