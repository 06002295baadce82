"""Whether a data set holds what training needs, before any time is spent on it."""

from collections import Counter

import numpy as np

from engine.data.dataset import POSITIVE_EVENTS, Dataset
from engine.errors import DataError
from engine.training.config import TrainingConfig
from engine.training.ranker.split import RankerSplit
from engine.training.two_tower.windows import next_new_items
from engine.types import EventType

_NEEDED = "training needs a user with two events on different items, to learn what follows what"


def check_trainable(dataset: Dataset, split: RankerSplit, config: TrainingConfig) -> None:
    """Raise DataError that says what is missing, where the split holds no example; see split_for_ranker.

    Cost: O(n log n) for n events where something is missing, nothing otherwise.
    """
    if not len(split) or not len(split.head):
        raise DataError(_what_is_missing(dataset, split, config))
    if config.embeddings == "two-tower":
        # The towers learn twice, and the first time without what the ranker is to be asked.
        head = dataset.with_interactions(split.head).histories()
        if not (next_new_items(head, config.quiet_s()) >= 0).any():
            raise DataError(
                f"{_NEEDED}; without each user's last events, which teach the ranker, no user has two: "
                "the two-tower model needs one more, --embeddings als does not"
            )


def check_not_empty(dataset: Dataset) -> None:
    """Raise DataError that says what there is, where no event shows interest."""
    if dataset.item_count == 0:
        raise DataError("training needs items; the data has none")
    kinds = dataset.interactions.event_types
    if not np.isin(kinds, POSITIVE_EVENTS).any():
        counts = Counter(EventType(kind).name.lower() for kind in kinds.tolist())
        there = ", ".join(f"{count:,} of type {name}" for name, count in counts.most_common()) or "none at all"
        raise DataError(f"training needs events of type view, click, cart or purchase; of the events there are {there}")
    if not dataset.histories().lengths().any():
        raise DataError(f"{_NEEDED}; every purchase of the data was taken back, and it has no other interest")


def _what_is_missing(dataset: Dataset, split: RankerSplit, config: TrainingConfig) -> str:
    histories = split.histories
    counts = histories.lengths()
    users = int((counts > 0).sum())
    different = np.zeros(histories.user_count, np.int64)
    np.add.at(different, np.repeat(np.arange(histories.user_count), counts), histories.first_events())
    if different.max() >= 2 and config.ranker.split == "global-time":
        return (
            f'{_NEEDED}, one before and one after the moment that ranker.split = "global-time" cuts at; of {users:,} '
            'users none has them: choose "per-user-tail", or a larger ranker.tail_fraction'
        )
    if different.max() >= 2:
        return (
            f"{_NEEDED}; of {users:,} users none comes to a different item in the last "
            f"{config.ranker.tail_fraction:.0%} of their events: raise ranker.tail_fraction or ranker.tail_events"
        )
    if len(np.unique(histories.rows)) == 1:
        item_id = dataset.items["item_id"][int(histories.rows[0])]
        return f"{_NEEDED}; all {len(histories.rows):,} events are on item {item_id!r}"
    if counts.max() == 1:
        return f"{_NEEDED}; each of the {users:,} users came once"
    again = int((counts > 1).sum())
    return f"{_NEEDED}; of {users:,} users {again:,} came more than once, but always to the same item"
