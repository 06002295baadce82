"""What attributes alone say of a new item: the baseline that a learned content vector has to beat."""

from dataclasses import dataclass

import numpy as np
import polars as pl
import scipy.sparse

from engine.features.history import Histories, HistoryStates
from engine.types import Float64Array

CATEGORY = ("category",)
ATTRIBUTES = ("category", "brand", "attributes")
# Events that everybody's taste is worth in a person's own. The best of 3, 10, 30 and 100 on ml-latest-small.
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
