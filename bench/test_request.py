"""The whole request on the server, over a real Redis and a catalogue of BENCH_ITEMS, stage by stage."""

import asyncio
import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.conftest import CACHE, ITEM_COUNT
from engine.adapters.embedded_redis import EmbeddedRedis
from engine.assemble import open_pipeline
from engine.bench.world import build_world, publish_world, world_bundle
from engine.bundle.bundle import Bundle
from engine.config import EngineConfig
from engine.pipeline import Pipeline
from engine.types import Recommendation, RecommendQuery

PATIENCE_S = 60.0
ROUNDS = 500
# A quarter of the budget of each part, in milliseconds.
QUARTER_BUDGETS_MS = {"features": 0.5, "retrieve": 2.5, "rank": 7.5, "filter + diversify + respond": 1.25}
PARTS = {
    "features": ("features",),
    "retrieve": ("eligibility", "blend", "retrieve"),
    "rank": ("rank",),
    "filter + diversify + respond": ("filter", "rules", "explore", "diversify", "respond"),
}


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[EngineConfig, Bundle, list[str]]]:
    """A published world: settings, bundle, and the users who will ask."""
    directory = CACHE / f"bundles-{ITEM_COUNT}"
    dataset, vectors = build_world(ITEM_COUNT)
    bundle = world_bundle(directory, dataset, vectors)
    home: Path = tmp_path_factory.mktemp("redis")
    config = EngineConfig.load(
        bundle={"directory": directory},
        redis={"directory": home, "timeout_ms": 1000},
        server={"compute_threads": 1},
    )
    active = dataset.histories().lengths() >= config.cold_start.min_interactions
    with EmbeddedRedis(home) as server:
        publish_world(bundle, dataset, vectors, server.url)
        yield config, bundle, [str(name) for name in dataset.users["user_id"].to_numpy()[active]]


def test_request(benchmark: Any, serving: tuple[EngineConfig, Bundle, list[str]]) -> None:
    config, bundle, user_ids = serving
    users = itertools.cycle(user_ids)
    answers: list[Recommendation] = []

    def ask(loop: asyncio.AbstractEventLoop, pipeline: Pipeline) -> None:
        query = RecommendQuery(next(users), "home", 50, bundle.manifest.data_end_ms)
        answers.append(loop.run_until_complete(pipeline.recommend(query, time.monotonic() + PATIENCE_S)))

    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        context = open_pipeline(config)
        pipeline = loop.run_until_complete(context.__aenter__())
        try:
            benchmark.pedantic(ask, args=(loop, pipeline), rounds=ROUNDS, warmup_rounds=50)
        finally:
            loop.run_until_complete(context.__aexit__(None, None, None))

    measured = answers[-ROUNDS:]
    assert all(len(answer.slate) == 50 and not answer.degraded_reasons for answer in measured)
    times = [{timing.stage: timing.duration_ms for timing in answer.timings} for answer in measured]
    parts = {part: [sum(call[stage] for stage in stages) for call in times] for part, stages in PARTS.items()}
    benchmark.extra_info.update(
        item_count=len(bundle.items),
        recall_at_1000=bundle.manifest.index["recall_at_k"],
        part_p50_ms={part: round(float(np.percentile(values, 50)), 3) for part, values in parts.items()},
        part_p99_ms={part: round(float(np.percentile(values, 99)), 3) for part, values in parts.items()},
        quarter_budget_ms=QUARTER_BUDGETS_MS,
    )
    print()
    for part, values in parts.items():
        p50, p99 = np.percentile(values, [50, 99])
        budget = QUARTER_BUDGETS_MS[part]
        print(f"{part:30} p50 {p50:7.3f} ms  p99 {p99:7.3f} ms  quarter of the budget {budget:5.2f} ms")
    print(f"recall@1000 {bundle.manifest.index['recall_at_k']:.4f} over {len(bundle.items):,} items")
