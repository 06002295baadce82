"""The index and the ranker of a front end, as calls to the device process."""

from typing import Final, Protocol

import numpy as np

from engine.catalog.new_items import NewItems
from engine.device.client import DeviceClient
from engine.device.slot import RANK, SEARCH
from engine.errors import EngineError
from engine.request.clock import request_deadline
from engine.retrieval.overfetch import EligibleScan, Found
from engine.types import Float32Array, Int64Array, RankingContext, UInt8Array

_VECTORS: Final = ("query", "session", "collaborative", "dense", "codes")


class RemoteIndex:
    """An ItemIndex. The caller's own thread scans selective requests and those that the device cannot answer."""

    def __init__(self, client: DeviceClient, dim: int, item_vectors: Float32Array) -> None:
        """item_vectors: float32 (item_count, at least dim), C-contiguous, may be memory-mapped."""
        self._client = client
        self._items = EligibleScan(dim, item_vectors)

    @property
    def dim(self) -> int:
        return self._items.dim

    @property
    def item_count(self) -> int:
        return self._items.item_count

    def search(self, query: Float32Array, k: int, eligible: UInt8Array) -> Found:
        """See ItemIndex. Waits for its turn, at most until the request's deadline.

        Raises:
            DeadlineExceeded: it passed. DependencyUnavailable: the device process is away.

        Cost: a copy of the bitmap (125 KB at a million items), one of the answer, and a message each way.
        """
        request = self._items.request(query, k, eligible)
        if request.is_selective:
            return self._items.scan(request)
        with self._client.take() as slot:
            memory = slot.memory
            memory.query[:] = request.query
            memory.eligible[:] = request.eligible
            found = slot.ask(SEARCH, request.wanted, 0, request.share, request_deadline.get())
            if found is not None:
                return memory.found[:found].copy(), memory.scores[:found].copy()
        return self._items.scan(request)


class CatalogueRows(Protocol):
    """Which items came after the bundle, in this process; implemented by engine.catalog.live.LiveCatalogue."""

    @property
    def new_items(self) -> NewItems: ...


class RemoteRanker:
    """A Ranker. New items are sent by their keys, because each process has its own rows for them."""

    def __init__(self, client: DeviceClient, catalogue: CatalogueRows) -> None:
        self._client = client
        self._catalogue = catalogue

    def score(self, context: RankingContext, rows: Int64Array) -> Float32Array:
        """See Ranker. Waits for its turn, at most until the request's deadline.

        A new item that the device process does not know yet gets the lowest score of the others.

        Raises:
            DeadlineExceeded: it passed. DependencyUnavailable: the device process is away.
            EngineError: an input of another shape than the ranker's, or a row that is no item's.
        """
        count = len(rows)
        if not count:
            return np.empty(0, np.float32)
        new_item_keys = self._keys(self._catalogue.new_items, rows)
        with self._client.take() as slot:
            memory = slot.memory
            if count > len(memory.candidates):
                raise EngineError(f"ranker: {count} candidates, of {len(memory.candidates)} rows")
            for name in _VECTORS:
                target, given = getattr(memory, name), getattr(context, name)
                if given.shape != target.shape:
                    raise EngineError(f"ranker: {name} is {given.shape}, the graph takes {target.shape}")
                target[:] = given
            memory.candidates[:count] = rows
            memory.new_item_keys[: len(new_item_keys)] = new_item_keys
            scored = slot.ask(RANK, count, len(new_item_keys), 1.0, request_deadline.get())
            if scored != count:
                raise EngineError(f"ranker: {scored} scores for {count} candidates")
            return memory.scores[:count].copy()

    @staticmethod
    def _keys(new: NewItems, rows: Int64Array) -> Int64Array:
        """The keys of the new items among the rows, in their order."""
        if rows.max() < new.first_row:
            return new.keys[:0]
        places = rows[rows >= new.first_row] - new.first_row
        if places.max() >= new.count:
            raise EngineError(f"ranker: row {int(rows.max())} is no item's")
        return new.keys[places]
