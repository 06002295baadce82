"""The whole request on the server, over a real Redis and a catalogue of each size, stage by stage."""

import asyncio
import itertools
import time
from typing import Any

import numpy as np

from engine.contract.requests import to_response
from engine.request.pipeline import Pipeline
from engine.stages import BUDGETS_MS, stages_of
from engine.types import Recommendation, RecommendQuery, Strategy
from engine_bench.load_report import stage_percentiles
from suite.serving import PATIENCE_S, SURFACE, Serving

ROUNDS, SLATE, K = 1000, 50, 1000
RECALL_QUERIES = 64
# What shares one budget of the design; "queue" is the wait for a thread, and in nobody's.
PARTS = {part: stages_of(part) for part in BUDGETS_MS}


def test_request(benchmark: Any, serving: Serving) -> None:
    """One request after the other, each of another user with a session of a moment ago, under three rules."""
    users = itertools.cycle(serving.user_ids)
    answers: list[Recommendation] = []
    converted_ms: list[float] = []

    def ask(loop: asyncio.AbstractEventLoop, pipeline: Pipeline) -> None:
        query = RecommendQuery(next(users), SURFACE, SLATE, serving.now_ms)
        answers.append(loop.run_until_complete(pipeline.recommend(query, time.monotonic() + PATIENCE_S)))
        answered = time.perf_counter()
        to_response(answers[-1], request_id="0" * 32)
        converted_ms.append((time.perf_counter() - answered) * 1000.0)

    with serving.pipeline() as (loop, pipeline):
        benchmark.pedantic(ask, args=(loop, pipeline), rounds=ROUNDS, warmup_rounds=50)
        recall = serving.measured_recall(pipeline.model, K, RECALL_QUERIES)

    measured = answers[-ROUNDS:]
    assert all(len(answer.slate) == SLATE and not answer.degraded_reasons for answer in measured)
    assert {answer.strategy for answer in measured} == {Strategy.PERSONALIZED}
    times = [
        {timing.stage: timing.duration_ms for timing in answer.timings} | {"convert": convert_ms}
        for answer, convert_ms in zip(measured, converted_ms[-ROUNDS:], strict=True)
    ]
    parts = {part: [sum(call.get(stage, 0.0) for stage in stages) for call in times] for part, stages in PARTS.items()}
    figures = {
        part: {"p50": round(float(np.percentile(values, 50)), 3), "p99": round(float(np.percentile(values, 99)), 3)}
        for part, values in parts.items()
    }
    benchmark.extra_info.update(
        items=serving.world.item_count,
        index=serving.world.bundle.manifest.index["factory"],
        recall_at_1000=recall,
        stages_ms=stage_percentiles(times),
        parts_ms=figures,
        budgets_ms=BUDGETS_MS,
    )
    print()
    for part, ms in figures.items():
        budget = BUDGETS_MS[part]
        print(f"{part:10} p50 {ms['p50']:7.3f} ms  p99 {ms['p99']:7.3f} ms  budget {budget:4.0f} ms")
    print(f"recall@{K} {recall:.4f} over {serving.world.item_count:,} items")
