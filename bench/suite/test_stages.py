"""Each stage alone, on what real requests hand it: a second call is warmer than a stage amid all others."""

import asyncio
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from engine.adapters.redis.store import RedisFeatureStore
from engine.features.state import SeenItems, UserState
from engine.request.model import ServingModel
from engine.request.pipeline import Pipeline
from engine.stages.diversify import DppDiversifier, MmrDiversifier, SlateConstraints, diversify
from engine.stages.eligibility import open_bitmap
from engine.stages.features import FetchFeatures
from engine.stages.filter import keep_eligible
from engine.stages.rank import rank, ranking_context
from engine.stages.retrieve import retrieve
from engine.stages.seen import apply_policy
from engine.types import Candidates, RankingContext, RecommendQuery, UInt8Array
from suite.serving import SURFACE, Serving

USERS, ROUNDS, SLATE = 64, 300, 50
DEPTHS = (100, 500, 1000, 2000)
DIVERSIFIERS = {"mmr": MmrDiversifier(), "dpp": DppDiversifier()}


@dataclass(frozen=True)
class Request:
    """One user's request, up to its candidates (the most that any depth asks for, in retrieval order)."""

    state: UserState
    query: RecommendQuery
    context: RankingContext
    eligible: UInt8Array
    candidates: Candidates

    def best(self, count: int) -> Candidates:
        return self.candidates.take(np.arange(min(count, len(self.candidates))))


@dataclass(frozen=True)
class Stages:
    """A pipeline that serves, and requests that are under way in it."""

    serving: Serving
    loop: asyncio.AbstractEventLoop
    pipeline: Pipeline
    requests: list[Request]

    @property
    def model(self) -> ServingModel:
        return self.pipeline.model


@pytest.fixture(scope="session")
def stages(serving: Serving) -> Iterator[Stages]:
    with serving.pipeline() as (loop, pipeline):
        model = pipeline.model
        requests = [
            _request(serving, model, user_id, state)
            for user_id, state in zip(serving.user_ids, serving.states(USERS), strict=False)
        ]
        yield Stages(serving, loop, pipeline, requests)


def _request(serving: Serving, model: ServingModel, user_id: str, state: UserState) -> Request:
    assert state.record is not None
    query = RecommendQuery(user_id, SURFACE, SLATE, serving.now_ms)
    vector, signal = serving.blended(model, state)
    eligible = open_bitmap(model.catalogue, SURFACE, ())
    apply_policy(serving.seen_policy, model.catalogue, state.seen, serving.now_ms, eligible)
    return Request(
        state,
        query,
        ranking_context(model.encoder, query, state.record, vector, signal),
        eligible,
        retrieve(model.index, vector, max(DEPTHS), eligible),
    )


def _measure(
    benchmark: Any,
    stages: Stages,
    stage: str,
    run: Callable[..., Any],
    arguments: Sequence[tuple[Any, ...]],
    **info: Any,
) -> None:
    benchmark.group = f"stage {stage}"
    benchmark.extra_info.update(stage=stage, items=stages.serving.world.item_count, **info)
    turn = itertools.cycle(arguments)
    benchmark.pedantic(run, setup=lambda: (next(turn), {}), rounds=ROUNDS, warmup_rounds=USERS)


def test_features(benchmark: Any, stages: Stages) -> None:
    """One round trip to Redis, unpacked, with the event loop's part."""
    redis = stages.serving.config.redis
    generation = stages.model.bundle.manifest.generation

    async def opened() -> RedisFeatureStore:
        return RedisFeatureStore(redis.url, redis)

    store = stages.loop.run_until_complete(opened())
    features = FetchFeatures(store, 1.0, 0)
    try:
        users = [(request.query.user_id,) for request in stages.requests]
        _measure(
            benchmark,
            stages,
            "features",
            lambda user: stages.loop.run_until_complete(features(user, generation, 1.0)),
            users,
        )
    finally:
        stages.loop.run_until_complete(store.close())


def test_eligibility(benchmark: Any, stages: Stages) -> None:
    serving, catalogue = stages.serving, stages.model.catalogue

    def run(seen: SeenItems) -> None:
        apply_policy(serving.seen_policy, catalogue, seen, serving.now_ms, open_bitmap(catalogue, SURFACE, ()))

    _measure(benchmark, stages, "eligibility", run, [(request.state.seen,) for request in stages.requests])


def test_blend(benchmark: Any, stages: Stages) -> None:
    states = [(request.state,) for request in stages.requests]
    _measure(benchmark, stages, "blend", lambda state: stages.serving.blended(stages.model, state), states)


@pytest.mark.parametrize("k", DEPTHS)
def test_retrieve(benchmark: Any, stages: Stages, k: int) -> None:
    """Under each user's own bitmap; recall under that of the surface, against an exact search."""
    inputs = [(request.context.query, request.eligible) for request in stages.requests]
    recall = stages.serving.measured_recall(stages.model, k, USERS)
    _measure(
        benchmark,
        stages,
        "retrieve",
        lambda vector, eligible: retrieve(stages.model.index, vector, k, eligible),
        inputs,
        k=k,
        recall_at_k=recall,
    )


@pytest.mark.parametrize("count", DEPTHS)
def test_rank(benchmark: Any, stages: Stages, count: int) -> None:
    inputs = [(request.context, request.best(count)) for request in stages.requests]
    _measure(
        benchmark,
        stages,
        "rank",
        lambda context, candidates: rank(stages.model.ranker, context, candidates),
        inputs,
        k=count,
    )


def test_filter(benchmark: Any, stages: Stages) -> None:
    inputs = [(request.best(1000), request.eligible) for request in stages.requests]
    _measure(benchmark, stages, "filter", keep_eligible, inputs, k=1000)


@pytest.mark.parametrize("diversifier", DIVERSIFIERS)
def test_diversify(benchmark: Any, stages: Stages, diversifier: str) -> None:
    """A slate of 50 from 1000 ranked candidates, without constraints; test_kernels.py has those."""
    surface = stages.serving.config.surfaces[SURFACE]
    vectors = stages.model.catalogue.item_vectors
    ranked = [(rank(stages.model.ranker, request.context, request.best(1000)),) for request in stages.requests]
    _measure(
        benchmark,
        stages,
        "diversify",
        lambda candidates: diversify(
            DIVERSIFIERS[diversifier],
            candidates,
            vectors,
            surface.diversity_weight,
            surface.duplicate_similarity,
            SLATE,
            SlateConstraints.none(len(candidates), SLATE),
        ),
        ranked,
        k=1000,
        diversifier=diversifier,
    )
