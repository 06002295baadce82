"""What the engine owes against its peers."""

from typing import Any

from engine_bench.targets import Target

LIBRARIES = ("mosec", "aiohttp", "scann", "pyversity")
RATE_BOUND_MS = 25.0
_RATE_TIMES, _LATENCY_SHARE, _RANK_TIMES, _SCORE_TOLERANCE = 2.5, 0.5, 2.5, 1e-4

Rows = list[dict[str, Any]]


def targets(services: Rows, stages: Rows) -> list[Target]:
    """Each target with the value that was measured; a value that cannot be told is None and misses its target."""
    engine, naive = _named(services, "engine"), _named(services, "naive")
    serving, tiled = _named(_of(stages, "rank"), "engine"), _named(_of(stages, "rank"), "tiled")
    index = _named(_of(stages, "retrieve"), "engine")
    others = [row for row in _of(stages, "retrieve") if row["name"] != "engine" and row.get("equal_recall")]
    best = min((row["p50_ms"] for row in others), default=None)
    difference = (tiled or {}).get("parameters", {}).get("largest_difference")
    rate_times = _ratio(_rate(engine), _rate(naive))
    latency_share = _ratio(_unloaded_p50(engine), _unloaded_p50(naive))
    rank_times = _ratio(_p50(tiled), _p50(serving))
    return [
        Target("rate at p99 <= 25 ms, times naive's", rate_times, _RATE_TIMES, "at least"),
        Target("unloaded p50, share of naive's", latency_share, _LATENCY_SHARE),
        Target("rank, times as fast as the tiled graph", rank_times, _RANK_TIMES, "at least"),
        Target("rank, largest difference of scores", difference, _SCORE_TOLERANCE),
        Target("retrieve p50, share of the best library's at equal recall", _ratio(_p50(index), best), 1.0),
    ]


def _of(stages: Rows, stage: str) -> Rows:
    return [row for row in stages if row["stage"] == stage]


def _named(rows: Rows, name: str) -> dict[str, Any] | None:
    return next((row for row in rows if row["name"] == name and "skipped" not in row), None)


def _rate(service: dict[str, Any] | None) -> float | None:
    rates = service["rates"] if service else []
    return next((rate["per_s"] for rate in rates if rate["bound_p99_ms"] == RATE_BOUND_MS), None)


def _unloaded_p50(service: dict[str, Any] | None) -> float | None:
    return service["unloaded"]["latency_ms"].get("p50") if service else None


def _p50(stage: dict[str, Any] | None) -> float | None:
    return stage["p50_ms"] if stage else None


def _ratio(value: float | None, other: float | None) -> float | None:
    """How many times as much; None where either is missing or the other is 0, of which nothing is a multiple."""
    return round(value / other, 3) if value is not None and other else None
