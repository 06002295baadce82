"""Searches and rankings that share calls, by a device that is held until all of them wait."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest

from engine.batching.batched import BatchedIndex, BatchedRanker
from engine.batching.micro_batcher import MicroBatcher
from engine.errors import DeadlineExceeded, EngineError
from engine.kernels.membership import pack_mask
from engine.request.clock import request_deadline
from engine.retrieval.overfetch import OverFetchingIndex
from engine.types import RankingContext
from engine_bench.float16 import Float16Searcher

PATIENCE_S = 30.0
ITEM_COUNT = 3_000


class Held:
    """A batcher whose thread is busy until `release`."""

    def __init__(self, batcher: MicroBatcher) -> None:
        self._free, began = threading.Event(), threading.Event()

        def run(requests: object) -> list[None]:
            began.set()
            assert self._free.wait(PATIENCE_S)
            return [None]

        self._batcher = batcher
        batcher.group(run).submit(None, float("inf"))
        assert began.wait(PATIENCE_S)

    def release(self) -> None:
        self._free.set()

    def wait_for(self, count: int) -> None:
        until = time.monotonic() + PATIENCE_S
        while len(self._batcher._queue) < count and time.monotonic() < until:
            time.sleep(0.001)
        assert len(self._batcher._queue) == count


@pytest.fixture
def batcher() -> Iterator[MicroBatcher]:
    with MicroBatcher(max_batch=8, max_queued=64) as batcher:
        yield batcher


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


def together(
    batcher: MicroBatcher, pool: ThreadPoolExecutor, calls: list[Callable[[], object]]
) -> list["Future[object]"]:
    held = Held(batcher)
    futures = [pool.submit(call) for call in calls]
    held.wait_for(len(calls))
    held.release()
    return futures


def test_searches_share_a_call_and_each_gets_its_own_answer(batcher: MicroBatcher, pool: ThreadPoolExecutor) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(ITEM_COUNT, 8)).astype(np.float32)
    sizes: list[int] = []

    class Noting(Float16Searcher):
        def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
            sizes.append(len(queries))
            return super().search(queries, k)

    alone = OverFetchingIndex(Float16Searcher(vectors), vectors)
    index = BatchedIndex(OverFetchingIndex(Noting(vectors), vectors), batcher)
    searches = [
        (vectors[row], 50 + row, pack_mask(rng.random(ITEM_COUNT) < share))
        for row, share in enumerate((1.0, 0.9, 0.5, 0.3, 1.0, 0.7))
    ]
    futures = together(batcher, pool, [lambda search=search: index.search(*search) for search in searches])  # type: ignore[misc]
    for future, search in zip(futures, searches, strict=True):
        for found, expected in zip(future.result(PATIENCE_S), alone.search(*search), strict=True):
            np.testing.assert_array_equal(found, expected)
    assert sizes[0] == 6


def test_what_is_scanned_waits_for_nobody(batcher: MicroBatcher) -> None:
    vectors = np.eye(ITEM_COUNT, 8, dtype=np.float32)
    index = BatchedIndex(OverFetchingIndex(Float16Searcher(vectors), vectors), batcher)
    held = Held(batcher)
    only = np.zeros(ITEM_COUNT, np.bool_)
    only[4] = True
    assert index.search(vectors[4], 10, pack_mask(only))[0].tolist() == [4]
    assert len(index.search(vectors[4], 10, pack_mask(only & False))[0]) == 0
    held.release()


def test_a_bad_query_is_refused_before_it_can_spoil_a_batch(batcher: MicroBatcher) -> None:
    vectors = np.eye(ITEM_COUNT, 8, dtype=np.float32)
    index = BatchedIndex(OverFetchingIndex(Float16Searcher(vectors), vectors), batcher)
    assert (index.dim, index.item_count) == (8, ITEM_COUNT)
    with pytest.raises(EngineError, match="NaN"):
        index.search(np.full(8, np.nan, np.float32), 10, np.full(ITEM_COUNT // 8, 255, np.uint8))


class Doubling:
    """A ranker whose scores are the rows, doubled; row 13 cannot be scored."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def score_many(self, requests: object) -> list[np.ndarray | EngineError]:
        assert isinstance(requests, list)
        self.sizes.append(len(requests))
        return [EngineError("13") if 13 in rows else (2 * rows).astype(np.float32) for _, rows in requests]


def context() -> RankingContext:
    return RankingContext(*(np.zeros(2, np.float32) for _ in range(4)), np.zeros(2, np.int64))


def test_rankings_share_a_call_and_a_bad_one_fails_alone(batcher: MicroBatcher, pool: ThreadPoolExecutor) -> None:
    ranker = Doubling()
    batched = BatchedRanker(ranker, batcher)
    lists = [np.arange(count) for count in (3, 5, 20, 1)]
    futures = together(batcher, pool, [lambda rows=rows: batched.score(context(), rows) for rows in lists])  # type: ignore[misc]
    for position in (0, 1, 3):
        np.testing.assert_array_equal(futures[position].result(PATIENCE_S), 2 * lists[position])
    with pytest.raises(EngineError, match="13"):
        futures[2].result(PATIENCE_S)
    assert ranker.sizes == [4]
    assert len(batched.score(context(), np.empty(0, np.int64))) == 0


def test_a_request_waits_no_longer_than_its_deadline(batcher: MicroBatcher) -> None:
    ranker = Doubling()
    batched = BatchedRanker(ranker, batcher)
    held = Held(batcher)
    token = request_deadline.set(time.monotonic() + 0.02)
    try:
        with pytest.raises(DeadlineExceeded):
            batched.score(context(), np.arange(3))
    finally:
        request_deadline.reset(token)
    held.release()
    np.testing.assert_array_equal(batched.score(context(), np.arange(3)), [0, 2, 4])
    assert ranker.sizes == [1]
