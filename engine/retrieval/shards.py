"""Several searchers over consecutive rows, searched as one: for more results than one of them can return."""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from engine.retrieval.overfetch import Found, Searcher
from engine.types import Float32Array, UInt8Array

# A shard's part of the best k is binomial where items lie in random order: so many deviations above the mean.
_DEVIATIONS: Final = 4.0


class ShardedSearcher:
    """A Searcher over exact ones: an answer never skips an item that is better than what it holds.

    Each shard is asked for a little more than its part. No item that it kept back can be better than the last one that
    it returned; so what is at least as good as the best of those last ones is certain, and the rest is padded with -1.
    Where too little is certain, each shard is asked for twice as many, up to its limit.
    """

    def __init__(self, shards: Sequence[Searcher]) -> None:
        """shards: exact ones, of one dim; the first holds the first rows, and so on."""
        if not shards or len({shard.dim for shard in shards}) != 1:
            raise ValueError("shards must be of one dimension, and one at least")
        self._shards = tuple(shards)
        self._first_rows = np.concatenate([[0], np.cumsum([shard.item_count for shard in shards])])

    @property
    def dim(self) -> int:
        return self._shards[0].dim

    @property
    def item_count(self) -> int:
        return int(self._first_rows[-1])

    @property
    def max_k(self) -> int:
        """At most so many; fewer are certain where the best items crowd in few shards."""
        return sum(min(shard.max_k, shard.item_count) for shard in self._shards)

    @property
    def filters(self) -> bool:
        return False

    @property
    def filter_below(self) -> float:
        return 0.0

    def search(self, queries: Float32Array, k: int) -> Found:
        """See Searcher. Cost: that of all shards one after the other, and a sort of what they return."""
        part = k / len(self._shards)
        each = math.ceil(part + _DEVIATIONS * math.sqrt(part)) + 1
        while True:
            rows, scores, exhausted = self._merge(queries, k, each)
            if exhausted or (rows[:, -1] >= 0).all():
                return rows, scores
            each *= 2

    def search_eligible(self, queries: Float32Array, k: int, eligible: Sequence[UInt8Array]) -> Found:
        raise NotImplementedError("shards do not filter")

    def _merge(self, queries: Float32Array, k: int, each: int) -> tuple[*Found, bool]:
        """The k best of up to `each` of every shard, and whether no shard could have returned more."""
        all_rows, all_scores, exhausted = [], [], True
        floor = np.full((len(queries), 1), -np.inf, np.float32)
        for shard, first_row in zip(self._shards, self._first_rows, strict=False):
            count = min(each, shard.max_k, shard.item_count)
            exhausted = exhausted and count == min(shard.max_k, shard.item_count)
            rows, scores = shard.search(queries, count)
            if count < shard.item_count:
                floor = np.maximum(floor, scores[:, -1:])
            all_rows.append(np.where(rows >= 0, rows + first_row, -1))
            all_scores.append(scores)
        rows, scores = np.hstack(all_rows), np.hstack(all_scores)
        certain = (rows >= 0) & (scores >= floor)
        scores = np.where(certain, scores, np.float32(-np.inf))
        rows = np.where(certain, rows, -1)
        # Stable, so that of equal scores the lower row goes first; shards are in the order of their rows.
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        rows, scores = np.take_along_axis(rows, order, 1), np.take_along_axis(scores, order, 1)
        short = k - rows.shape[1]
        if short > 0:
            rows = np.pad(rows, ((0, 0), (0, short)), constant_values=-1)
            scores = np.pad(scores, ((0, 0), (0, short)), constant_values=-np.inf)
        return rows, scores, exhausted
