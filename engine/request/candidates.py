"""The two roads to ranked candidates: by the user's own vector, or by what is popular among people like them."""

from dataclasses import dataclass

from engine.config.serving import EngineConfig
from engine.experiments.settings import RequestSettings
from engine.features.session import SessionSignal, session_signal
from engine.request.clock import RequestClock
from engine.request.explain import Trace
from engine.request.model import ServingModel
from engine.stages.blend import blend_session
from engine.stages.cold_start import popular_candidates, rotate, steer
from engine.stages.rank import rank, ranking_context
from engine.stages.retrieve import retrieve
from engine.types import (
    Candidates,
    DegradedReason,
    Demographics,
    ItemSource,
    RecommendQuery,
    Strategy,
    UInt8Array,
    UserRecord,
    UserState,
)


@dataclass(frozen=True, slots=True)
class Roads:
    """Both roads under one server's settings, and what a request's own change of them."""

    config: EngineConfig

    def candidates(
        self,
        model: ServingModel,
        query: RecommendQuery,
        state: UserState,
        settings: RequestSettings,
        eligible: UInt8Array,
        clock: RequestClock,
        trace: Trace | None,
    ) -> tuple[Candidates, Strategy]:
        """The candidates of the road that this user takes, best first."""
        if settings.baseline:
            with clock.measure("baseline"):
                return self._baseline(model, query, eligible)
        record = state.record
        if record is None or state.interaction_count < self.config.cold_start.min_interactions:
            return self._cold_start(model, query, state, settings, eligible, clock)
        return self._personalized(model, query, state, record, settings, eligible, clock, trace)

    def _count(self, query: RecommendQuery) -> int:
        return max(self.config.retrieval.candidate_count, query.item_count)

    def _popular(
        self, model: ServingModel, query: RecommendQuery, state: UserState, eligible: UInt8Array
    ) -> tuple[Candidates, Strategy]:
        known = state.record.demographics if state.record else query.demographics
        demographics = query.demographics.or_else(known)
        return popular_candidates(
            model.popularity.lists, demographics, query.surface, eligible.copy(), self._count(query)
        )

    def _baseline(
        self, model: ServingModel, query: RecommendQuery, eligible: UInt8Array
    ) -> tuple[Candidates, Strategy]:
        """What is popular on the surface, for everybody the same: nothing of the person, not even their age, counts."""
        return popular_candidates(
            model.popularity.lists, Demographics(), query.surface, eligible.copy(), self._count(query)
        )

    def _cold_start(
        self,
        model: ServingModel,
        query: RecommendQuery,
        state: UserState,
        settings: RequestSettings,
        eligible: UInt8Array,
        clock: RequestClock,
    ) -> tuple[Candidates, Strategy]:
        with clock.measure("cold_start"):
            popular, strategy = self._popular(model, query, state, eligible)
            signal = session_signal(
                model.catalogue.rows(state.session.item_keys),
                state.session.event_types,
                state.session.timestamps_ms,
                model.catalogue.item_vectors,
                query.time_ms,
                settings.blend.session,
            )
        candidates = popular
        if signal.evidence > 0:
            candidates = clock.attempt(
                "steer",
                lambda: self._steered(model, query, popular, signal, settings, eligible),
                lambda: popular,
                failed=DegradedReason.RETRIEVAL_FAILED,
                skipped=DegradedReason.RETRIEVAL_SKIPPED,
            )
        cold_start = self.config.cold_start
        with clock.measure("rotate"):
            period = query.time_ms // (cold_start.rotation_period_s * 1000)
            rotated = rotate(candidates, query.item_count, cold_start.rotation_share, query.unit_id, period)
        return rotated, strategy

    def _steered(
        self,
        model: ServingModel,
        query: RecommendQuery,
        popular: Candidates,
        signal: SessionSignal,
        settings: RequestSettings,
        eligible: UInt8Array,
    ) -> Candidates:
        """What is popular, moved towards what is near the session."""
        near = retrieve(model.index, signal.vector, self._count(query), eligible, ItemSource.SESSION)
        weight = signal.evidence / (signal.evidence + settings.blend.evidence_half)
        return steer(popular, near, signal.vector, model.catalogue.item_vectors, weight)

    def _personalized(
        self,
        model: ServingModel,
        query: RecommendQuery,
        state: UserState,
        record: UserRecord,
        settings: RequestSettings,
        eligible: UInt8Array,
        clock: RequestClock,
        trace: Trace | None,
    ) -> tuple[Candidates, Strategy]:
        with clock.measure("blend"):
            vector, signal = blend_session(
                record.embedding,
                record.embedded_until_ms,
                state.session,
                model.catalogue.rows(state.session.item_keys),
                model.catalogue.item_vectors,
                query.time_ms,
                settings.blend,
                model.bundle.ranker_session,
            )
        candidates, strategy = clock.attempt(
            "retrieve",
            lambda: (retrieve(model.index, vector, self._count(query), eligible), Strategy.PERSONALIZED),
            lambda: self._popular(model, query, state, eligible),
            failed=DegradedReason.RETRIEVAL_FAILED,
            skipped=DegradedReason.RETRIEVAL_SKIPPED,
        )
        if strategy is not Strategy.PERSONALIZED or not settings.ranker:
            return candidates, strategy
        ranked = clock.attempt(
            "rank",
            lambda: rank(model.ranker, ranking_context(model.encoder, query, record, vector, signal), candidates),
            lambda: None,
            failed=DegradedReason.RANKING_FAILED,
            skipped=DegradedReason.RANKING_SKIPPED,
        )
        if trace is not None:
            trace.retrieved(candidates)
            if ranked is not None:
                trace.ranked(ranked)
        return candidates if ranked is None else ranked, strategy
