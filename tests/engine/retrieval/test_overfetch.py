"""Whatever may be shown, an index that cannot filter answers as a scan of everything would."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.kernels.membership import pack_mask
from engine.retrieval.overfetch import OverFetchingIndex
from engine.retrieval.shards import ShardedSearcher


@dataclass
class Exhaustive:
    """An exact searcher with a small limit, which notes what it was asked."""

    vectors: np.ndarray
    max_k: int
    filters: bool = False
    filter_below: float = 0.0
    asked: list[tuple[int, int]] = field(default_factory=list)
    filtered: int = 0

    @property
    def dim(self) -> int:
        return self.vectors.shape[1]

    @property
    def item_count(self) -> int:
        return len(self.vectors)

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        assert 0 < k <= min(self.max_k, self.item_count)
        self.asked.append((len(queries), k))
        scores = queries @ self.vectors.T
        rows = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return rows, np.take_along_axis(scores, rows, 1)

    def search_eligible(
        self, queries: np.ndarray, k: int, eligible: Sequence[np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        self.filtered += 1
        masks = [np.unpackbits(bitmap, count=self.item_count, bitorder="little") == 1 for bitmap in eligible]
        scores = np.where(masks, queries @ self.vectors.T, -np.inf)
        rows = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return rows, np.take_along_axis(scores, rows, 1)


def whole(count: int, dim: int, rng: np.random.Generator) -> np.ndarray:
    """Vectors of small whole numbers: products are exact, and there are ties."""
    return rng.integers(-3, 4, (count, dim)).astype(np.float32)


def best_scores(vectors: np.ndarray, query: np.ndarray, mask: np.ndarray, k: int) -> list[float]:
    return sorted((vectors[mask] @ query).tolist(), reverse=True)[:k]


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_a_batch_answers_each_request_as_a_scan_would(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    item_count = data.draw(st.integers(1, 400))
    vectors = whole(item_count, 5, rng)
    max_k = data.draw(st.integers(1, 60))
    shards = data.draw(st.integers(1, 4))
    searcher: Exhaustive | ShardedSearcher = Exhaustive(
        vectors, max_k, data.draw(st.booleans()), data.draw(st.sampled_from([0.0, 0.5]))
    )
    if shards > 1 and item_count >= shards:
        searcher = ShardedSearcher([Exhaustive(part, max_k) for part in np.array_split(vectors, shards)])
    index = OverFetchingIndex(searcher, vectors)
    masks = [rng.random(item_count) < data.draw(st.sampled_from([0.0, 0.02, 0.3, 0.9, 1.0])) for _ in range(6)]
    queries = whole(6, 5, rng)
    ks = [data.draw(st.integers(0, 80)) for _ in range(6)]

    requests = [index.request(query, k, pack_mask(mask)) for query, k, mask in zip(queries, ks, masks, strict=True)]
    batch = index.search_batch(requests)
    for request, found, query, k, mask in zip(requests, batch, queries, ks, masks, strict=True):
        if searcher.filters and 0 < request.wanted <= min(max_k, item_count):
            assert found is not None, "a searcher that filters leaves nothing to a scan"
        for rows, scores in (found or index.scan(request), index.search(query, k, pack_mask(mask))):
            assert mask[rows].all()
            assert len(np.unique(rows)) == len(rows)
            assert scores.tolist() == (vectors[rows] @ query).tolist()
            assert scores.tolist() == best_scores(vectors, query, mask, k)


def test_a_batch_is_one_call_where_nobody_comes_out_short() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(5_000, 8)).astype(np.float32)
    searcher = Exhaustive(vectors, 2_048)
    index = OverFetchingIndex(searcher, vectors)
    everything, half = np.full(625, 255, np.uint8), pack_mask(rng.random(5_000) < 0.5)
    requests = [index.request(vectors[row], k, shown) for row, k, shown in ((1, 10, everything), (2, 100, half))]
    assert all(index.search_batch(requests))
    (asked,) = searcher.asked
    assert asked[0] == 2
    assert 200 < asked[1] < 300


def test_only_who_comes_out_short_is_searched_again() -> None:
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(5_000, 8)).astype(np.float32)
    searcher = Exhaustive(vectors, 4_096)
    index = OverFetchingIndex(searcher, vectors)
    # Half may be shown, but of what is near the first query nothing.
    far = pack_mask(np.argsort(np.argsort(-(vectors @ vectors[1]))) >= 2_500)
    requests = [index.request(vectors[1], 100, far), index.request(vectors[2], 100, np.full(625, 255, np.uint8))]
    assert all(index.search_batch(requests))
    assert [count for count, _ in searcher.asked] == [2] + [1] * (len(searcher.asked) - 1)
    assert len(searcher.asked) > 2


def test_no_search_is_made_where_too_little_can_be_expected_of_it() -> None:
    rng = np.random.default_rng(4)
    vectors = rng.normal(size=(5_000, 8)).astype(np.float32)
    searcher = Exhaustive(vectors, 1_000)
    index = OverFetchingIndex(searcher, vectors)
    request = index.request(vectors[1], 200, pack_mask(rng.random(5_000) < 0.05))
    assert not request.is_selective
    assert index.search_batch([request]) == [None]
    assert searcher.asked == []
    assert len(index.scan(request)[0]) == 200


def test_what_widening_cannot_reach_is_filtered_on_the_device_where_that_works() -> None:
    rng = np.random.default_rng(2)
    vectors = rng.normal(size=(5_000, 8)).astype(np.float32)
    few = pack_mask(rng.random(5_000) < 0.05)
    for filters in (False, True):
        searcher = Exhaustive(vectors, 256, filters)
        index = OverFetchingIndex(searcher, vectors)
        (found,) = index.search_batch([index.request(vectors[1], 200, few)])
        assert (found is not None) == filters == (searcher.filtered == 1)


def test_shards_that_hold_everything_good_do_not_hide_what_is_certain() -> None:
    """All of the best items in one shard: each must be asked for more until enough is certain."""
    rng = np.random.default_rng(3)
    vectors = rng.normal(size=(4_000, 8)).astype(np.float32)
    query = vectors[7]
    vectors = vectors[np.argsort(-(vectors @ query))]
    searcher = ShardedSearcher([Exhaustive(part, 450) for part in np.array_split(vectors, 8)])
    rows, _ = searcher.search(query[None], 400)
    assert rows[0].tolist() == list(range(400))
    # Beyond a shard's limit nothing more is certain.
    rows, scores = searcher.search(query[None], 900)
    assert rows[0, :450].tolist() == list(range(450))
    assert (rows[0, 450:] == -1).all()
    assert np.isneginf(scores[0, 450:]).all()


def test_where_filtering_is_cheaper_one_call_serves_all_that_want_as_many() -> None:
    rng = np.random.default_rng(0)
    vectors = whole(400, 5, rng)
    searcher = Exhaustive(vectors, max_k=60, filters=True, filter_below=0.5)
    index = OverFetchingIndex(searcher, vectors)
    masks = [np.ones(400, np.bool_), *(rng.random(400) < 0.3 for _ in range(3))]
    requests = [index.request(query, 10, pack_mask(mask)) for query, mask in zip(whole(4, 5, rng), masks, strict=True)]
    assert all(index.search_batch(requests))
    assert [count for count, _ in searcher.asked] == [1]
    assert searcher.filtered == 1
