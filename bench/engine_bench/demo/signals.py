"""A click now moves the very next slate: through the API, Kafka, the stream processor and Redis."""

import time
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from engine.data.dataset import Dataset
from engine.errors import DependencyUnavailable
from engine_bench.demo.patient import PatientClient
from engine_bench.demo.tastes import Tastes
from engine_client import build_event
from engine_client.v1 import event_pb2
from engine_client.v1 import recommendation_pb2 as pb

CLICKS = 5
SHOWN = 10
PATIENCE_S = 60.0
_POLL_S = 0.002
# A category is worth showing when it has items left after the clicks.
_MIN_ITEMS = 20


def show_signals(
    client: PatientClient, dataset: Dataset, tastes: Tastes, user_id: str, surface: str, console: Console
) -> dict[str, Any]:
    """Record clicks on one category that the user's slate does not show, and print the slate before and after.

    Raises DependencyUnavailable when the clicks do not show within PATIENCE_S.
    """
    before = client.recommend(user_id, surface)
    shown = {item.item_id for item in before.items}
    category = _absent_category(dataset, [tastes.category(item.item_id) for item in before.items[:SHOWN]])
    clicked = [item_id for item_id in _most_popular(dataset, category) if item_id not in shown][:CLICKS]
    client.record_events(
        [build_event(user_id, event_pb2.EVENT_TYPE_CLICK, item_id, surface=surface) for item_id in clicked]
    )
    started = time.perf_counter()
    after = before
    while [item.item_id for item in after.items] == [item.item_id for item in before.items]:
        if time.perf_counter() - started > PATIENCE_S:
            raise DependencyUnavailable("the clicks did not reach the recommendations; see the processor's log")
        time.sleep(_POLL_S)
        after = client.recommend(user_id, surface)
    reflected_ms = (time.perf_counter() - started) * 1000.0

    table = Table(
        title=f"{user_id} clicks {CLICKS} items of {category}; {reflected_ms:.0f} ms later", title_justify="left"
    )
    table.add_column("before", width=56, no_wrap=True)
    table.add_column("after", width=56, no_wrap=True)
    for old, new in zip(before.items[:SHOWN], after.items[:SHOWN], strict=False):
        table.add_row(*(f"{tastes.title(item.item_id)} ({tastes.category(item.item_id)})" for item in (old, new)))
    console.print(table)

    def share(response: pb.RecommendResponse) -> float:
        return float(np.mean([tastes.category(item.item_id) == category for item in response.items]))

    console.print(f"share of {category} in the slate: {share(before):.0%} before, {share(after):.0%} after")
    return {
        "user_id": user_id,
        "category": category,
        "clicked": clicked,
        "before": [item.item_id for item in before.items],
        "after": [item.item_id for item in after.items],
        "slates": {"before": _described(before, tastes), "after": _described(after, tastes)},
        "clicked_titles": [tastes.title(item_id) for item_id in clicked],
        "share_before": share(before),
        "share_after": share(after),
        "reflected_ms": round(reflected_ms, 1),
    }


def _described(response: pb.RecommendResponse, tastes: Tastes) -> list[dict[str, str]]:
    return [
        {"title": tastes.title(item.item_id), "category": tastes.category(item.item_id)}
        for item in response.items[:SHOWN]
    ]


def _absent_category(dataset: Dataset, present: list[str]) -> str:
    """The largest category that is not among these."""
    counts = dataset.items["category"].drop_nulls().value_counts(sort=True).sort("count", "category", descending=True)
    for category, count in counts.iter_rows():
        if category not in present and count >= _MIN_ITEMS:
            return str(category)
    return str(counts["category"][-1])


def _most_popular(dataset: Dataset, category: str) -> list[str]:
    """The ids of a category's items, most interactions first."""
    counts = np.bincount(dataset.interactions.rows, minlength=dataset.item_count)
    rows = np.flatnonzero((dataset.items["category"] == category).fill_null(False).to_numpy())
    item_ids = dataset.items["item_id"]
    return [item_ids[int(row)] for row in rows[np.argsort(-counts[rows], kind="stable")]]
