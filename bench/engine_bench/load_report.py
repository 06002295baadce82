"""Figures of load runs, and which targets they meet."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from engine.errors import ConfigError
from engine_bench.load_driver import Record, Status
from engine_bench.targets import TAIL, TAIL_NAME, Target, stage_targets

# A generator whose p99 of lateness is above this was not the load that was asked for.
LATENESS_LIMIT_MS = 5.0
# Of what callers wait for, what gRPC alone takes and the stages together account for at least so much.
EXPLAINED_AT_LEAST = 0.9
_PERCENTILES = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99.9": 99.9}
_LONGEST_US, _DIGITS = 60_000_000, 3


def require_histogram() -> Any:
    """The class HdrHistogram. Raises ConfigError where its package is not installed."""
    try:
        from hdrh.histogram import HdrHistogram
    except ImportError:
        raise ConfigError(
            "the load bench needs the package hdrhistogram, which comes with the bench: pip install ./bench"
        ) from None
    return HdrHistogram


def figures(record: Record, lateness_limit_ms: float = LATENESS_LIMIT_MS) -> dict[str, Any]:
    """What one run came to; times in milliseconds.

    Latencies are those of good answers to requests without debug, from the moment that they were due. What failed is
    beside them, by status, and counts for all requests; so does `valid`: whether the generator kept the schedule.
    """
    schedule = record.schedule
    plain = record.ok & ~schedule.debug
    histogram = require_histogram()(1, _LONGEST_US, _DIGITS)
    for micros in np.maximum(record.latency_ms[plain] * 1000.0, 1.0).astype(np.int64).tolist():
        histogram.record_value(min(micros, _LONGEST_US))
    latency: dict[str, float] = {}
    if plain.any():
        longest = round(float(record.latency_ms[plain].max()), 2)
        # The histogram's values are the upper ends of its cells, which may lie above anything that was measured.
        latency = {
            name: min(round(histogram.get_value_at_percentile(percent) / 1000.0, 2), longest)
            for name, percent in _PERCENTILES.items()
        } | {"max": longest}
    lateness_ms = float(np.percentile(record.lateness_ms, 99))
    errors = {
        status.name.lower(): count
        for status in Status
        if status is not Status.OK and (count := int((record.status == status).sum()))
    }
    ok = int(record.ok.sum())
    return {
        "arrivals": schedule.arrivals,
        "rate_asked": round(schedule.rate, 1),
        "rate_reached": round(record.answered_per_s(), 1),
        "seconds": schedule.seconds,
        "requests": len(schedule),
        "valid": lateness_ms <= lateness_limit_ms,
        "lateness_p99_ms": round(lateness_ms, 2),
        "latency_ms": latency,
        "errors": errors,
        "degraded_share": round(float(record.degraded.sum()) / ok, 4) if ok else 0.0,
        "stages_ms": stage_figures(record),
        "histogram": histogram.encode().decode(),
    }


def stage_figures(record: Record) -> dict[str, dict[str, float]]:
    """p50 and p99 of each stage on the server, over the answers that say them.

    "sum" is all stages of one answer together, the tail's name those after ranking. The server's own "total" has the
    explanation in it, which only these answers get and which no stage is part of.
    """
    return stage_percentiles(record.stages_ms.values())


def stage_percentiles(answers: Iterable[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """p50 and p99 of each stage over answers that say what their stages took, all in milliseconds.

    "sum" and TAIL_NAME are as `stage_figures` says.
    """
    samples: dict[str, list[float]] = {}
    for stages in answers:
        for stage, milliseconds in stages.items():
            samples.setdefault(stage, []).append(milliseconds)
        samples.setdefault("sum", []).append(sum(value for stage, value in stages.items() if stage != "total"))
        if all(stage in stages for stage in TAIL):
            samples.setdefault(TAIL_NAME, []).append(sum(stages[stage] for stage in TAIL))
    return {
        stage: {"p50": round(float(np.percentile(values, 50)), 3), "p99": round(float(np.percentile(values, 99)), 3)}
        for stage, values in samples.items()
    }


def unloaded_targets(unloaded: dict[str, Any], floor: dict[str, Any]) -> list[Target]:
    """The targets of the unloaded run. floor: the figures of the same run against a service that does nothing."""
    share = explained_share(unloaded, floor)
    name = "floor and stages, share of the unloaded p50"
    return [*stage_targets(unloaded["stages_ms"]), Target(name, share, EXPLAINED_AT_LEAST, "at least")]


def explained_share(unloaded: dict[str, Any], floor: dict[str, Any]) -> float | None:
    """Of the p50 that callers see, what the p50 of a service that does nothing and that of all stages add up to."""
    parts = [floor["latency_ms"].get("p50"), unloaded["stages_ms"].get("sum", {}).get("p50")]
    whole = unloaded["latency_ms"].get("p50")
    return round(sum(parts) / whole, 3) if whole and None not in parts else None


def spread(values: list[float]) -> dict[str, float]:
    """Median, lowest and highest of repeats."""
    if not values:
        return {}
    return {"median": round(float(np.median(values)), 2), "lowest": min(values), "highest": max(values)}
