"""An item index and a ranker whose concurrent calls share native ones."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from engine.batching.micro_batcher import MicroBatcher
from engine.errors import EngineError
from engine.request.clock import request_deadline
from engine.retrieval.overfetch import Found, SearchRequest
from engine.types import Float32Array, Int64Array, RankingContext, UInt8Array


class BatchIndex(Protocol):
    """An index for several searches at once; implemented by engine.retrieval.overfetch.OverFetchingIndex."""

    @property
    def dim(self) -> int: ...

    @property
    def item_count(self) -> int: ...

    def request(self, query: Float32Array, k: int, eligible: UInt8Array) -> SearchRequest: ...

    def search_batch(self, requests: Sequence[SearchRequest]) -> list[Found | None]: ...

    def scan(self, request: SearchRequest) -> Found: ...


class BatchedIndex:
    """An ItemIndex. What needs no device, and what it cannot answer, is scanned in the caller's own thread."""

    def __init__(self, index: BatchIndex, batcher: MicroBatcher) -> None:
        self._index = index
        self._group = batcher.group(index.search_batch)

    @property
    def dim(self) -> int:
        return self._index.dim

    @property
    def item_count(self) -> int:
        return self._index.item_count

    def search(self, query: Float32Array, k: int, eligible: UInt8Array) -> Found:
        """See ItemIndex. Waits for its turn, at most until the request's deadline; raises DeadlineExceeded then."""
        request = self._index.request(query, k, eligible)
        found = None if request.is_selective else self._group(request, request_deadline.get())
        return self._index.scan(request) if found is None else found


@runtime_checkable
class BatchRanker(Protocol):
    """A ranker for several requests at once."""

    def score_many(self, requests: Sequence[tuple[RankingContext, Int64Array]]) -> Sequence[Float32Array | EngineError]:
        """Click probabilities of each request's candidates, in step, or why there are none."""
        ...


class BatchedRanker:
    """A Ranker. A request that cannot be scored fails alone."""

    def __init__(self, ranker: BatchRanker, batcher: MicroBatcher) -> None:
        self._group = batcher.group(ranker.score_many)

    def score(self, context: RankingContext, rows: Int64Array) -> Float32Array:
        """See Ranker. Waits for its turn, at most until the request's deadline; raises DeadlineExceeded then."""
        if not len(rows):
            return np.empty(0, np.float32)
        return self._group((context, rows), request_deadline.get())
