"""A deterministic recommender: the transport is what these tests are about."""

import asyncio
import time
from collections.abc import Callable

import numpy as np

from engine.types import (
    Candidates,
    DegradedReason,
    ItemSource,
    Recommendation,
    RecommendQuery,
    StageTiming,
    Strategy,
)


def answer(query: RecommendQuery) -> Recommendation:
    """Items "<user>-0", "<user>-1", … with falling scores."""
    count = query.item_count
    scores = np.linspace(1.0, 0.5, count, dtype=np.float32)
    return Recommendation(
        slate=Candidates.of(np.arange(count, dtype=np.int64), scores, ItemSource.RETRIEVAL),
        item_ids=tuple(f"{query.user_id}-{position}" for position in range(count)),
        propensities=np.ones(count, np.float32),
        strategy=Strategy.PERSONALIZED,
        bundle_version="bundle-7",
        degraded_reasons=(DegradedReason.RANKING_SKIPPED,),
        timings=(StageTiming("retrieve", 1.25), StageTiming("rank", 2.5)),
        candidate_count=1000,
        known_user=True,
        interaction_count=12,
    )


class SteeredRecommender:
    """Answers at once unless told to wait, block the event loop or raise; remembers what it was asked.

    gate: recommend waits until it is set, when given.
    """

    def __init__(self) -> None:
        self.queries: list[RecommendQuery] = []
        self.budgets_s: list[float] = []
        self.deadlines_s: list[float] = []
        self.finished = 0
        self.cancelled = 0
        self.started = asyncio.Event()
        self.gate: asyncio.Event | None = None
        self.sleep_s = 0.0
        self.block_s = 0.0
        self.error: Callable[[], BaseException] | None = None

    async def recommend(
        self, query: RecommendQuery, answer_by: float, deadline: float = float("inf")
    ) -> Recommendation:
        self.queries.append(query)
        now = time.monotonic()
        self.budgets_s.append(answer_by - now)
        self.deadlines_s.append(deadline - now)
        self.started.set()
        time.sleep(self.block_s)  # a native call that holds the event loop
        try:
            await asyncio.sleep(self.sleep_s)
            if self.gate is not None:
                await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error is not None:
            raise self.error()
        self.finished += 1
        return answer(query)
