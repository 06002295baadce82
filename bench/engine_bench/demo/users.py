"""The demonstration's first calls: what some users are recommended, and what a few hundred calls take."""

import datetime
from collections import Counter
from dataclasses import asdict
from typing import Any, Final

import numpy as np
from rich.console import Console

from engine.data.dataset import Dataset
from engine_bench.demo.patient import PASSING, PatientClient, enum_name, stage_times
from engine_bench.demo.show import SHOWN, against_budgets, show_slate, show_stages, summarize_stages
from engine_bench.demo.tastes import Tastes
from engine_bench.demo.world import User
from engine_client.v1 import recommendation_pb2 as pb

TIMED_CALLS: Final = 400
_ITEMS: Final = 50
_BUDGET: Final = pb.DEGRADED_REASON_BUDGET_EXHAUSTED


class Moments:
    """When each user asks: a minute after their last event, since the data may be years old."""

    def __init__(self, dataset: Dataset) -> None:
        events = dataset.interactions
        self._places = {name: place for place, name in enumerate(dataset.users["user_id"])}
        self._end_ms = int(events.timestamps_ms.max())
        self._last_ms = np.full(dataset.user_count, 0, np.int64)
        np.maximum.at(self._last_ms, events.users, events.timestamps_ms)

    def of(self, user_id: str) -> datetime.datetime:
        """For somebody unknown, or without events, a minute after everyone's."""
        place = self._places.get(user_id)
        last_ms = int(self._last_ms[place]) if place is not None else 0
        return datetime.datetime.fromtimestamp((last_ms or self._end_ms) / 1000 + 60, datetime.UTC)


def show_users(
    client: PatientClient, dataset: Dataset, tastes: Tastes, users: list[User], surface: str, console: Console
) -> list[dict[str, Any]]:
    """Print the slate of each user, and return what was printed.

    Each has `user_id`, `kind`, `demographics`, `strategy`, `degraded_reasons`, `history` and `items` (the latest and
    the best first), and `main_categories` with how many of the first items are in them, where there is a history.
    """
    moments = Moments(dataset)
    shown = []
    for user in users:
        response, by_relevance = (
            client.recommend(
                user.user_id, surface, item_count=_ITEMS, time=moments.of(user.user_id),
                demographics=user.demographics, diversity_weight=weight,
            )
            for weight in (None, 0.0)
        )  # fmt: skip
        shown.append(_describe(user, response, by_relevance, tastes, surface))
        show_slate(console, shown[-1])
    return shown


def time_calls(client: PatientClient, dataset: Dataset, surface: str, console: Console) -> dict[str, Any]:
    """Ask for users at random, and print what the stages of personalized answers took.

    Returns `stages_ms`, `budgets`, and `calls`: how many there were, how many `failed` and how many were `hurried`,
    that is answered by popularity since the server's time for them ran out.
    """
    moments, known = Moments(dataset), dataset.users["user_id"].to_list()
    calls: list[dict[str, float]] = []
    failures: list[str] = []
    hurried = 0
    for user in np.random.default_rng(0).choice(len(known), TIMED_CALLS):
        try:
            # Each call once, as it comes: what is late belongs to the figures.
            response = client.client.recommend(known[user], surface, time=moments.of(known[user]), debug=True)
        except PASSING as error:
            failures.append(str(error))
            continue
        hurried += _BUDGET in response.degraded_reasons
        if response.strategy == pb.STRATEGY_PERSONALIZED:
            calls.append(stage_times(response))
    if failures:
        console.print(f"{len(failures)} of {TIMED_CALLS} calls failed, the first with: {failures[0]}")
    if hurried:
        console.print(
            f"{hurried} of {TIMED_CALLS} answers came from popularity: the machine was too busy for the rest in time"
        )
    parts = against_budgets(calls) if calls else []
    if parts:
        show_stages(console, parts, len(calls))
    return {
        "stages_ms": summarize_stages(calls),
        "budgets": parts,
        "calls": {"made": TIMED_CALLS, "failed": len(failures), "hurried": hurried},
    }


def _describe(
    user: User, response: pb.RecommendResponse, by_relevance: pb.RecommendResponse, tastes: Tastes, surface: str
) -> dict[str, Any]:
    strategy = enum_name(pb.Strategy, response.strategy, "STRATEGY_")
    places = {item.item_id: item.position for item in by_relevance.items}
    items: list[dict[str, Any]] = [
        {
            "position": item.position,
            "id": item.item_id,
            "title": tastes.title(item.item_id),
            "category": tastes.category(item.item_id),
            "score": item.score,
            "source": enum_name(pb.ItemSource, item.source, "ITEM_SOURCE_"),
            # None: diversity has moved it up from after the first _ITEMS.
            "relevance_position": places.get(item.item_id),
        }
        for item in response.items
    ]
    ranked = response.strategy == pb.STRATEGY_PERSONALIZED and not {
        pb.DEGRADED_REASON_RANKING_FAILED, pb.DEGRADED_REASON_RANKING_SKIPPED
    } & set(response.degraded_reasons)  # fmt: skip
    history = tastes.history(user.user_id)
    match = tastes.match(user.user_id, [item.item_id for item in response.items][:SHOWN], surface)
    about = ", ".join(value for value in asdict(user.demographics).values() if value)
    degraded = [enum_name(pb.DegradedReason, reason, "DEGRADED_REASON_") for reason in response.degraded_reasons]
    heading = f"{user.user_id} ({user.kind}{', ' + about if about else ''}): {strategy}"
    return {
        "user_id": user.user_id,
        "kind": user.kind,
        "demographics": asdict(user.demographics),
        "strategy": strategy,
        "degraded_reasons": [pb.DegradedReason.Name(reason) for reason in response.degraded_reasons],
        "history": [{"id": one, "title": tastes.title(one), "category": tastes.category(one)} for one in history],
        "items": items,
        "main_categories": list(match.categories) if match else [],
        "in_main_categories": match.matching if match else None,
        "in_main_categories_by_chance": match.chance if match else None,
        "heading": heading + (f" ({', '.join(degraded)})" if degraded else ""),
        "score_name": "click chance" if ranked else "score",
        "sentences": [one for one in (match.sentence if match else "", _order(items), _sources(items)) if one],
    }


def _sources(items: list[dict[str, Any]]) -> str:
    """Where the first items come from, unless it is all the same and as one would expect."""
    counts = Counter(item["source"] for item in items[:SHOWN])
    return "" if set(counts) <= {"retrieval"} else f"From {', '.join(f'{name} ({n})' for name, n in counts.items())}"


def _order(items: list[dict[str, Any]]) -> str:
    """Why the first items stand as they do."""
    moved = sum(item["relevance_position"] != item["position"] for item in items[:SHOWN])
    if not moved:
        return "In the order of their scores"
    newcomers = sum((item["relevance_position"] or _ITEMS + 1) > SHOWN for item in items[:SHOWN])
    brought = f", {newcomers} of them from further back" if newcomers else ""
    return f"Diversity moved {moved} of these {len(items[:SHOWN])}{brought}: their places by score are beside them"
