"""Eligibility for an index that cannot filter in its search: fetch more than is wanted, widen until it is there."""

from typing import Final, Protocol

import numpy as np

from engine.stages.retrieve import check_search
from engine.types import Float32Array, Int64Array, UInt8Array
from kernels.membership import count_rows, test_rows
from kernels.scan import scan_eligible
from kernels.topk import top_k

# More than the mean need: eligible items are not spread evenly over what is near a query.
_MARGIN: Final = 1.3
# Below this share of eligible items they are scanned exactly: fetching a hundred for each that may be shown costs more.
_SCAN_SHARE: Final = 0.01


class UnfilteredIndex(Protocol):
    """A searchable set of item vectors that knows nothing of eligibility, such as a classic GPU index."""

    @property
    def dim(self) -> int: ...

    @property
    def item_count(self) -> int: ...

    @property
    def max_k(self) -> int:
        """The most that one search can return."""
        ...

    def search(self, query: Float32Array, k: int) -> tuple[Int64Array, Float32Array]:
        """The k items with the largest inner product, best first; where it finds fewer, padded with rows of -1."""
        ...


class OverFetchingIndex:
    """An ItemIndex over one that cannot filter. Safe for concurrent searches where that one is."""

    def __init__(self, index: UnfilteredIndex, item_vectors: Float32Array) -> None:
        """item_vectors: float32 (item_count, at least dim), C-contiguous: for when few may be shown."""
        if len(item_vectors) != index.item_count:
            raise ValueError(f"{len(item_vectors)} item vectors do not go with an index of {index.item_count} items")
        self._index = index
        self._item_vectors = item_vectors

    @property
    def dim(self) -> int:
        return self._index.dim

    @property
    def item_count(self) -> int:
        return self._index.item_count

    def search(self, query: Float32Array, k: int, eligible: UInt8Array) -> tuple[Int64Array, Float32Array]:
        """See ItemIndex. Never short of min(k, eligible items): what widening cannot reach is scanned.

        Rows of -1, and rows that the table does not have, are dropped.
        """
        item_count = self.item_count
        check_search(self.dim, item_count, query, k, eligible)
        eligible_count = count_rows(eligible, item_count)
        wanted = min(k, eligible_count)
        if wanted <= 0:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        share = eligible_count / item_count
        limit = min(self._index.max_k, item_count)
        fetch = min(limit, int(wanted / share * _MARGIN) + 1)
        while share > _SCAN_SHARE:
            rows, scores = self._index.search(query, fetch)
            kept = np.flatnonzero((rows >= 0) & (rows < item_count) & test_rows(eligible, rows))[:wanted]
            if len(kept) == wanted:
                return rows[kept], scores[kept]
            if fetch >= limit:
                break
            fetch = min(2 * fetch, limit)
        rows, scores = scan_eligible(self._item_vectors, query, eligible)
        best = top_k(scores, wanted)
        return rows[best], scores[best]
