"""The order of the stages, and nothing else."""

import asyncio
import time
from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import replace
from typing import Final

import numpy as np

from engine.config.serving import EngineConfig
from engine.errors import DeadlineExceeded
from engine.experiments.assign import Assigned, Experiments
from engine.experiments.settings import RequestSettings
from engine.kernels.membership import clear_rows, test_rows
from engine.request.candidates import Roads
from engine.request.clock import RequestClock, StageEstimates, request_deadline
from engine.request.compute import Compute
from engine.request.explain import Trace, count_removed
from engine.request.model import ServingModel
from engine.rules.active import ActiveRules
from engine.stages.cold_start import behind, take_first, take_popular
from engine.stages.diversify import Diversifier, DppDiversifier, MmrDiversifier, SlateChoice, diversify
from engine.stages.eligibility import open_bitmap
from engine.stages.explore import Exploration, explore, new_among
from engine.stages.features import FetchFeatures
from engine.stages.filter import keep_eligible
from engine.stages.rules import Placed, constraints, place, rescore
from engine.stages.seen import SeenPolicy, SeenVerdict, apply_policy, let_back_in
from engine.types import (
    Candidates,
    DegradedReason,
    Int64Array,
    ItemSource,
    Recommendation,
    RecommendQuery,
    UInt8Array,
    UserState,
    event_name,
    item_keys,
)

_DIVERSIFIERS: Final[dict[str, Diversifier]] = {"mmr": MmrDiversifier(), "dpp": DppDiversifier()}
_MS_PER_MINUTE: Final = 60_000
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
        self._roads = Roads(config)
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
        """What is popular on the surface, in place of an answer that is late.

        The same stages under settings that leave them next to nothing to do: lists and bitmaps are kept ready, and
        nothing is searched, ranked or compared. Cost: about 0.2 ms, on the event loop.
        """
        late.mark()
        settings = assigned.settings.cheapest()
        # A weight of the request's own would have items compared.
        undemanding = replace(query, diversity_weight=None)
        clock = late.instead(_STILL_TRUE)
        answer = self.answer(model, undemanding, replace(assigned, settings=settings), state, clock)
        late.since_mark("fallback")
        return replace(
            answer,
            degraded_reasons=(*clock.degraded, DegradedReason.BUDGET_EXHAUSTED),
            timings=(*late.timings, clock.timings[-1]),
        )

    def answer(
        self, model: ServingModel, query: RecommendQuery, assigned: Assigned, state: UserState, clock: RequestClock
    ) -> Recommendation:
        """Everything after the features: pure computation."""
        catalogue, settings = model.catalogue, assigned.settings
        trace = Trace() if query.debug else None
        with clock.measure("eligibility"):
            rules = catalogue.active_rules(query, _age_group(query, state), settings.rules)
            eligible = open_bitmap(catalogue, query.surface, query.exclude_item_ids)
            rules.restrict(eligible, surface_applied=True)
            seen = apply_policy(self._seen[query.surface], catalogue, state.seen, query.time_ms, eligible)
        found, strategy = self._roads.candidates(model, query, state, settings, eligible, clock, trace)
        with clock.measure("filter"):
            # Stock may have changed while the request was under way; from here on nothing older is consulted.
            eligible &= catalogue.of_surface(query.surface)
            candidates, _ = keep_eligible(found, eligible)
        with clock.measure("rules"):
            pinned = self._pinned_rows(model, rules, eligible)
            candidates = rescore(candidates, rules, seen.factors(candidates.rows))
            candidates = seen.hold_back(candidates, query.item_count)
            candidates, let_back = self._fill_up(model, query, candidates, seen, eligible)
            placed = place(candidates, rules, pinned, query.item_count)
        with clock.measure("explore"):
            seen.take_recent(eligible)
            explored = self._explore(model, query, settings, placed, eligible)
        choice = by_merit = self._diversify(model, query, settings, explored.candidates, explored.fixed, rules, clock)
        if explored.by_chance:
            by_merit = self._diversify(model, query, settings, placed.candidates, placed.fixed, rules, clock)
        with clock.measure("respond"):
            slate = choice.candidates
            item_ids = catalogue.ids(slate.rows)
            propensities = explored.propensities(slate.rows, by_merit.candidates.rows)
            reasons = self._reasons(slate, item_ids, let_back) if let_back else {}
        explanation = None
        if trace is not None:
            trace.chosen(choice, rules, pinned)
            explanation = trace.explain(slate, rules, seen, count_removed(catalogue, query, seen, slate, rules))
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
            let_back_in=reasons,
        )

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

    @staticmethod
    def _pinned_rows(model: ServingModel, rules: ActiveRules, eligible: UInt8Array) -> Int64Array:
        """The row of each pin's item, -1 where it may not be shown."""
        if not rules.pins:
            return np.empty(0, np.int64)
        rows = model.catalogue.rows(item_keys([pin.item_id for pin in rules.pins]))
        return np.where(test_rows(eligible, rows), rows, -1)

    @staticmethod
    def _fill_up(
        model: ServingModel, query: RecommendQuery, candidates: Candidates, seen: SeenVerdict, eligible: UInt8Array
    ) -> tuple[Candidates, dict[int, int]]:
        """Whenever that many eligible items exist, that many come back. Clears what it knows of in `eligible`.

        First what is popular or new, then what was just looked at, at last what the seen policy hides: of the last two,
        the type of the event that had kept each row away comes back as well.
        """
        missing = query.item_count - len(candidates)
        if missing <= 0:
            return candidates, {}
        clear_rows(eligible, candidates.rows)
        held_back = seen.take_recent(eligible)
        popular = take_popular(model.popularity.lists.overall, eligible, missing, ItemSource.BACKFILL)
        # Items that came after the bundle, and of which nothing is heard yet, are in no list.
        newest = take_first(model.catalogue.fresh.newest_first(), eligible, missing - len(popular), ItemSource.BACKFILL)
        candidates = behind(candidates, Candidates.concat([popular, newest]))
        reasons: dict[int, int] = {}
        for kept_away in (held_back, seen.hidden):
            missing = query.item_count - len(candidates)
            if missing > 0 and len(kept_away.rows):
                again, why = let_back_in(kept_away, model.catalogue.of_surface(query.surface), missing)
                candidates = behind(candidates, again)
                reasons |= why
        return candidates, reasons

    @staticmethod
    def _reasons(slate: Candidates, item_ids: tuple[str, ...], let_back: dict[int, int]) -> dict[str, str]:
        """By id of each item that was let back in, the type of the event that had kept it away."""
        places = np.flatnonzero(slate.sources == ItemSource.LET_BACK_IN).tolist()
        return {item_ids[place]: event_name(let_back[int(slate.rows[place])]) for place in places}

    @staticmethod
    def _explore(
        model: ServingModel, query: RecommendQuery, settings: RequestSettings, placed: Placed, eligible: UInt8Array
    ) -> Exploration:
        share, catalogue = settings.exploration_share, model.catalogue
        new = np.empty(0, np.int64)
        if share and catalogue.fresh.count:
            new = new_among(eligible, model.popularity.new_rows, catalogue.fresh.first_row)
        # Within a minute, a request that is repeated gets the same answer.
        seed = f"{query.unit_id}:{query.surface}:{query.time_ms // _MS_PER_MINUTE}"
        return explore(placed.candidates, new, placed.fixed, share, seed)

    @staticmethod
    def _diversify(
        model: ServingModel,
        query: RecommendQuery,
        settings: RequestSettings,
        candidates: Candidates,
        fixed: Int64Array,
        rules: ActiveRules,
        clock: RequestClock,
    ) -> SlateChoice:
        weight = settings.diversity_weight if query.diversity_weight is None else query.diversity_weight
        return clock.attempt(
            "diversify",
            lambda: diversify(
                _DIVERSIFIERS[settings.diversity],
                candidates,
                model.catalogue.item_vectors,
                weight,
                settings.duplicate_similarity,
                query.item_count,
                constraints(candidates, rules, fixed),
            ),
            lambda: SlateChoice.head(candidates, query.item_count),
            failed=DegradedReason.DIVERSITY_FAILED,
            skipped=DegradedReason.DIVERSITY_SKIPPED,
        )


def _check(deadline: float) -> None:
    """Raises DeadlineExceeded where the caller's own has passed."""
    if time.monotonic() >= deadline:
        raise DeadlineExceeded("the deadline passed before an answer was ready")


def _age_group(query: RecommendQuery, state: UserState) -> str:
    return query.demographics.age_group or (state.record.demographics.age_group if state.record else "")
