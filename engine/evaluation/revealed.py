"""What the new-items protocol compares content with: attributes alone, and the first interactions of a new item.

Interactions are revealed one by one: what is known of an item a minute or an hour later.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl
import scipy.sparse

from engine.evaluation.new_items import NewItemsSplit
from engine.features.history import Histories, HistoryStates
from engine.features.item_evidence import QueryMoments, folded_items, moved_vectors
from engine.training.als import AlsModel
from engine.training.embeddings import EmbeddingModel
from engine.types import Float32Array, Float64Array, Int64Array

# Moments of training whose query vectors stand for all.
_MOMENTS = 4096


@dataclass(frozen=True, slots=True)
class Revealed:
    """Sets of k interactions: one an item, and one more for each asked user who is in the item's own.

    A user is asked with k interactions of *other* users: the one of theirs is replaced by the item's next. An item
    with fewer interactions shows what it has.

    events, sets: int64 (e,), which event (of NewItemsSplit.event_*) is in which set; sets [0, items) are the items'
        own.
    asked, rows: int64 (p,), for which asked user (position in NewItemsSplit.users) and new row set items + p is.
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
    def of(split: NewItemsSplit, k: int) -> "Revealed":
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
    split: NewItemsSplit, revealed: Revealed, model: EmbeddingModel, content: Float32Array, seed: int
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


def folded_by(split: NewItemsSplit, revealed: Revealed, model: AlsModel) -> Float32Array:
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


def _some_moments(split: NewItemsSplit, seed: int) -> HistoryStates:
    """The states just before some training events, of those that had one before."""
    histories = split.histories
    users = np.repeat(np.arange(histories.user_count), histories.lengths())
    lengths = np.arange(len(users)) - histories.offsets[users]
    chosen = np.random.default_rng(seed).permutation(np.flatnonzero(lengths > 0))[:_MOMENTS]
    return HistoryStates(users[chosen], lengths[chosen])


CATEGORY = ("category",)
ATTRIBUTES = ("category", "brand", "attributes")
# Events that everybody's taste is worth in a user's own. The best of 3, 10, 30 and 100 on ml-latest-small.
PRIOR_EVENTS = 10.0


@dataclass(frozen=True, slots=True)
class AttributeTaste:
    """Tokens of known and new items, and how much more often a token is taken than a catalogue of its share would be.

    known: (items, tokens), new: (new items, tokens), 0 or 1. offered: float64 (tokens,), the share of known items
    with the token. taken: float64 (tokens,), the share of events.
    """

    known: scipy.sparse.csr_matrix
    new: scipy.sparse.csr_matrix
    offered: Float64Array
    taken: Float64Array

    @staticmethod
    def of(
        items: pl.DataFrame, new_items: pl.DataFrame, histories: Histories, columns: tuple[str, ...]
    ) -> "AttributeTaste":
        """Count tokens of these item columns; what no known item has says nothing and is left out."""
        lists = _tokens(items, columns)
        vocabulary = {
            token: place for place, token in enumerate(sorted({token for tokens in lists for token in tokens}))
        }
        known, new = _matrix(lists, vocabulary), _matrix(_tokens(new_items, columns), vocabulary)
        events = np.bincount(histories.rows, minlength=len(lists))
        offered = np.asarray(known.mean(axis=0), np.float64).ravel()
        return AttributeTaste(known, new, offered, (known.T @ events + offered) / (events.sum() + 1.0))

    def popularity(self) -> Float64Array:
        """float64 (new items,): the sum over an item's tokens of log(taken / offered), for nobody in particular."""
        scores: Float64Array = self.new @ np.log(self.taken / self.offered)
        return scores

    def of_users(self, histories: Histories, states: HistoryStates) -> Float64Array:
        """float64 (n, new items): the same with each user's own shares, smoothed towards everybody's.

        Naive Bayes: the log odds that what this user turns to has these tokens, against what is on offer.
        """
        events = _events(histories, states, self.known.shape[0])
        shares = (events @ self.known).toarray() + PRIOR_EVENTS * self.taken
        shares /= states.lengths[:, None] + PRIOR_EVENTS
        scores: Float64Array = np.ascontiguousarray((self.new @ np.log(shares / self.offered).T).T)
        return scores


def _tokens(items: pl.DataFrame, columns: tuple[str, ...]) -> list[list[str]]:
    """The different tokens of each item. Attributes are a list, separated by "|"."""
    found: list[list[str]] = []
    for values in items.select(columns).rows():
        tokens = []
        for column, value in zip(columns, values, strict=True):
            parts = (value or "").lower().split("|") if column == "attributes" else [(value or "").lower()]
            tokens += [f"{column}:{part}" for part in parts if part]
        found.append(list(dict.fromkeys(tokens)))
    return found


def _matrix(lists: list[list[str]], vocabulary: dict[str, int]) -> scipy.sparse.csr_matrix:
    places = [[vocabulary[token] for token in tokens if token in vocabulary] for tokens in lists]
    edges = np.cumsum([0, *map(len, places)])
    columns = np.array([place for line in places for place in line], np.int64)
    return scipy.sparse.csr_matrix((np.ones(len(columns)), columns, edges), (len(lists), len(vocabulary)))


def _events(histories: Histories, states: HistoryStates, item_count: int) -> scipy.sparse.csr_matrix:
    """(n, items): how often each item is in each state."""
    edges = np.concatenate([[0], np.cumsum(states.lengths)])
    places = np.repeat(histories.offsets[states.users] - edges[:-1], states.lengths) + np.arange(edges[-1])
    return scipy.sparse.csr_matrix((np.ones(len(places)), histories.rows[places], edges), (len(states), item_count))
