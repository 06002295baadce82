"""Where ranked candidates come from: the user's own vector, or what is popular among users like them."""

from dataclasses import dataclass

from engine.config.serving import EngineConfig
from engine.features.session import SessionSignal, session_signal
from engine.features.state import UserRecord
from engine.request.context import RequestContext
from engine.stages.blend import blend_session
from engine.stages.cold_start import popular_candidates, randomize, rerank_by_session
from engine.stages.rank import rank, ranking_context
from engine.stages.retrieve import retrieve
from engine.types import Candidates, DegradedReason, Demographics, ItemSource, Strategy


@dataclass(frozen=True, slots=True)
class CandidateSources:
    """The candidate sources under one server's settings."""

    config: EngineConfig

    def candidates(self, request: RequestContext) -> tuple[Candidates, Strategy]:
        """The candidates of the source that fits this user, best first, and which source that is."""
        if request.settings.baseline:
            with request.clock.measure("baseline"):
                # The same for everybody: nothing of the user counts, not even their age.
                return self._popular(request, Demographics())
        record = request.state.record
        if record is None or request.state.interaction_count < self.config.cold_start.min_interactions:
            return self._cold_start(request)
        return self._personalized(request, record)

    def _count(self, request: RequestContext) -> int:
        count = int(self.config.retrieval.candidate_count * request.query.effort)
        return max(count, request.query.item_count)

    def _popular(self, request: RequestContext, demographics: Demographics) -> tuple[Candidates, Strategy]:
        lists = request.model.popularity.lists
        # A copy, since the rows that are taken are cleared in it.
        eligible = request.eligible.copy()
        return popular_candidates(lists, demographics, request.query.surface, eligible, self._count(request))

    def _popular_among_like(self, request: RequestContext) -> tuple[Candidates, Strategy]:
        query, record = request.query, request.state.record
        known = record.demographics if record else query.demographics
        return self._popular(request, query.demographics.or_else(known))

    def _cold_start(self, request: RequestContext) -> tuple[Candidates, Strategy]:
        model, query, state, settings = request.model, request.query, request.state, request.settings
        with request.clock.measure("cold_start"):
            popular, strategy = self._popular_among_like(request)
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
            candidates = request.clock.attempt(
                "rerank_by_session",
                lambda: self._reranked(request, popular, signal),
                lambda: popular,
                failed=DegradedReason.RETRIEVAL_FAILED,
                skipped=DegradedReason.RETRIEVAL_SKIPPED,
            )
        cold_start = self.config.cold_start
        with request.clock.measure("randomize"):
            period = query.time_ms // (cold_start.rotation_period_s * 1000)
            mixed = randomize(candidates, query.item_count, cold_start.rotation_share, query.unit_id, period)
        return mixed, strategy

    def _reranked(self, request: RequestContext, popular: Candidates, signal: SessionSignal) -> Candidates:
        """The popular items and those near the session, in one order."""
        model = request.model
        near = retrieve(model.index, signal.vector, self._count(request), request.eligible, ItemSource.SESSION)
        weight = signal.evidence / (signal.evidence + request.settings.blend.evidence_half)
        return rerank_by_session(popular, near, signal.vector, model.catalogue.item_vectors, weight)

    def _personalized(self, request: RequestContext, record: UserRecord) -> tuple[Candidates, Strategy]:
        model, clock, session = request.model, request.clock, request.state.session
        with clock.measure("blend"):
            vector, signal = blend_session(
                record.embedding,
                record.embedded_until_ms,
                session,
                model.catalogue.rows(session.item_keys),
                model.catalogue.item_vectors,
                request.query.time_ms,
                request.settings.blend,
                model.bundle.ranker_session,
            )
        count = self._count(request)
        candidates, strategy = clock.attempt(
            "retrieve",
            lambda: (retrieve(model.index, vector, count, request.eligible), Strategy.PERSONALIZED),
            lambda: self._popular_among_like(request),
            failed=DegradedReason.RETRIEVAL_FAILED,
            skipped=DegradedReason.RETRIEVAL_SKIPPED,
        )
        if strategy is not Strategy.PERSONALIZED or not request.settings.ranker:
            return candidates, strategy
        ranked = clock.attempt(
            "rank",
            lambda: rank(
                model.ranker, ranking_context(model.encoder, request.query, record, vector, signal), candidates
            ),
            lambda: None,
            failed=DegradedReason.RANKING_FAILED,
            skipped=DegradedReason.RANKING_SKIPPED,
        )
        if request.trace is not None:
            request.trace.retrieved(candidates)
            if ranked is not None:
                request.trace.ranked(ranked)
        return candidates if ranked is None else ranked, strategy
