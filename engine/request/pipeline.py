"""The order of the stages, and nothing else."""

import asyncio
import time
from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import replace
from typing import Final

from engine.config.serving import EngineConfig
from engine.errors import DeadlineExceeded
from engine.experiments.assign import Assigned, Experiments
from engine.experiments.settings import RequestSettings
from engine.features.state import UserState
from engine.request.candidates import CandidateSources
from engine.request.clock import RequestClock, StageEstimates, request_deadline
from engine.request.compute import Compute
from engine.request.context import RequestContext
from engine.request.explain import Trace, count_removed
from engine.request.model import ServingModel
from engine.request.slate import choose, explore_new, fill_up, pinned_rows, reasons_by_id
from engine.stages.eligibility import open_bitmap
from engine.stages.features import FetchFeatures
from engine.stages.filter import keep_eligible
from engine.stages.rules import place, rescore
from engine.stages.seen import SeenPolicy, apply_policy
from engine.types import DegradedReason, Recommendation, RecommendQuery

# What is as true of the answer that is given in place of a late one.
_STILL_TRUE: Final = frozenset(
    {
        DegradedReason.FEATURES_STALE,
        DegradedReason.FEATURES_UNAVAILABLE,
        DegradedReason.VARIANT_BUNDLE_UNAVAILABLE,
    }
)


class Pipeline:
    """Answers requests. Knows no transport.

    `model`, and those of other versions that variants name, may be replaced at any time: a request keeps what it began
    with.
    """

    def __init__(self, model: ServingModel, features: FetchFeatures, config: EngineConfig, executor: Executor) -> None:
        self.model = model
        self._features = features
        self._config = config
        self.variant_models: Mapping[str, ServingModel] = {}
        self.experiments = Experiments(config)
        self._sources = CandidateSources(config)
        self._compute = Compute[Recommendation](executor, config.server.max_concurrent_requests)
        half_life_s = config.processor.impression_half_life_s
        self._seen = {surface: SeenPolicy.of(config.seen_on(surface), half_life_s) for surface in config.surfaces}
        self._estimates = StageEstimates()
        self._one_by_one = asyncio.Lock()

    @property
    def version(self) -> str:
        """The bundle that serves at this moment."""
        return self.model.bundle.version

    @property
    def models(self) -> tuple[ServingModel, ...]:
        """All that may answer, the current one first."""
        return (self.model, *(model for model in self.variant_models.values() if model is not self.model))

    async def recommend(
        self, query: RecommendQuery, answer_by: float, deadline: float = float("inf")
    ) -> Recommendation:
        """The slate for one request.

        Args:
            answer_by: a time.monotonic() instant. What is not ready by then is given up, no native call is made for it
                any more, and what is popular on the surface answers at once, without a thread of its own.
            deadline: such an instant, too, after which nobody waits.

        Raises:
            DeadlineExceeded: the deadline has passed. InvalidRequest: a variant is asked for that there is not.
        """
        _check(deadline)
        clock = RequestClock(min(answer_by, deadline), self._estimates)
        assigned = self.experiments.assign(query)
        model = self._model_of(assigned.settings, clock)
        clock.mark()
        known, degraded = await self._features(query.user_id, model.bundle.manifest.generation, clock.remaining_s())
        clock.since_mark("features")
        state = known.at(query.time_ms, self._config.blend.session_ttl_s)
        if degraded is not None:
            clock.degraded.append(degraded)
        if query.effort < 1.0:
            clock.degraded.append(DegradedReason.EFFORT_REDUCED)
        if query.effort > 0.0:
            clock.mark()
            answer = await self._compute(lambda: self._in_thread(model, query, assigned, state, clock), clock)
            _check(deadline)
            if answer is not None:
                return answer
        # One in each turn of the event loop: those of many late requests together would hold it up.
        async with self._one_by_one:
            answer = self._cheapest(model, query, assigned, state, clock)
            await asyncio.sleep(0)
        return answer

    def _in_thread(
        self, model: ServingModel, query: RecommendQuery, assigned: Assigned, state: UserState, clock: RequestClock
    ) -> Recommendation:
        request_deadline.set(clock.deadline)
        clock.since_mark("queue")
        return self.answer(model, query, assigned, state, clock)

    def _cheapest(
        self, model: ServingModel, query: RecommendQuery, assigned: Assigned, state: UserState, late: RequestClock
    ) -> Recommendation:
        """What is popular on the surface, in place of an answer that is late, or that is not even tried.

        The same stages under settings that leave them next to nothing to do: lists and bitmaps are kept ready, and
        nothing is searched, ranked or compared. Cost: about 0.2 ms, on the event loop.
        """
        late.mark()
        settings = assigned.settings.cheapest()
        # A weight of the request's own would have items compared.
        undemanding = replace(query, diversity_weight=None)
        clock = late.instead(_STILL_TRUE)
        reason = DegradedReason.BUDGET_EXHAUSTED if query.effort else DegradedReason.EFFORT_REDUCED
        answer = self.answer(model, undemanding, replace(assigned, settings=settings), state, clock)
        late.since_mark("fallback")
        return replace(
            answer,
            degraded_reasons=(*clock.degraded, reason),
            timings=(*late.timings, clock.timings[-1]),
        )

    def answer(
        self, model: ServingModel, query: RecommendQuery, assigned: Assigned, state: UserState, clock: RequestClock
    ) -> Recommendation:
        """Everything after the features: pure computation."""
        with clock.measure("eligibility"):
            request = self._open(model, query, assigned.settings, state, clock)
        rules, seen, eligible, trace = request.rules, request.seen, request.eligible, request.trace
        found, strategy = self._sources.candidates(request)
        with clock.measure("filter"):
            # Stock may have changed while the request was under way; from here on nothing older is consulted.
            eligible &= model.catalogue.of_surface(query.surface)
            candidates, _ = keep_eligible(found, eligible)
        with clock.measure("rules"):
            pinned = pinned_rows(request)
            candidates = rescore(candidates, rules, seen.factors(candidates.rows))
            candidates = seen.hold_back(candidates, query.item_count)
            candidates, let_back = fill_up(request, candidates)
            placed = place(candidates, rules, pinned, query.item_count)
        with clock.measure("explore"):
            seen.take_recent(eligible)
            explored = explore_new(request, placed)
        choice = by_merit = choose(request, explored.candidates, explored.fixed)
        if explored.by_chance:
            by_merit = choose(request, placed.candidates, placed.fixed)
        with clock.measure("respond"):
            slate = choice.candidates
            item_ids = model.catalogue.ids(slate.rows)
            propensities = explored.propensities(slate.rows, by_merit.candidates.rows)
        explanation = None
        if trace is not None:
            trace.chosen(choice, rules, pinned)
            explanation = trace.explain(slate, rules, seen, count_removed(model.catalogue, query, seen, slate, rules))
        clock.total()
        return Recommendation(
            slate=slate,
            item_ids=item_ids,
            propensities=propensities,
            strategy=strategy,
            bundle_version=model.bundle.version,
            degraded_reasons=tuple(clock.degraded),
            timings=tuple(clock.timings),
            candidate_count=len(found),
            known_user=state.record is not None,
            interaction_count=state.interaction_count,
            explanation=explanation,
            experiments=assigned.experiments,
            let_back_in=reasons_by_id(slate, item_ids, let_back),
        )

    def _open(
        self,
        model: ServingModel,
        query: RecommendQuery,
        settings: RequestSettings,
        state: UserState,
        clock: RequestClock,
    ) -> RequestContext:
        """The request with what may be shown to it: rules and the seen policy have narrowed the surface's bitmap."""
        catalogue = model.catalogue
        rules = catalogue.active_rules(query, _age_group(query, state), settings.rules)
        eligible = open_bitmap(catalogue, query.surface, query.exclude_item_ids)
        rules.restrict(eligible, surface_applied=True)
        seen = apply_policy(self._seen[query.surface], catalogue, state.seen, query.time_ms, eligible)
        trace = Trace() if query.debug else None
        return RequestContext(model, query, state, settings, clock, trace, eligible, rules, seen)

    def _model_of(self, settings: RequestSettings, clock: RequestClock) -> ServingModel:
        """The model that the request's variants name; the current one where that cannot be used."""
        model = self.model
        if not settings.bundle:
            return model
        named = self.variant_models.get(settings.bundle)
        if named is None:
            clock.degraded.append(DegradedReason.VARIANT_BUNDLE_UNAVAILABLE)
            return model
        return named


def _check(deadline: float) -> None:
    """Raises DeadlineExceeded where the caller's own has passed."""
    if time.monotonic() >= deadline:
        raise DeadlineExceeded("the deadline passed before an answer was ready")


def _age_group(query: RecommendQuery, state: UserState) -> str:
    return query.demographics.age_group or (state.record.demographics.age_group if state.record else "")
