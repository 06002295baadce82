"""Ranking on a device, and whole requests with both stages on it, over a real Redis and a synthetic bundle."""

import asyncio
import itertools
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import numpy as np

from engine.adapters.onnx.gpu_ranker import DeviceRanking, OnnxGpuRanker
from engine.adapters.onnx.ranker import OnnxRanker
from engine.adapters.redis.embedded import EmbeddedRedis
from engine.app.serve import open_pipeline
from engine.bundle.bundle import RANKER_FILE, RANKER_HALF_FILE, Bundle
from engine.config.serving import EngineConfig
from engine.data.dataset import Dataset
from engine.errors import EngineError
from engine.features.schema import CODE_FEATURES
from engine.request.pipeline import Pipeline
from engine.types import Float32Array, Int64Array, RankingContext, RecommendQuery
from engine_bench.timing import summarize, time_calls
from engine_bench.world import WorldVectors, publish_world

_CANDIDATES: Final = 1000
_CHECKED, _SLATE = 16, 50
_MAX_DIFFERENCE, _MIN_OVERLAP = 1e-2, 0.98
_PATIENCE_S: Final = 60.0
_WARM_UP: Final = 50

Request = tuple[RankingContext, Int64Array]


def measure_ranking(
    bundle: Bundle, device: str, device_id: int, batches: Sequence[int], seconds: float
) -> dict[str, Any]:
    """Hold the float16 ranker against float32 on the processor, then time it by batch size.

    Raises EngineError where probabilities differ by more than 0.01, or the first 50 by more than one in fifty.
    """
    dynamic = np.ascontiguousarray(bundle.item_dynamic)
    settings = DeviceRanking(
        device=device,
        device_id=device_id,
        candidate_count=_CANDIDATES,
        batch_sizes=tuple(batches),
    )
    ranker = OnnxGpuRanker(bundle.path / RANKER_HALF_FILE, bundle.schema, bundle.item_table, dynamic, settings)
    requests = _requests(bundle, max(*batches, _CHECKED))
    reference = OnnxRanker(bundle.path / RANKER_FILE, bundle.schema, bundle.item_table, dynamic)
    checked = check_scores(ranker, reference, requests[:_CHECKED])
    by_batch = [
        {"batch": batch, **time_calls(lambda _, batch=batch: ranker.score_many(requests[:batch]), seconds)}  # type: ignore[misc]
        for batch in batches
    ]
    return {"candidates": _CANDIDATES, "items": len(bundle.items), **checked, "by_batch": by_batch}


def check_scores(ranker: OnnxGpuRanker, reference: OnnxRanker, requests: Sequence[Request]) -> dict[str, float]:
    """The largest difference of a probability, and the mean overlap of the first 50. Raises EngineError as above."""
    difference, overlaps = 0.0, []
    for (context, rows), found in zip(requests, ranker.score_many(requests), strict=True):
        if isinstance(found, EngineError):
            raise found
        expected = reference.score(context, rows)
        difference = max(difference, float(np.abs(found - expected).max()))
        best, wanted = (np.argsort(-scores, kind="stable")[:_SLATE] for scores in (found, expected))
        overlaps.append(len(np.intersect1d(best, wanted)) / len(wanted))
    overlap = float(np.mean(overlaps))
    if not (difference <= _MAX_DIFFERENCE and overlap >= _MIN_OVERLAP):
        raise EngineError(
            f"the device's ranker is off by {difference:.2g}, and keeps {overlap:.1%} of the first {_SLATE}"
        )
    return {"max_difference": difference, "top_50_overlap": overlap}


def _requests(bundle: Bundle, count: int) -> list[Request]:
    schema, rng = bundle.schema, np.random.default_rng(0)

    def vector() -> Float32Array:
        return np.array(bundle.item_vectors[rng.integers(0, len(bundle.items))], np.float32)

    return [
        (
            RankingContext(
                query=vector(),
                session=vector(),
                collaborative=np.array(bundle.column("collaborative")[rng.integers(0, len(bundle.items))], np.float32),
                dense=rng.normal(size=schema.dense_dim).astype(np.float32),
                codes=np.zeros(len(CODE_FEATURES), np.int64),
            ),
            rng.integers(0, len(bundle.items), _CANDIDATES),
        )
        for _ in range(count)
    ]


def measure_requests(
    bundle: Bundle,
    dataset: Dataset,
    vectors: WorldVectors,
    directory: Path,
    work: Path,
    device: dict[str, Any],
    callers: Sequence[int],
    seconds: float,
) -> dict[str, Any]:
    """Whole requests in one process, without gRPC: one at a time, then so many at once as fast as they are answered.

    Args:
        directory: of bundles. work: for Redis. device: the [device] section. callers: how many at once.

    Returns: `alone` with p50 and p99 of the request and of its stages; `loaded`, by callers.
    """
    most = max(callers)
    shared = {"micro_batch": most, "max_concurrent_requests": 2 * most}
    with ExitStack() as resources:
        redis = resources.enter_context(EmbeddedRedis(work / "redis"))
        publish_world(bundle, dataset, vectors, redis.url)
        config = EngineConfig.load(
            bundle={"directory": directory},
            redis={"url": redis.url, "timeout_ms": 1000},
            server=shared,
            device=device,
        )
        active = dataset.histories().lengths() >= config.cold_start.min_interactions
        users = [str(name) for name in dataset.users["user_id"].to_numpy()[active]]
        return asyncio.run(_measure(config, users, bundle.manifest.data_end_ms, callers, seconds))


async def _measure(
    config: EngineConfig, users: list[str], now_ms: int, callers: Sequence[int], seconds: float
) -> dict[str, Any]:
    queries = (RecommendQuery(user, "home", _SLATE, now_ms) for user in itertools.cycle(users))
    async with open_pipeline(config) as pipeline:
        for _ in range(_WARM_UP):
            await _ask(pipeline, next(queries))
        alone, stages = await _alone(pipeline, queries, seconds)
        loaded = [await _loaded(pipeline, queries, count, seconds) for count in callers]
    return {"alone": alone, "stages": stages, "loaded": loaded}


async def _ask(pipeline: Pipeline, query: RecommendQuery) -> tuple[float, dict[str, float]]:
    started = time.perf_counter()
    answer = await pipeline.recommend(query, time.monotonic() + _PATIENCE_S)
    took = time.perf_counter() - started
    if answer.degraded_reasons or len(answer.slate) != _SLATE:
        raise EngineError(f"a request was degraded ({answer.degraded_reasons}): its time is worth nothing")
    return took, {timing.stage: timing.duration_ms / 1000 for timing in answer.timings}


async def _alone(
    pipeline: Pipeline, queries: Iterator[RecommendQuery], seconds: float
) -> tuple[dict[str, Any], dict[str, Any]]:
    taken: list[float] = []
    stages: list[dict[str, float]] = []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or len(taken) < _WARM_UP:
        took, timed = await _ask(pipeline, next(queries))
        taken.append(took)
        stages.append(timed)
    by_stage = {stage: summarize([timed[stage] for timed in stages]) for stage in stages[0]}
    return summarize(taken), by_stage


async def _loaded(pipeline: Pipeline, queries: Iterator[RecommendQuery], count: int, seconds: float) -> dict[str, Any]:
    taken: list[float] = []
    began = time.perf_counter()

    async def caller() -> None:
        while time.perf_counter() - began < seconds:
            taken.append((await _ask(pipeline, next(queries)))[0])

    await asyncio.gather(*(caller() for _ in range(count)))
    return {
        "callers": count,
        "requests_per_s": round(len(taken) / (time.perf_counter() - began), 1),
        **summarize(taken),
    }
