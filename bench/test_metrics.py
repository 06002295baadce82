"""What counting costs a request: `python -m pytest bench/test_metrics.py --benchmark-only -s`."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

# In a process of its own, since `prometheus_client` decides at its import whether figures live in shared files.
SCRIPT = """
import asyncio, time
import grpc
from engine.rpc.metrics import MeasuredRecommender, ServerMetrics
from engine.types import DegradedReason, StageTiming
from tests.engine.rpc.recommender import SteeredRecommender, answer
from engine.types import RecommendQuery
import dataclasses
query = RecommendQuery("u1", "home", 50, 0)
stages = ("features", "queue", "eligibility", "blend", "retrieve", "rank", "filter", "rules", "explore", "diversify",
          "respond", "total")
made = dataclasses.replace(answer(query), timings=tuple(StageTiming(stage, 0.7) for stage in stages), degraded_reasons=())
class Ready:
    async def recommend(self, query, deadline):
        return made
metrics = ServerMetrics()
bare, measured = Ready(), MeasuredRecommender(Ready(), metrics)
method, calls = "/engine.v1.RecommendationService/Recommend", 20_000
async def seconds(recommender, counted):
    started = time.process_time()
    for _ in range(calls):
        await recommender.recommend(query, 0.0)
        if counted:
            metrics.ended(method, grpc.StatusCode.OK, 0.0027)
    return (time.process_time() - started) / calls
async def main():
    rounds = []
    for _ in range(7):
        rounds.append(await seconds(measured, True) - await seconds(bare, False))
    print(sorted(rounds)[len(rounds) // 2] * 1e6)
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
