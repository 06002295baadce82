"""The new-items split: a fifth of the items that matter is unknown to training, as if it came out tomorrow."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from engine.data.dataset import Dataset
from engine.errors import DataError
from engine.evaluation.leave_one_out import MIN_TRAINING_EVENTS
from engine.features.history import Histories, HistoryStates
from engine.types import Int64Array

HELD_OUT_SHARE = 0.2
# An item that next to nobody turned to says nothing of whether it would have been found.
MIN_ITEM_EVENTS = 5


@dataclass(frozen=True, slots=True)
class NewItemsSplit:
    """m items that training does not know, and the n users who are asked about them.

    train: the data set without the new items and without all events on them. Users keep their positions.
    items: canonical item columns of the m new items; "new row" r below is line r of it.
    histories: the positive events of training. users, targets: int64 (n,), a user and the new row that they turned to.
    known: int64 (n,), the user's training events strictly before that moment, >= MIN_TRAINING_EVENTS.
    event_users, event_rows, event_known: int64 (e,), every user's first event on each new item: who, the new row, and
    how many training events they had before it. In random order, so that the first k of an item are k at random.
    """

    train: Dataset
    items: pl.DataFrame
    histories: Histories
    users: Int64Array
    targets: Int64Array
    known: Int64Array
    event_users: Int64Array
    event_rows: Int64Array
    event_known: Int64Array

    @property
    def states(self) -> HistoryStates:
        """What is known of each asked user just before they turned to their target."""
        return HistoryStates(self.users, self.known)


def new_items(dataset: Dataset, seed: int) -> NewItemsSplit:
    """Draw the new items and take all trace of them out of training.

    A fifth (HELD_OUT_SHARE) of the items with at least MIN_ITEM_EVENTS positive events, drawn with `seed`; rarer ones
    stay in training. A user is asked about their last event on a new item, when MIN_TRAINING_EVENTS of their training
    events came strictly before it: all that the user's vector is made from. What they did later stays in training, as
    what others do later does.

    Raises DataError where there are too few items or users for anything to be asked.

    Cost: O(n log n).
    """
    events = dataset.interactions.positive()
    rng = np.random.default_rng(seed)
    counts = np.bincount(events.rows, minlength=dataset.item_count)
    eligible = np.flatnonzero(counts >= MIN_ITEM_EVENTS)
    held_out = np.sort(rng.permutation(eligible)[: int(HELD_OUT_SHARE * len(eligible))])
    place = np.full(dataset.item_count, -1)
    place[held_out] = np.arange(len(held_out))
    is_new = place >= 0
    everything = dataset.interactions
    train_events = everything.select(~is_new[everything.rows])
    # Rows of the catalogue that is left. Made by select: these arrays are nobody else's.
    train_events.rows[:] = (np.cumsum(~is_new) - 1)[train_events.rows]
    train = Dataset(dataset.items.filter(~is_new), dataset.users, train_events, dataset.vocabularies)
    histories = train.histories()

    on_new = events.select(is_new[events.rows])
    rows = place[on_new.rows]
    _, first = np.unique(on_new.users.astype(np.int64) * len(held_out) + rows, return_index=True)
    users, rows = on_new.users[first].astype(np.int64), rows[first]
    times_ms = on_new.timestamps_ms[first]
    known = events_before(histories, users, times_ms)

    by_time = np.lexsort((times_ms, users))
    last = by_time[np.append(users[by_time][1:] != users[by_time][:-1], True)] if len(users) else by_time
    asked = last[known[last] >= MIN_TRAINING_EVENTS]
    if not len(asked):
        raise DataError("no user has enough events to be asked about new items")
    shuffled = rng.permutation(len(users))
    return NewItemsSplit(
        train=train,
        items=dataset.items.filter(is_new),
        histories=histories,
        users=users[asked],
        targets=rows[asked],
        known=known[asked],
        event_users=users[shuffled],
        event_rows=rows[shuffled],
        event_known=known[shuffled],
    )


def events_before(histories: Histories, users: Int64Array, times_ms: Int64Array) -> Int64Array:
    """int64 (n,): how many events of each user (n,) lie strictly before each moment (n,). Cost: O(n log n)."""
    counts = np.empty(len(users), np.int64)
    for place, (user, time_ms) in enumerate(zip(users.tolist(), times_ms.tolist(), strict=True)):
        own = histories.timestamps_ms[histories.offsets[user] : histories.offsets[user + 1]]
        counts[place] = np.searchsorted(own, time_ms)
    return counts
