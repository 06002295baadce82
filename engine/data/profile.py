"""What a data directory holds, in numbers that show at a glance what is odd about it."""

from dataclasses import dataclass

import polars as pl

from engine.data.inspect import Inspection
from engine.data.rules import TableRules
from engine.data.schema import INTERACTIONS, ITEMS, USERS
from engine.data.validate import unknown_items

_DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Profile:
    """Of every row that is there, the bad ones included, as far as its values could be used.

    events_by_type: the archive's included. days: events by day (UTC, yyyy-mm-dd), in order. unknown_item_share: of
    the events, those whose item the item table does not have. one_event_users: users with one event.
    untouched_items: items without any. ahead_events, ahead_ms: events after now, and how far the furthest is.
    """

    events: int
    logged_events: int
    items: int
    users: int
    users_in_table: int
    events_by_type: dict[str, int]
    days: dict[str, int]
    unknown_item_share: float
    one_event_users: int
    untouched_items: int
    without_surface_share: float
    ahead_events: int
    ahead_ms: int


def profile(found: Inspection, rules: TableRules) -> Profile:
    """Count what was found. Cost: a few passes over the interactions."""
    table, items = found.frames[INTERACTIONS.name], found.frames[ITEMS.name]
    events = pl.concat([table, found.logged])
    # A date that is none is a fault, and would stretch the list of days over centuries.
    dated = events.filter(pl.col("timestamp_ms").is_between(0, rules.now_ms + rules.max_ahead_ms))
    days = (
        dated.select(pl.from_epoch(pl.col("timestamp_ms") // _DAY_MS, "d").alias("day"))
        .group_by("day")
        .len()
        .sort("day")
    )
    of_user = events.drop_nulls("user_id").group_by("user_id").len()
    ahead = events.filter(pl.col("timestamp_ms") > rules.now_ms)["timestamp_ms"]
    latest = ahead.max()
    return Profile(
        events=len(events),
        logged_events=len(found.logged),
        items=items.height,
        users=of_user.height,
        users_in_table=found.frames[USERS.name].height,
        events_by_type=dict(events["event_type"].drop_nulls().value_counts(sort=True).iter_rows()),
        days={str(day): count for day, count in days.iter_rows()},
        unknown_item_share=_share(unknown_items(events, items)),
        one_event_users=int((of_user["len"] == 1).sum()),
        untouched_items=items.join(events, on="item_id", how="anti").height,
        without_surface_share=_share(events["surface"].is_null()),
        ahead_events=len(ahead),
        ahead_ms=int(latest) - rules.now_ms if isinstance(latest, int) else 0,
    )


def _share(mask: pl.Series) -> float:
    return float(mask.sum()) / len(mask) if len(mask) else 0.0
