"""Eligibility for an index that cannot filter in its search: fetch more than is wanted, widen until it is there."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from engine.kernels.membership import count_rows, first_members
from engine.kernels.scan import scan_eligible
from engine.kernels.topk import top_k
from engine.stages.retrieve import check_search
from engine.types import Float32Array, Int64Array, UInt8Array

Found = tuple[Int64Array, Float32Array]

# More than the mean need: eligible items are not spread evenly over what is near a query.
_MARGIN: Final = 1.3
# Below this share of eligible items they are scanned exactly: fetching a hundred for each that may be shown costs more.
_SCAN_SHARE: Final = 0.01
# Where not even this part of what is wanted can be expected among all that a search returns, none is made.
_HOPE: Final = 0.5


class Searcher(Protocol):
    """A searchable set of item vectors on some device, for whole batches of queries. Safe for concurrent searches."""

    @property
    def dim(self) -> int: ...

    @property
    def item_count(self) -> int: ...

    @property
    def max_k(self) -> int:
        """The most that one search can return."""
        ...

    @property
    def filters(self) -> bool:
        """Whether `search_eligible` works. Classic GPU indexes ignore a selector without a word (faiss#3924)."""
        ...

    @property
    def filter_below(self) -> float:
        """The share of eligible items below which filtering costs less than fetching more; 0 where it never does."""
        ...

    def search(self, queries: Float32Array, k: int) -> Found:
        """The k items with the largest inner product with each query, best first.

        Args:
            queries: float32 (m, dim), C-contiguous. k: from 1 to max_k.

        Returns:
            rows int64 (m, k) and scores float32 (m, k); where fewer are found, -1 as rows, anywhere.
        """
        ...

    def search_eligible(self, queries: Float32Array, k: int, eligible: Sequence[UInt8Array]) -> Found:
        """The same among the rows that each query's own bitmap names, k of them at least."""
        ...


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """One checked search: wanted is min(k, eligible items); share is that of eligible items among all."""

    query: Float32Array
    eligible: UInt8Array
    wanted: int
    share: float

    @property
    def is_selective(self) -> bool:
        """Whether an exact scan of the eligible rows is the cheapest way to the answer."""
        return self.wanted == 0 or self.share <= _SCAN_SHARE


class EligibleScan:
    """What any search over these items can begin and, where nothing else fills its answer, end with."""

    def __init__(self, dim: int, item_vectors: Float32Array) -> None:
        """item_vectors: float32 (item_count, at least dim), C-contiguous."""
        self._dim = dim
        self._item_vectors = item_vectors

    @property
    def dim(self) -> int:
        return self._dim

    @property
    def item_count(self) -> int:
        return len(self._item_vectors)

    def request(self, query: Float32Array, k: int, eligible: UInt8Array) -> SearchRequest:
        """Check one search; raises as check_search does. Cost: one count of the bitmap, 10 µs at a million items."""
        check_search(self.dim, self.item_count, query, k, eligible)
        eligible_count = count_rows(eligible, self.item_count)
        share = eligible_count / self.item_count if self.item_count else 0.0
        return SearchRequest(query, eligible, min(k, eligible_count), share)

    def scan(self, request: SearchRequest) -> Found:
        """The exact answer on the processor. Cost: engine.kernels.scan, O(eligible items * dim)."""
        if request.wanted == 0:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        rows, scores = scan_eligible(self._item_vectors, request.query, request.eligible)
        best = top_k(scores, request.wanted)
        return rows[best], scores[best]


class OverFetchingIndex(EligibleScan):
    """An ItemIndex over a Searcher, for one search or a batch of them. Safe for concurrent searches where that one is.

    The answer is the Searcher's own, filtered: where it is exact, so is this.
    """

    def __init__(self, searcher: Searcher, item_vectors: Float32Array) -> None:
        """item_vectors: float32 (item_count, at least dim), C-contiguous: for when few may be shown."""
        if len(item_vectors) != searcher.item_count:
            raise ValueError(f"{len(item_vectors)} item vectors do not go with an index of {searcher.item_count} items")
        super().__init__(searcher.dim, item_vectors)
        self._searcher = searcher

    def search(self, query: Float32Array, k: int, eligible: UInt8Array) -> Found:
        """See ItemIndex. Never short of min(k, eligible items): what widening cannot reach is scanned.

        Rows of -1, and rows that the table does not have, are dropped.
        """
        request = self.request(query, k, eligible)
        found = None if request.is_selective else self.search_batch([request])[0]
        return self.scan(request) if found is None else found

    def search_batch(self, requests: Sequence[SearchRequest]) -> list[Found | None]:
        """What the Searcher finds for each request, in step; None for one that only a scan can answer in full.

        All that need no filter are searched in one call, for as many as the hungriest needs; those that come out short
        in further ones, each for twice as many as before, up to the Searcher's limit.
        """
        found: list[Found | None] = [None] * len(requests)
        limit, filter_below = min(self._searcher.max_k, self.item_count), self._searcher.filter_below
        open_requests = [
            position
            for position, request in enumerate(requests)
            if 0 < request.wanted <= limit
            and request.share >= filter_below
            and request.share * limit >= _HOPE * request.wanted
        ]
        needs = {(requests[position].wanted, requests[position].share) for position in open_requests}
        fetch = max((_first_fetch(wanted, share, limit) for wanted, share in needs), default=0)
        while open_requests:
            queries = np.concatenate([requests[position].query for position in open_requests]).reshape(-1, self.dim)
            rows, scores = self._searcher.search(queries, fetch)
            are_items = int(rows.view(np.uint64).max()) < self.item_count  # none is -1
            for position, its_rows, its_scores in zip(open_requests, rows, scores, strict=True):
                request = requests[position]
                if are_items and request.share == 1.0:  # where everything is eligible, nothing is to be filtered
                    found[position] = its_rows[: request.wanted], its_scores[: request.wanted]
                else:
                    found[position] = self._kept(request, its_rows, its_scores)
            open_requests = [position for position in open_requests if found[position] is None]
            if fetch >= limit:
                break
            fetch = min(2 * fetch, limit)
        if self._searcher.filters:
            self._filter(
                [
                    position
                    for position, request in enumerate(requests)
                    if found[position] is None and 0 < request.wanted <= limit
                ],
                requests,
                found,
            )
        return found

    def _filter(self, positions: Sequence[int], requests: Sequence[SearchRequest], found: list[Found | None]) -> None:
        """Fill in what the Searcher finds with filters: one call for all that want as many, which most often all do."""
        by_wanted: defaultdict[int, list[int]] = defaultdict(list)
        for position in positions:
            by_wanted[requests[position].wanted].append(position)
        for wanted, group in by_wanted.items():
            queries = np.stack([requests[position].query for position in group])
            rows, scores = self._searcher.search_eligible(
                queries, wanted, [requests[position].eligible for position in group]
            )
            for line, position in enumerate(group):
                found[position] = self._kept(requests[position], rows[line], scores[line])

    def _kept(self, request: SearchRequest, rows: Int64Array, scores: Float32Array) -> Found | None:
        """The first `wanted` of those that may be shown, or None where that many are not among them."""
        wanted = request.wanted
        kept = first_members(request.eligible, rows, self.item_count, wanted)
        if len(kept) < wanted:
            return None
        if kept[-1] == wanted - 1:  # nothing was in between, which is so wherever the device filtered
            return rows[:wanted], scores[:wanted]
        return rows[kept], scores[kept]


def _first_fetch(wanted: int, share: float, limit: int) -> int:
    return min(limit, int(wanted / share * (1.0 if share == 1.0 else _MARGIN)) + 1)
