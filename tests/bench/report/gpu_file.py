"""A file as `engine bench gpu` writes it on a GPU, written by hand; and what a run that ended early leaves."""

from typing import Any

from tests.bench.report.machine import MACHINE

DEVICE = "Some GPU 80GB"
SIZES = ((1_000_000, 64), (1_000_000, 128), (10_000_000, 64), (10_000_000, 128))
BATCHES = (1, 4, 16, 32, 64)
_BYTES_PER_S, _FLOPS_PER_S = 2.5e12, 7.5e14
# Times the floor for one request, times longer for each further one, and the recall in small and large catalogues.
_KINDS: dict[str, tuple[float, float, float, float]] = {
    "exact-fused": (1.6, 0.01, 1.0, 1.0),
    "exact-cuvs": (2.9, 0.05, 1.0, 0.9999),
    "exact-classic": (5.2, 0.09, 1.0, 1.0),
    "cagra": (0.7, 0.02, 0.981, 0.953),
}


def timed(p50_ms: float) -> dict[str, Any]:
    return {"p50_ms": p50_ms, "p99_ms": 1.4 * p50_ms, "best_ms": 0.9 * p50_ms, "count": 500}


def search(kind: str, items: int, dim: int) -> dict[str, Any]:
    times, growth, small, large = _KINDS[kind]
    floor_ms = items * dim * 2 / _BYTES_PER_S * 1000

    def p50_ms(batch: int) -> float:
        return times * floor_ms * (1 + growth * batch) + 0.05

    return {
        "kind": kind,
        "items": items,
        "dim": dim,
        "k": 1000,
        "recall_at_k": small if items < 10_000_000 else large,
        "all_eligible": [
            {"batch": batch, **timed(p50_ms(batch)), "floor_ms": None if kind == "cagra" else floor_ms}
            for batch in BATCHES
        ],
        "filtered": [
            {"share": share, "batch": batch, **timed(p50_ms(batch) * (1.1 if kind == "exact-fused" else 0.5 / share))}
            for share in (0.5, 0.1, 0.02)
            for batch in (1, 64)
        ],
    }


def outcome(target: float, measured: float | None, met: bool | None) -> dict[str, Any]:
    return {"target": target, "measured": measured, "met": met}


def gpu() -> dict[str, Any]:
    stages = {"features": 0.4, "queue": 0.1, "retrieve": 0.9, "rank": 0.7, "diversify": 0.5, "total": 2.7}
    return {
        "settings": {
            "device": "cuda",
            "kinds": [],
            "items": [1_000_000, 10_000_000],
            "dims": [64, 128],
            "request_items": 1_000_000,
        },
        "device": DEVICE,
        "rehearsal": False,
        "machine": MACHINE,
        "floors": {"bytes_per_s": _BYTES_PER_S, "flops_per_s": _FLOPS_PER_S},
        "retrieval": [search(kind, items, dim) for items, dim in SIZES for kind in _KINDS],
        "ranking": {
            "candidates": 1000,
            "items": 1_000_000,
            "max_difference": 0.0021,
            "top_50_overlap": 0.994,
            "by_batch": [{"batch": batch, **timed(0.3 + 0.02 * batch)} for batch in BATCHES],
        },
        "requests": {
            "alone": timed(2.9),
            "stages": {stage: timed(p50_ms) for stage, p50_ms in stages.items()},
            "loaded": [
                {"callers": callers, "requests_per_s": per_s, **timed(1000 * callers / per_s)}
                for callers, per_s in ((4, 610.0), (16, 720.0), (32, 735.5), (64, 731.0))
            ],
        },
        "front_ends": {
            "device_start_s": 21.4,
            "client_processes": 4,
            "left_out": [],
            "runs": [
                {
                    "front_ends": count,
                    "callers": callers,
                    "requests_per_s": 520.0 * count * (0.8 if callers == 16 else 1.0),
                    **timed(callers / (0.52 * count)),
                    "bad": 0,
                    "device_cores": 0.21 * count,
                    "front_end_cores": 0.97 * count,
                }
                for count in (1, 2, 4, 8, 12)
                for callers in (16, 64)
            ],
        },
        "targets": {
            "retrieve_1000_of_10m_x_64_batch_1_p50_ms": outcome(2.0, 0.878, True),
            "retrieve_1000_of_10m_x_64_batch_32_p50_over_floor": outcome(2.0, 2.21, False),
            "rank_1000_p50_ms": outcome(0.5, 0.32, True),
            "request_p50_ms": outcome(3.0, 2.9, True),
            "request_p99_ms": outcome(10.0, 4.06, True),
            "requests_per_s": outcome(5000.0, 735.5, False),
        },
    }


def ended_early() -> dict[str, Any]:
    """Of whole requests nothing, and of the searches the first six."""
    whole = gpu()
    del whole["front_ends"]
    measured = {name: each for name, each in whole["targets"].items() if name == "rank_1000_p50_ms"}
    targets = {name: outcome(each["target"], None, None) for name, each in whole["targets"].items()} | measured
    return whole | {"requests": None, "retrieval": whole["retrieval"][:6], "targets": targets}


def rehearsal() -> dict[str, Any]:
    """In which targets would be met or missed if they were judged."""
    return gpu() | {"device": "cpu", "rehearsal": True}
