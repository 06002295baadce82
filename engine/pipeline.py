"""The order of the stages, and nothing else."""

import asyncio
from concurrent.futures import Executor
from dataclasses import dataclass

from engine.bundle.bundle import Bundle
from engine.bundle.live import LivePopularity
from engine.clock import RequestClock, StageEstimates
from engine.config import EngineConfig
from engine.features.context import ContextEncoder
from engine.features.session import session_signal
from engine.stages.blend import BlendSettings, query_vector
from engine.stages.cold_start import popular_candidates, take_popular
from engine.stages.diversify import diversify
from engine.stages.eligibility import Eligibility
from engine.stages.features import FetchFeatures
from engine.stages.filter import keep_eligible
from engine.stages.rank import Ranker, rank, ranking_context
from engine.stages.retrieve import ItemIndex, retrieve
from engine.types import (
    Candidates,
    DegradedReason,
    ItemSource,
    Recommendation,
    RecommendQuery,
    Strategy,
    UInt8Array,
    UserState,
)
from kernels.membership import clear_rows


@dataclass(frozen=True, slots=True)
class ServingModel:
    """Everything of one bundle that requests use, changed together or not at all.

    popularity: the bundle's, with what is live counted in; the one thing that changes while the bundle serves.
    """

    bundle: Bundle
    popularity: LivePopularity
    index: ItemIndex
    ranker: Ranker
    encoder: ContextEncoder
    eligibility: Eligibility


class Pipeline:
    """Answers requests. Knows no transport. `model` may be replaced at any time: a request keeps what it began with."""

    def __init__(self, model: ServingModel, features: FetchFeatures, config: EngineConfig, executor: Executor) -> None:
        self.model = model
        self._features = features
        self._config = config
        self._blend = BlendSettings.of(config.blend)
        # Native calls leave the event loop free: they release the interpreter lock in these threads.
        self._executor = executor
        self._estimates = StageEstimates()

    @property
    def version(self) -> str:
        """The bundle that serves at this moment."""
        return self.model.bundle.version

    async def recommend(self, query: RecommendQuery, deadline: float) -> Recommendation:
        """The slate for one request.

        Args:
            deadline: a time.monotonic() instant.

        Raises:
            DeadlineExceeded: it passed before an answer was ready; no native call is made after it.
        """
        model = self.model
        clock = RequestClock(deadline, self._estimates)
        clock.check()
        with clock.measure("features"):
            state, degraded = await self._features(query.user_id, model.bundle.manifest.generation, clock.remaining_s())
        if degraded is not None:
            clock.degraded.append(degraded)
        clock.mark()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, self.answer, model, query, state, clock)

    def answer(
        self, model: ServingModel, query: RecommendQuery, state: UserState, clock: RequestClock
    ) -> Recommendation:
        """Everything after the features: pure computation, in a worker thread."""
        clock.check()
        clock.since_mark("queue")
        with clock.measure("eligibility"):
            eligible = model.eligibility.open(query.surface, state.seen_keys, query.exclude_item_ids)
        candidates, strategy = self._candidates(model, query, state, eligible, clock)
        with clock.measure("filter"):
            # Stock may have changed while the request was under way; from here on nothing older is consulted.
            eligible &= model.eligibility.of_surface(query.surface)
            kept, _ = keep_eligible(candidates, eligible)
        slate = self._diversify(model, query, kept, clock)
        with clock.measure("backfill"):
            slate = self._fill_up(model, query, slate, eligible)
        with clock.measure("respond"):
            item_ids = model.bundle.items.ids(slate.rows)
        clock.total()
        return Recommendation(
            slate=slate,
            item_ids=item_ids,
            strategy=strategy,
            bundle_version=model.bundle.version,
            degraded_reasons=tuple(clock.degraded),
            timings=tuple(clock.timings),
            candidate_count=len(candidates),
            known_user=state.record is not None,
            interaction_count=state.interaction_count,
        )

    def _candidates(
        self, model: ServingModel, query: RecommendQuery, state: UserState, eligible: UInt8Array, clock: RequestClock
    ) -> tuple[Candidates, Strategy]:
        """The ranked candidates of the road that this user takes."""
        record = state.record
        count = max(self._config.retrieval.candidate_count, query.item_count)

        def from_popularity() -> tuple[Candidates, Strategy]:
            known = record.demographics if record else query.demographics
            demographics = query.demographics.or_else(known)
            return popular_candidates(model.popularity.lists, demographics, query.surface, eligible.copy(), count)

        if record is None or state.interaction_count < self._config.cold_start.min_interactions:
            with clock.measure("cold_start"):
                return from_popularity()
        with clock.measure("blend"):
            session_rows = model.eligibility.rows(state.session.item_keys)
            vector = query_vector(
                record.embedding,
                record.embedded_until_ms,
                state.session,
                session_rows,
                model.bundle.item_vectors,
                query.time_ms,
                self._blend,
            )
            # The ranker reads the whole session, the part that the embedding has read as well: it learned beside both.
            signal = session_signal(
                session_rows,
                state.session.event_types,
                state.session.timestamps_ms,
                model.bundle.item_vectors,
                query.time_ms,
                model.bundle.ranker_session,
            )
        candidates, strategy = clock.attempt(
            "retrieve",
            lambda: (retrieve(model.index, vector, count, eligible), Strategy.PERSONALIZED),
            from_popularity,
            failed=DegradedReason.RETRIEVAL_FAILED,
            skipped=DegradedReason.RETRIEVAL_SKIPPED,
        )
        if strategy is not Strategy.PERSONALIZED:
            return candidates, strategy
        ranked = clock.attempt(
            "rank",
            lambda: rank(model.ranker, ranking_context(model.encoder, query, record, vector, signal), candidates),
            lambda: candidates,
            failed=DegradedReason.RANKING_FAILED,
            skipped=DegradedReason.RANKING_SKIPPED,
        )
        return ranked, strategy

    def _diversify(
        self, model: ServingModel, query: RecommendQuery, candidates: Candidates, clock: RequestClock
    ) -> Candidates:
        weight = query.diversity_weight
        if weight is None:
            weight = self._config.surfaces[query.surface].diversity_weight
        return clock.attempt(
            "diversify",
            lambda: diversify(candidates, model.bundle.item_vectors, weight, query.item_count),
            lambda: candidates.head(query.item_count),
            failed=DegradedReason.DIVERSITY_FAILED,
            skipped=DegradedReason.DIVERSITY_SKIPPED,
        )

    @staticmethod
    def _fill_up(model: ServingModel, query: RecommendQuery, slate: Candidates, eligible: UInt8Array) -> Candidates:
        """Whenever that many eligible items exist, that many come back. Clears what it takes in `eligible`."""
        missing = query.item_count - len(slate)
        if missing <= 0:
            return slate
        clear_rows(eligible, slate.rows)
        return Candidates.concat(
            [slate, take_popular(model.popularity.lists.overall, eligible, missing, ItemSource.BACKFILL)]
        )
