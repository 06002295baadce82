"""The two roads to ranked candidates: by the user's own vector, or by what is popular among people like them."""

from dataclasses import dataclass

from engine.clock import RequestClock
from engine.config import EngineConfig
from engine.explain import Trace
from engine.features.session import SessionSettings, SessionSignal, session_signal
from engine.model import ServingModel
from engine.stages.blend import BlendSettings, query_vector
from engine.stages.cold_start import popular_candidates, rotate, steer
from engine.stages.rank import rank, ranking_context
from engine.stages.retrieve import retrieve
from engine.types import (
    Candidates,
    DegradedReason,
    Int64Array,
    ItemSource,
    RecommendQuery,
    Strategy,
    UInt8Array,
    UserRecord,
    UserState,
)


@dataclass(frozen=True, slots=True)
class Roads:
    """Both roads under one server's settings."""

    config: EngineConfig
    blend: BlendSettings

    @staticmethod
    def of(config: EngineConfig) -> "Roads":
        return Roads(config, BlendSettings.of(config.blend))

    def candidates(
        self,
        model: ServingModel,
        query: RecommendQuery,
        state: UserState,
        eligible: UInt8Array,
        clock: RequestClock,
        trace: Trace | None,
    ) -> tuple[Candidates, Strategy]:
        """The candidates of the road that this user takes, best first."""
        record = state.record
        if record is None or state.interaction_count < self.config.cold_start.min_interactions:
            return self._cold_start(model, query, state, eligible, clock)
        return self._personalized(model, query, state, record, eligible, clock, trace)

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

    def _cold_start(
        self, model: ServingModel, query: RecommendQuery, state: UserState, eligible: UInt8Array, clock: RequestClock
    ) -> tuple[Candidates, Strategy]:
        with clock.measure("cold_start"):
            popular, strategy = self._popular(model, query, state, eligible)
            signal = _signal(model, query, state, model.catalogue.rows(state.session.item_keys), self.blend.session)
        candidates = popular
        if signal.evidence > 0:
            candidates = clock.attempt(
                "steer",
                lambda: self._steered(model, query, popular, signal, eligible),
                lambda: popular,
                failed=DegradedReason.RETRIEVAL_FAILED,
                skipped=DegradedReason.RETRIEVAL_SKIPPED,
            )
        settings = self.config.cold_start
        with clock.measure("rotate"):
            period = query.time_ms // (settings.rotation_period_s * 1000)
            rotated = rotate(candidates, query.item_count, settings.rotation_share, query.user_id, period)
        return rotated, strategy

    def _steered(
        self,
        model: ServingModel,
        query: RecommendQuery,
        popular: Candidates,
        signal: SessionSignal,
        eligible: UInt8Array,
    ) -> Candidates:
        """What is popular, moved towards what is near the session."""
        near = retrieve(model.index, signal.vector, self._count(query), eligible, ItemSource.SESSION)
        weight = signal.evidence / (signal.evidence + self.blend.evidence_half)
        return steer(popular, near, signal.vector, model.catalogue.item_vectors, weight)

    def _personalized(
        self,
        model: ServingModel,
        query: RecommendQuery,
        state: UserState,
        record: UserRecord,
        eligible: UInt8Array,
        clock: RequestClock,
        trace: Trace | None,
    ) -> tuple[Candidates, Strategy]:
        with clock.measure("blend"):
            session_rows = model.catalogue.rows(state.session.item_keys)
            vector = query_vector(
                record.embedding,
                record.embedded_until_ms,
                state.session,
                session_rows,
                model.catalogue.item_vectors,
                query.time_ms,
                self.blend,
            )
            # The ranker reads the whole session, the part that the embedding has read as well: it learned beside both.
            signal = _signal(model, query, state, session_rows, model.bundle.ranker_session)
        candidates, strategy = clock.attempt(
            "retrieve",
            lambda: (retrieve(model.index, vector, self._count(query), eligible), Strategy.PERSONALIZED),
            lambda: self._popular(model, query, state, eligible),
            failed=DegradedReason.RETRIEVAL_FAILED,
            skipped=DegradedReason.RETRIEVAL_SKIPPED,
        )
        if strategy is not Strategy.PERSONALIZED:
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


def _signal(
    model: ServingModel, query: RecommendQuery, state: UserState, rows: Int64Array, settings: SessionSettings
) -> SessionSignal:
    """What the user's session, whose items have these rows, says at the time of the request."""
    return session_signal(
        rows,
        state.session.event_types,
        state.session.timestamps_ms,
        model.catalogue.item_vectors,
        query.time_ms,
        settings,
    )
