"""The first interactions of new items, revealed one by one: what is known of an item a minute or an hour later."""

from dataclasses import dataclass

import numpy as np
import scipy.sparse

from engine.evaluation.new_items import NewItems
from engine.features.history import HistoryStates
from engine.features.item_evidence import QueryMoments, folded_items, moved_vectors
from engine.training.als import AlsModel
from engine.training.embeddings import EmbeddingModel
from engine.types import Float32Array, Int64Array

# Moments of training whose query vectors stand for all.
_MOMENTS = 4096


@dataclass(frozen=True, slots=True)
class Revealed:
    """Sets of k interactions: one an item, and one more for each asked user who is in the item's own.

    A user is asked with k interactions of *other* users: the one of theirs is replaced by the item's next. An item
    with fewer interactions shows what it has.

    events, sets: int64 (e,), which event (of NewItems.event_*) is in which set; sets [0, items) are the items' own.
    asked, rows: int64 (p,), for which asked user (position in NewItems.users) and new row set items + p is.
    """

    item_count: int
    events: Int64Array
    sets: Int64Array
    asked: Int64Array
    rows: Int64Array

    @property
    def set_count(self) -> int:
        return self.item_count + len(self.rows)

    @staticmethod
    def of(split: NewItems, k: int) -> "Revealed":
        """Reveal k interactions of each new item, at random, of users of whom training knows something."""
        place = {int(user): position for position, user in enumerate(split.users)}
        by_item: list[list[int]] = [[] for _ in range(len(split.items))]
        for event in np.flatnonzero(split.event_known > 0).tolist():
            if len(by_item[split.event_rows[event]]) <= k:
                by_item[split.event_rows[event]].append(event)
        sets = [events[:k] for events in by_item]
        asked, rows = [], []
        for row, events in enumerate(by_item):
            for event in events[:k]:
                user = place.get(int(split.event_users[event]))
                if user is not None:
                    asked.append(user)
                    rows.append(row)
                    sets.append([other for other in events if other != event])
        sizes = np.array([len(events) for events in sets], np.int64)
        return Revealed(
            item_count=len(split.items),
            events=np.array([event for events in sets for event in events], np.int64),
            sets=np.repeat(np.arange(len(sets)), sizes),
            asked=np.array(asked, np.int64),
            rows=np.array(rows, np.int64),
        )

    def scores(self, queries: Float32Array, vectors: Float32Array) -> Float32Array:
        """float32 (asked, items): queries (asked, dim) against those of the vectors (sets, dim) that each may see."""
        scores = queries @ vectors[: self.item_count].T
        scores[self.asked, self.rows] = np.einsum("pd,pd->p", queries[self.asked], vectors[self.item_count :])
        return scores


def moved_by(
    split: NewItems, revealed: Revealed, model: EmbeddingModel, content: Float32Array, seed: int
) -> Float32Array:
    """float32 (sets, dim): content vectors (items, dim) of two towers, moved by each set of interactions."""
    codes = split.train.demographic_codes()
    needed, places = np.unique(revealed.events, return_inverse=True)
    states = HistoryStates(split.event_users[needed], split.event_known[needed])
    queries = model.user_vectors(split.histories, states, codes)
    members = scipy.sparse.csr_matrix(
        (np.ones(len(places)), (revealed.sets, places)), (revealed.set_count, len(needed))
    )
    moments = QueryMoments.of(model.user_vectors(split.histories, _some_moments(split, seed), codes))
    start = np.concatenate([content, content[revealed.rows]])
    return moved_vectors(start, members @ queries, np.bincount(revealed.sets, minlength=revealed.set_count), moments)


def folded_by(split: NewItems, revealed: Revealed, model: AlsModel) -> Float32Array:
    """float32 (sets, dim): of a matrix factorization, from each set of interactions alone."""
    users = model.user_vectors(split.histories, split.histories.latest(), split.train.demographic_codes())
    return folded_items(
        users,
        split.event_users[revealed.events],
        revealed.sets,
        revealed.set_count,
        model.alpha,
        model.regularization,
    )


def _some_moments(split: NewItems, seed: int) -> HistoryStates:
    """The states just before some training events, of those that had one before."""
    histories = split.histories
    users = np.repeat(np.arange(histories.user_count), histories.lengths())
    lengths = np.arange(len(users)) - histories.offsets[users]
    chosen = np.random.default_rng(seed).permutation(np.flatnonzero(lengths > 0))[:_MOMENTS]
    return HistoryStates(users[chosen], lengths[chosen])
