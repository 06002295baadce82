"""An item index whose searches share calls to the device."""

from collections.abc import Sequence
from typing import Protocol

from engine.batching.micro_batcher import MicroBatcher
from engine.request.clock import request_deadline
from engine.retrieval.overfetch import Found, SearchRequest
from engine.types import Float32Array, UInt8Array


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
        self._lane = batcher.lane(index.search_batch)

    @property
    def dim(self) -> int:
        return self._index.dim

    @property
    def item_count(self) -> int:
        return self._index.item_count

    def search(self, query: Float32Array, k: int, eligible: UInt8Array) -> Found:
        """See ItemIndex. Waits for its turn, at most until the request's deadline; raises DeadlineExceeded then."""
        request = self._index.request(query, k, eligible)
        found = None if request.among_few else self._lane(request, request_deadline.get())
        return self._index.scan(request) if found is None else found
