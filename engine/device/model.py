"""A bundle in the device process: handlers that answer a batch of slot requests, and leases on bundles."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import numpy as np

from engine.batching.batched import BatchRanker
from engine.device.slot import SlotMemory, SlotShape
from engine.errors import EngineError
from engine.retrieval.overfetch import Found, SearchRequest
from engine.stages.retrieve import ItemIndex
from engine.stages.seen import ItemRows
from engine.types import Int64Array, RankingContext

# The object that followers of the catalogue and of live counts write to; opaque here.
S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class SlotRequest:
    """One request: its slot's memory, and the fields of its message; see engine.device.slot.REQUEST."""

    memory: SlotMemory
    count: int
    new_count: int
    share: float


Answer = int | EngineError | None
"""The number of items in the slot; None where only a scan can tell; or the error."""

Handler = Callable[[Sequence[SlotRequest]], Sequence[Answer]]


class BatchSearch(Protocol):
    """Several searches in one call; see engine.retrieval.overfetch.OverFetchingIndex.search_batch."""

    def __call__(self, requests: Sequence[SearchRequest], /) -> Sequence[Found | EngineError | None]: ...


def one_by_one(index: ItemIndex) -> BatchSearch:
    """Search a batch one by one, for an index without a batch call; a bad request fails alone."""

    def search(requests: Sequence[SearchRequest]) -> list[Found | EngineError | None]:
        return [alone(request) for request in requests]

    def alone(request: SearchRequest) -> Found | EngineError:
        try:
            return index.search(request.query, request.wanted, request.eligible)
        except EngineError as error:
            return error

    return search


@dataclass(frozen=True, slots=True, eq=False)
class SearchHandler:
    """Answers searches."""

    search_batch: BatchSearch

    def __call__(self, batch: Sequence[SlotRequest]) -> list[Answer]:
        requests = [SearchRequest(one.memory.query, one.memory.eligible, one.count, one.share) for one in batch]
        answers: list[Answer] = []
        for one, found in zip(batch, self.search_batch(requests), strict=True):
            if found is None or isinstance(found, EngineError):
                answers.append(found)
                continue
            rows, scores = found
            one.memory.found[: len(rows)] = rows
            one.memory.scores[: len(rows)] = scores
            answers.append(len(rows))
        return answers


@dataclass(frozen=True, slots=True, eq=False)
class RankHandler:
    """Answers rankings. Rows from first_new_row on are new items', and differ from process to process."""

    ranker: BatchRanker
    items: ItemRows
    first_new_row: int

    def __call__(self, batch: Sequence[SlotRequest]) -> list[Answer]:
        requests, unknown = [], []
        for one in batch:
            rows, missing = self._own_rows(one)
            requests.append((_context(one.memory), rows))
            unknown.append(missing)
        answers: list[Answer] = []
        for one, missing, scores in zip(batch, unknown, self.ranker.score_many(requests), strict=True):
            if isinstance(scores, EngineError):
                answers.append(scores)
                continue
            one.memory.scores[: one.count] = scores
            if len(missing):
                one.memory.scores[missing] = scores.min()
            answers.append(one.count)
        return answers

    def _own_rows(self, one: SlotRequest) -> tuple[Int64Array, Int64Array]:
        """The candidates as this process's rows, and the positions of those that it does not know."""
        rows = one.memory.candidates[: one.count]
        if not one.new_count:
            return rows, np.empty(0, np.int64)
        rows = rows.copy()
        new = np.flatnonzero(rows >= self.first_new_row)
        rows[new] = self.items.rows(one.memory.new_item_keys[: one.new_count])
        missing = new[rows[new] < 0]
        rows[missing] = 0
        return rows, missing


@dataclass(frozen=True, slots=True, eq=False)
class DeviceModel(Generic[S]):
    """One bundle, which answers requests through slots of its shape.

    handlers: by kind of request. serving: the model that they use. There are no reference cycles: when a swap drops the
    bundle, the device's memory is free at once, not at the next garbage collection.
    """

    shape: SlotShape
    handlers: Mapping[int, Handler]
    serving: S


def _context(memory: SlotMemory) -> RankingContext:
    return RankingContext(memory.query, memory.session, memory.collaborative, memory.dense, memory.codes)


@dataclass(slots=True)
class _Leased(Generic[S]):
    model: DeviceModel[S]
    leases: int


class LeasedModels(Generic[S]):
    """The bundles that front ends have leases on. Safe for any number of threads.

    A bundle without leases is freed once another one has a lease: during a swap there are two.
    """

    def __init__(self, load: Callable[[Path], DeviceModel[S]]) -> None:
        """load: opens a bundle; may raise any exception."""
        self._load = load
        self._lock = threading.Lock()
        self._loading = threading.Lock()
        self._held: dict[Path, _Leased[S]] = {}

    @property
    def models(self) -> tuple[DeviceModel[S], ...]:
        with self._lock:
            return tuple(held.model for held in self._held.values())

    def get(self, path: Path) -> DeviceModel[S] | None:
        """The bundle of this directory, or None if it is not loaded."""
        with self._lock:
            held = self._held.get(path)
            return None if held is None else held.model

    def prepare(self, path: Path) -> DeviceModel[S]:
        """Load a bundle, unless it is loaded, without a lease on it. Raises what load raises."""
        with self._loading:
            return self.get(path) or self._opened(path, leases=0)

    def lease(self, path: Path) -> DeviceModel[S]:
        """Add a lease on a bundle, which is loaded first if need be. Blocks. Raises what load raises."""
        # A lease on a loaded bundle does not wait while another bundle is loaded.
        model = self._lease_held(path)
        if model is not None:
            return model
        with self._loading:
            return self._lease_held(path) or self._opened(path, leases=1)

    def give_up(self, path: Path) -> None:
        """Give up one lease."""
        with self._lock:
            self._held[path].leases -= 1
            self._drop_unleased()

    def _lease_held(self, path: Path) -> DeviceModel[S] | None:
        with self._lock:
            held = self._held.get(path)
            if held is None:
                return None
            held.leases += 1
            self._drop_unleased()
            return held.model

    def _opened(self, path: Path, leases: int) -> DeviceModel[S]:
        model = self._load(path)
        with self._lock:
            self._held[path] = _Leased(model, leases)
            self._drop_unleased()
        return model

    def _drop_unleased(self) -> None:
        if any(held.leases for held in self._held.values()):
            self._held = {path: held for path, held in self._held.items() if held.leases}
