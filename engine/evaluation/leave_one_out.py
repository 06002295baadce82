"""The leave-one-out split: each user's last event is the test, everything before it is training."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from engine.data.dataset import Dataset
from engine.types import Int64Array

# Users with fewer training events are trained on, but not tested.
MIN_TRAINING_EVENTS = 4


@dataclass(frozen=True, slots=True)
class LeaveOneOut:
    """train: the data set without the test events. users, targets, times_ms: int64 (n,), the test events."""

    train: Dataset
    users: Int64Array
    targets: Int64Array
    times_ms: Int64Array


def leave_one_out(dataset: Dataset) -> LeaveOneOut:
    """Split by each user's own time. Only positive events count; a repeat of a training item is no test.

    Every item counts as in stock and shown everywhere: what is sold out today was on offer when the test event
    happened, and every method must rank the same items.

    A user whose last event is on an item that they had before keeps it in training and is not tested: what was
    seen is not offered again, so that no list could hold it.
    """
    events = dataset.interactions.positive()
    order = np.lexsort((np.arange(len(events)), events.timestamps_ms, events.users))
    users = events.users[order].astype(np.int64)
    last = np.flatnonzero(np.append(users[1:] != users[:-1], True))
    counts = np.bincount(users, minlength=dataset.user_count)
    pairs = users * dataset.item_count + events.rows[order]
    _, first_of_pair = np.unique(pairs, return_index=True)
    is_new = np.zeros(len(users), np.bool_)
    is_new[first_of_pair] = True
    tests = last[(counts[users[last]] > MIN_TRAINING_EVENTS) & is_new[last]]
    held_out = order[tests]
    keep = np.ones(len(events), np.bool_)
    keep[held_out] = False
    on_offer = dataset.items.with_columns(pl.lit(True).alias("in_stock"), pl.lit(None, pl.String).alias("surfaces"))
    return LeaveOneOut(
        train=Dataset(on_offer, dataset.users, events.select(keep), dataset.vocabularies),
        users=events.users[held_out].astype(np.int64),
        targets=events.rows[held_out].astype(np.int64),
        times_ms=events.timestamps_ms[held_out],
    )
