"""Small files of every bench's shape, written by hand: what the report reads, and nothing more."""

import json
from pathlib import Path
from typing import Any

from tests.bench.report.gpu_file import gpu
from tests.bench.report.machine import MACHINE


def target(name: str, value: float | None, bound: float, met: bool) -> dict[str, Any]:
    return {"name": name, "value": value, "bound": bound, "met": met}


def bench(name: str, p50_ms: float, params: dict[str, Any] | None = None, **info: Any) -> dict[str, Any]:
    return {
        "name": name,
        "param": name.partition("[")[2].rstrip("]"),
        "params": params,
        "extra_info": {"p50_ms": p50_ms, "p99_ms": 2 * p50_ms} | info,
        "stats": {"median": p50_ms / 1000},
    }


def request(items: int, p50_ms: float) -> dict[str, Any]:
    parts = {"features": 0.1, "retrieve": 0.3, "rank": 0.4, "respond": 0.2}
    stages = {"features": 0.1, "queue": 0.02, "eligibility": 0.03, "blend": 0.05, "retrieve": 0.2, "rank": 0.4}
    return bench(
        f"test_request[{items}]",
        p50_ms,
        items=items,
        recall_at_1000=0.981,
        parts_ms={part: {"p50": share * p50_ms, "p99": 2 * share * p50_ms} for part, share in parts.items()},
        stages_ms={stage: {"p50": share * p50_ms, "p99": 3 * share * p50_ms} for stage, share in stages.items()},
    )


def suite() -> dict[str, Any]:
    depths = [
        bench(
            f"test_retrieve_depth[dim{dim}-{items}-{k}]",
            0.3 + k / 4000 + items / 4e6 + dim / 600,
            items=items,
            dim=dim,
            k=k,
            eligible_share=0.95,
            recall_at_k=0.975 + k / 1e5,
            index="IVF1024,SQ8",
        )
        for dim in (64, 128)
        for items in (100_000, 1_000_000)
        for k in (100, 500, 1000, 2000)
    ]
    shares = [
        bench(
            f"test_retrieve[{kind}-1M-{share}-vectors]",
            0.2 + share,
            items=1_000_000,
            dim=64,
            k=1000,
            eligible_share=share,
            recall_at_k=0.98,
            index="IVF2048,SQ8",
        )
        for kind in ("synthetic", "clustered")
        for share in (0.001, 0.01, 0.1, 1.0)
    ]
    kernels = [
        bench(f"test_kernel[{by}-{name}]", ms, {"name": name, "implementation": by})
        for name, kernel, numpy in (("top_k", 0.02, 0.05), ("mmr_slate plain", 0.3, 1.4))
        for by, ms in (("kernel", kernel), ("numpy", numpy))
    ]
    return {
        "machine": MACHINE,
        "datetime": "2026-01-02T03:04:05",
        "commit_info": {"id": "0123456789abcdef", "dirty": True},
        "benchmarks": [
            request(1_000_000, 2.6),
            request(100_000, 1.9),
            *depths,
            *shares,
            *kernels,
            bench("test_rank[1M-1000]", 0.9, items=1_000_000, stage="rank", k=1000),
            bench("test_update[1M]", 900.0, items=1_000_000),
        ],
        "targets": [
            {"name": "request total p50 ms", "value": 2.6, "bound": 3.5, "met": True, "items": 1_000_000},
            {"name": "recall@1000", "value": 0.96, "bound": 0.97, "met": False, "at_least": True, "items": 1_000_000},
        ],
    }


def run(name: str, rate: float, p50_ms: float, valid: bool = True) -> dict[str, Any]:
    percentiles = zip(("p50", "p90", "p99", "p99.9", "max"), (1.0, 1.6, 3.0, 5.0, 8.0), strict=True)
    return {
        "name": name,
        "rate_asked": rate,
        "rate_reached": rate * 0.99,
        "latency_ms": {percentile: p50_ms * factor for percentile, factor in percentiles},
        "errors": {} if rate < 400 else {"exhausted": 12},
        "valid": valid,
        "lateness_p99_ms": 1.0,
        "server_cpu_ms_per_answer": 3.21,
        "stages_ms": {"rank": {"p50": 1.0, "p99": 1.4}, "sum": {"p50": 2.6, "p99": 4.0}},
    }


def load() -> dict[str, Any]:
    unloaded = run("unloaded", 25, 4.1)
    searched = [run("search p99 <= 100 ms", rate, 4 + rate / 40, valid=rate < 300) for rate in (50, 100, 200, 400)]
    repeats = [run(f"repeat p99 <= {bound} ms", rate, 9.0) for bound, rate in ((100, 300), (25, 150))]
    return {
        "settings": {"items": 1_000_000, "users": 100_000},
        "calibration": {"ceiling_per_s": 1600.0, "runs": []},
        "unloaded": unloaded,
        "rates": [
            {"bound_ms": 100.0, "per_s": 300.0, "held": 3, "repeats": 3, "ended_by": "server"},
            {"bound_ms": 25.0, "per_s": 150.0, "held": 2, "repeats": 3, "ended_by": "generator"},
        ],
        "runs": [unloaded, *searched, *repeats],
        "machine": MACHINE,
        "targets": [target("unloaded total p50 ms", 2.6, 3.5, True)],
    }


def peers() -> dict[str, Any]:
    def service(name: str, title: str, p50_ms: float, rates: tuple[float, float]) -> dict[str, Any]:
        per_s = [{"bound_p99_ms": bound, "per_s": rate} for bound, rate in zip((100, 25), rates, strict=True)]
        return {
            "name": name,
            "title": title,
            "unloaded": run("unloaded", 25, p50_ms),
            "rates": per_s,
            "server_cpu_ms_per_answer": p50_ms / 2,
        }

    def stage(stage: str, title: str, p50_ms: float, **quality: float) -> dict[str, Any]:
        figures = {"p50_ms": p50_ms, "p99_ms": 1.5 * p50_ms, "parameters": {"nprobe": 16}}
        return {"stage": stage, "name": title, "title": title} | figures | quality

    return {
        "machine": MACHINE,
        "items": 1_000_000,
        "services": [
            service("engine", "this engine", 4.2, (310.0, 160.0)),
            service("naive", "straightforward asyncio", 9.8, (95.0, 0.0)),
            service("null", "null (does nothing)", 0.9, (1500.0, 1400.0)),
            {"name": "mosec", "title": "Mosec", "skipped": "not installed"},
        ],
        "stages": [
            stage("retrieve", "engine", 0.7, recall_at_1000=0.981),
            stage("retrieve", "exact scan", 10.2, recall_at_1000=1.0),
            stage("rank", "engine", 0.9, agreement=1.0),
            {"stage": "rank", "name": "torch", "title": "PyTorch", "skipped": "not installed"},
        ],
        "targets": [target("times the rate of the next best", 3.26, 2.0, True)],
    }


def startup() -> dict[str, Any]:
    memory = {"rss_mib": 1300, "uss_mib": 420, "own_mib": 400, "mapped_mib": 900}
    return {
        "sizes": [
            {
                "items": items,
                "start_s": {"median": s, "lowest": s - 0.2, "highest": s + 0.3},
                "memory": [memory, memory],
            }
            for items, s in ((100_000, 2.6), (1_000_000, 5.4))
        ],
        "machine": MACHINE,
        "targets": [target("start to SERVING s", 5.4, 8.0, True)],
    }


def all_files() -> dict[str, dict[str, Any]]:
    changes = {"p50_ms": 0.0, "p99_ms": 41.0, "machine": MACHINE}
    return {
        "bench": suite(),
        "load": load(),
        "peers": peers(),
        "startup": startup(),
        "freshness": changes | {"p50_ms": 38.0, "targets": [target("p99_ms", 41.0, 250.0, True)]},
        "inventory": changes
        | {
            "items": 1_000_000,
            "new_item_p50_ms": 74.0,
            "new_item_p99_ms": 157.0,
            "targets": [target("p99_ms", 41.0, 2000.0, True), target("late_answers", 0, 0, True)],
        },
        "processor": {
            "events": 1_000_000,
            "users": 100_000,
            "seconds": 45.3,
            "events_per_s": 22_075,
            "processor_cpu_us": 17.4,
            "redis_cpu_us": 9.8,
            "machine": MACHINE,
            "targets": [target("events_per_s", 22_075, 20_000.0, True)],
        },
        "gpu": gpu(),
    }


def write(directory: Path, names: tuple[str, ...] = ()) -> Path:
    """Those files, or all, in this directory."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, report in all_files().items():
        if not names or name in names:
            (directory / f"{name}.json").write_text(json.dumps(report))
    return directory
