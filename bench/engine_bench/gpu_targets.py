"""What the GPU path is meant to reach, beside what was measured."""

from typing import Any

_TARGET_ITEMS, _TARGET_DIM = 10_000_000, 64


def gpu_targets(
    retrieval: list[dict[str, Any]],
    ranking: dict[str, Any] | None,
    requests: dict[str, Any] | None,
    front_ends: dict[str, Any] | None,
) -> dict[str, Any]:
    """Each target with the figure and whether it is met; None where the run did not measure it.

    Of the exact kinds of retrieval the fastest counts.
    """
    exact = [
        line
        for run in retrieval
        if run["items"] == _TARGET_ITEMS and run["dim"] == _TARGET_DIM
        for line in run["all_eligible"]
        if line["floor_ms"] is not None
    ]
    first = min((line["p50_ms"] for line in exact if line["batch"] == 1), default=None)
    over_floor = min((line["p50_ms"] / line["floor_ms"] for line in exact if line["batch"] == 32), default=None)
    rank = next((line["p50_ms"] for line in ranking["by_batch"] if line["batch"] == 1), None) if ranking else None
    alone = requests["alone"] if requests else {"p50_ms": None, "p99_ms": None}
    # In one process without gRPC, or from many processes with it: the latter is what an operator gets.
    loaded = front_ends["runs"] if front_ends else requests["loaded"] if requests else []
    most = max((line["requests_per_s"] for line in loaded), default=None)
    return {
        "retrieve_1000_of_10m_x_64_batch_1_p50_ms": _at_most(first, 2.0),
        "retrieve_1000_of_10m_x_64_batch_32_p50_over_floor": _at_most(over_floor, 2.0),
        "rank_1000_p50_ms": _at_most(rank, 0.5),
        "request_p50_ms": _at_most(alone["p50_ms"], 3.0),
        "request_p99_ms": _at_most(alone["p99_ms"], 10.0),
        "requests_per_s": _at_least(most, 5000.0),
    }


def _at_most(measured: float | None, target: float) -> dict[str, Any]:
    return {"target": target, "measured": measured, "met": None if measured is None else measured <= target}


def _at_least(measured: float | None, target: float) -> dict[str, Any]:
    return {"target": target, "measured": measured, "met": None if measured is None else measured >= target}
