"""The leave-one-out split: each user's last event is the test, everything before it is training."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from engine.data.dataset import Dataset
from engine.features.seen_history import EVERYTHING_S, hides, offered
from engine.types import Int64Array

# Users with fewer training events are trained on, but not tested.
MIN_TRAINING_EVENTS = 4


@dataclass(frozen=True, slots=True)
class LeaveOneOut:
    """train: the data set without the test events. users, targets, times_ms: int64 (n,), the test events.

    hidden_places, hidden_rows: int64 (m,), which test's user is kept from which item at its moment, by what they did in
    training; a pair may be there twice.
    """

    train: Dataset
    users: Int64Array
    targets: Int64Array
    times_ms: Int64Array
    hidden_places: Int64Array
    hidden_rows: Int64Array


def leave_one_out(dataset: Dataset, hide_s: Int64Array = EVERYTHING_S) -> LeaveOneOut:
    """Split by each user's own time. Only positive events count.

    Every item counts as in stock and shown everywhere: what is sold out today was on offer when the test event
    happened, and every method must rank the same items.

    A user whose last event is on an item that the policy hides from them at that moment keeps it in training and is not
    tested: no list could hold it.

    Args:
        hide_s: int64 (256,), for how many seconds an event hides its item, by type. By default everything for ever: a
            repeat of a training item is no test then, and no list holds one.
    """
    events = dataset.interactions.positive()
    order = np.lexsort((np.arange(len(events)), events.timestamps_ms, events.users))
    users = events.users[order].astype(np.int64)
    last = np.flatnonzero(np.append(users[1:] != users[:-1], True))
    counts = np.bincount(users, minlength=dataset.user_count)
    tests = last[(counts[users[last]] > MIN_TRAINING_EVENTS) & offered(dataset.histories(), hide_s)[last]]
    held_out = order[tests]
    keep = np.ones(len(events), np.bool_)
    keep[held_out] = False
    train = events.select(keep)
    place = np.full(dataset.user_count, -1)
    place[events.users[held_out]] = np.arange(len(held_out))
    tested = np.flatnonzero(place[train.users] >= 0)
    places = place[train.users[tested]]
    hidden = hides(
        train.event_types[tested], train.timestamps_ms[tested], events.timestamps_ms[held_out][places], hide_s
    )
    on_offer = dataset.items.with_columns(pl.lit(True).alias("in_stock"), pl.lit(None, pl.String).alias("surfaces"))
    return LeaveOneOut(
        train=Dataset(on_offer, dataset.users, train, dataset.vocabularies),
        users=events.users[held_out].astype(np.int64),
        targets=events.rows[held_out].astype(np.int64),
        times_ms=events.timestamps_ms[held_out],
        hidden_places=places[hidden],
        hidden_rows=train.rows[tested][hidden].astype(np.int64),
    )
