"""What counting costs a request: `python -m pytest bench/suite/test_metrics.py --benchmark-only -s`."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

# In a process of its own, since `prometheus_client` decides at its import whether figures live in shared files.
SCRIPT = """
import asyncio, dataclasses, time
import grpc
from engine.rpc.metrics import MeasuredRecommender, ServerMetrics
from engine.types import RecommendQuery, StageTiming
from tests.engine.rpc.recommender import answer

CALLS, ROUNDS = 20_000, 7
METHOD = "/engine.v1.RecommendationService/Recommend"
STAGES = ("features queue eligibility blend retrieve rank filter rules explore diversify respond total").split()
query = RecommendQuery("u1", "home", 50, 0)
timings = tuple(StageTiming(stage, 0.7) for stage in STAGES)
made = dataclasses.replace(answer(query), timings=timings, degraded_reasons=())

class Ready:
    async def recommend(self, query, answer_by, deadline=float("inf")):
        return made

metrics = ServerMetrics()

async def seconds(recommender, counted):
    # Of the processor, not of the clock: a round is long, and other processes want the core, too.
    started = time.process_time()
    for _ in range(CALLS):
        await recommender.recommend(query, 0.0)
        if counted:
            metrics.ended(METHOD, grpc.StatusCode.OK, 0.0027)
    return (time.process_time() - started) / CALLS

async def main():
    measured = MeasuredRecommender(Ready(), metrics)
    rounds = sorted([await seconds(measured, True) - await seconds(Ready(), False) for _ in range(ROUNDS)])
    print(rounds[ROUNDS // 2] * 1e6)

asyncio.run(main())
"""


@pytest.mark.parametrize("shared", [False, True], ids=["memory", "files"])
def test_counting_a_request(
    benchmark: Any, shared: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if shared:
        monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))

    def measure() -> float:
        return float(subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, check=True, text=True).stdout)

    benchmark.extra_info["microseconds"] = microseconds = benchmark.pedantic(measure, rounds=1)
    with capsys.disabled():
        print(f"\ncounting a request, figures in {'shared files' if shared else 'memory'}: {microseconds:.1f} µs")
