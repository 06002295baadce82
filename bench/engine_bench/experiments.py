"""How fast variants are assigned, a million users at once and one inside a request, and how exact the shares are."""

import time
from typing import Any, Final

import numpy as np

from engine.config.serving import EngineConfig
from engine.experiments.assign import Experiments
from engine.types import RecommendQuery
from engine_bench.machine import describe_machine
from engine_bench.targets import Target

TARGET_UNITS_PER_S: Final = 1_000_000.0
TARGET_SHARE_ERROR: Final = 0.002
SURFACE: Final = "home"
_HOLDOUT_SHARE: Final = 0.05
_SHARES: Final = {"ranking": (0.5, 0.5), "diversity": (0.3333, 0.3333, 0.3333)}
_ROUNDS: Final = 5
_SINGLE: Final = 20_000


def measure_experiments(unit_count: int) -> dict[str, Any]:
    """Assign `unit_count` users to a holdout and two experiments in layers of their own; the best of five rounds.

    Returns `units_per_s`, `single_us` (a request's own assignment), the largest error of a share, the machine, and
    `targets`. Where few units are assigned, chance alone makes the error large.
    """
    experiments = Experiments(_config())
    unit_ids = [f"user-{number}" for number in range(unit_count)]
    now_ms = time.time_ns() // 1_000_000
    best_s = float("inf")
    for _ in range(_ROUNDS):
        started = time.perf_counter()
        codes = experiments.assign_many(unit_ids, SURFACE, now_ms)
        best_s = min(best_s, time.perf_counter() - started)
    held = codes["holdout"] == 0
    errors = [abs(float(held.mean()) - _HOLDOUT_SHARE)]
    for name, shares in _SHARES.items():
        errors += [abs(float((codes[name][~held] == place).mean()) - share) for place, share in enumerate(shares)]
    rate, error = unit_count / best_s, max(errors)
    return {
        "units": unit_count,
        "units_per_s": round(rate),
        "single_us": round(_single_us(experiments, unit_ids), 2),
        "largest_share_error": round(error, 5),
        "machine": describe_machine(),
        "targets": [
            Target("units_per_s", round(rate), TARGET_UNITS_PER_S, "at least", "1/s").as_json(),
            Target("largest_share_error", round(error, 5), TARGET_SHARE_ERROR).as_json(),
        ],
    }


def _single_us(experiments: Experiments, unit_ids: list[str]) -> float:
    queries = [RecommendQuery(unit_id, SURFACE, 50, 0) for unit_id in unit_ids[:_SINGLE]]
    rounds = []
    for _ in range(_ROUNDS):
        started = time.perf_counter()
        for query in queries:
            experiments.assign(query)
        rounds.append((time.perf_counter() - started) / len(queries) * 1e6)
    return float(np.min(rounds))


def _config() -> EngineConfig:
    declared = [
        {"name": name, "variants": [{"name": f"v{place}", "share": share} for place, share in enumerate(shares)]}
        for name, shares in _SHARES.items()
    ]
    values: dict[str, Any] = {"holdout": {"share": _HOLDOUT_SHARE}, "experiments": declared}
    return EngineConfig(**values)
