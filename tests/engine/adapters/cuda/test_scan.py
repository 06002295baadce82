"""The fused scan: its guesses anywhere, its answers where there is a device."""

from typing import Any

import numpy as np
import pytest

from engine.adapters.cuda.scan import adjusted_ranks, sample_rank
from engine.kernels.membership import pack_mask
from tests.contracts.clustered import clustered
from tests.gpu import needs_cuda

SAMPLE, CAPACITY = 49_152, 8192


@pytest.mark.parametrize("item_count", [50_000, 1_000_000, 10_000_000])
@pytest.mark.parametrize("k", [1, 100, 1000, 2048])
def test_a_guess_keeps_enough_and_not_too_much(item_count: int, k: int) -> None:
    """How many items reach the threshold, over many samples."""
    rng = np.random.default_rng(0)
    rank = sample_rank(k, item_count)
    # Gaps between sampled items are geometric, the rank-th is a sum of so many.
    kept = rng.negative_binomial(rank, min(1.0, SAMPLE / item_count), size=20_000) + rank
    failed = (kept < k) | (kept > CAPACITY)
    assert failed.mean() < 0.03 if k == 2048 else failed.mean() < 1e-3


def test_a_small_catalogue_is_its_own_sample() -> None:
    assert sample_rank(10, 1000) == 10
    assert sample_rank(1000, SAMPLE) == 1000


def test_a_guess_that_failed_moves_the_right_way() -> None:
    ranks = np.array([20, 20, 20])
    assert adjusted_ranks(ranks, np.array([900, 9000, 10_000_000]), 1000).tolist()[:2] == [80, 10]
    assert adjusted_ranks(ranks, np.array([900, 9000, 10_000_000]), 1000)[2] == 1
    assert adjusted_ranks(np.array([40_000]), np.array([3]), 1000).tolist() == [SAMPLE]


def best(scores: np.ndarray, mask: np.ndarray, k: int) -> np.ndarray:
    return -np.sort(-scores[mask])[:k]


@needs_cuda
@pytest.mark.parametrize(
    ("item_count", "dim"),
    [
        (1, 64),
        (7, 32),
        (33, 48),
        (1000, 64),
        (49_152, 64),
        (49_153, 64),
        (200_003, 128),
        (120_001, 100),
        (100_000, 256),
    ],
)
@pytest.mark.parametrize("batch", [1, 3, 9, 33, 64, 70])
def test_its_answers_are_those_of_a_plain_scan(item_count: int, dim: int, batch: int) -> None:
    from engine.adapters.cuda.scan import CudaScanSearcher

    rng = np.random.default_rng(0)
    vectors, queries = clustered(item_count, dim, query_count=batch, seed=5)
    searcher = CudaScanSearcher(vectors, 0)
    scores = queries.astype(np.float16).astype(np.float32) @ vectors.astype(np.float16).astype(np.float32).T
    for k in sorted({1, min(item_count, 1000), min(item_count, 2048)}):
        for share in (None, 0.5, 0.03):
            masks = rng.random((batch, item_count)) < (1.0 if share is None else share)
            masks[:, 0] = True
            found: Any = (
                searcher.search(queries, k)
                if share is None
                else searcher.search_eligible(queries, k, [pack_mask(mask) for mask in masks])
            )
            for rows, given, exact, mask in zip(*found, scores, masks, strict=True):
                count = min(k, int(mask.sum()))
                assert (rows[count:] == -1).all()
                assert len(np.unique(rows[:count])) == count
                assert mask[rows[:count]].all()
                np.testing.assert_allclose(given[:count], best(exact, mask, k), atol=2e-4)
                np.testing.assert_allclose(given[:count], exact[rows[:count]], atol=2e-4)


@needs_cuda
def test_equal_scores_without_end_are_nobodys_best() -> None:
    from engine.adapters.cuda.scan import CudaScanSearcher

    searcher = CudaScanSearcher(np.ones((100_000, 64), np.float32), 0)
    rows, _ = searcher.search(np.ones((1, 64), np.float32), 10)
    assert (rows == -1).all()


@needs_cuda
def test_a_query_beyond_float16_finds_nothing_wrong() -> None:
    from engine.adapters.cuda.scan import CudaScanSearcher

    vectors, _ = clustered(60_000, 64, query_count=1, seed=5)
    rows, scores = CudaScanSearcher(vectors, 0).search(np.full((1, 64), 1e30, np.float32), 10)
    assert (rows < 60_000).all()
    assert not np.isnan(scores[rows >= 0]).any()
