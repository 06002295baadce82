import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.features.item_evidence import QueryMoments, folded_items, moved_vectors

DIM = 6


def world(seed: int, items: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, QueryMoments]:
    """Content, sums and counts of items, and the moments of queries with a spread that differs by direction."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(DIM, DIM))
    queries = (rng.normal(size=(500, DIM)) @ mixing + rng.normal(size=DIM)).astype(np.float32)
    counts = rng.integers(0, 8, items)
    sums = np.array([queries[rng.integers(0, 500, count)].sum(axis=0) for count in counts], np.float64)
    return rng.normal(size=(items, DIM)).astype(np.float32), sums, counts, QueryMoments.of(queries)


def slowly(content: np.ndarray, total: np.ndarray, count: float, moments: QueryMoments, k_half: float) -> np.ndarray:
    """The equation of the docstring, solved as it stands."""
    precision = k_half * np.trace(moments.covariance) / DIM
    left = count * moments.covariance + precision * np.eye(DIM)
    right = total - count * (moments.mean + moments.covariance @ content)
    return content + np.linalg.solve(left, right)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), items=st.integers(1, 12), k_half=st.floats(0.5, 50))
def test_it_solves_the_equation(seed: int, items: int, k_half: float) -> None:
    content, sums, counts, moments = world(seed, items)
    moved = moved_vectors(content, sums, counts, moments, k_half)
    assert moved.dtype == np.float32
    assert moved.flags.c_contiguous
    expected = [
        slowly(c, s, n, moments, k_half) for c, s, n in zip(content.astype(np.float64), sums, counts, strict=True)
    ]
    np.testing.assert_allclose(moved, expected, rtol=1e-3, atol=1e-3)


def test_without_interactions_content_stays_to_the_bit() -> None:
    content, sums, counts, moments = world(1, 50)
    moved = moved_vectors(content, sums, counts, moments)
    assert (counts == 0).any()
    np.testing.assert_array_equal(moved[counts == 0], content[counts == 0])
    assert (moved[counts > 0] != content[counts > 0]).any(axis=1).all()
    np.testing.assert_array_equal(moved_vectors(content, 0 * sums, 0 * counts, moments), content)
    assert moved_vectors(content[:0], sums[:0], counts[:0], moments).shape == (0, DIM)


def test_more_of_the_same_evidence_moves_further_and_comes_to_rest() -> None:
    """Along each direction of the queries' spread, the way from content to what evidence says is covered in part."""
    content, _, _, moments = world(2, 1)
    query = moments.mean + 0.7
    variances, directions = np.linalg.eigh(moments.covariance)
    rest = (query - moments.mean) @ directions / variances
    way = rest - content[0] @ directions
    shares = []
    for count in (0, 1, 2, 5, 20, 100, 10_000_000):
        moved = moved_vectors(content, count * query[None], np.array([count]), moments, k_half=10.0)
        shares.append((moved[0] @ directions - content[0] @ directions) / way)
    assert (np.diff(shares, axis=0) > -1e-5).all()
    assert (np.diff(shares[:6], axis=0) > 0).any(axis=1).all()
    np.testing.assert_allclose(shares[-1], 1.0, atol=1e-2)
    # Along a direction of mean variance, k_half interactions are half of the way.
    k = 10.0 * variances / variances.mean()
    np.testing.assert_allclose(shares[4], 20 * variances / (20 * variances + 10 * variances.mean()), atol=1e-3)
    assert (np.argsort(k) == np.argsort(shares[4])).all()


def test_the_softmax_of_the_towers_is_read_backwards() -> None:
    """Users drawn by exp(q v) give v back, whatever content said."""
    rng = np.random.default_rng(3)
    queries = (rng.normal(size=(200_000, DIM)) * [1.0, 1.0, 0.5, 0.5, 0.7, 0.7] + 0.3).astype(np.float32)
    vector = np.array([0.6, -0.4, 0.8, 0.0, 0.5, -0.5])
    odds = np.exp(queries @ vector)
    chosen = queries[rng.choice(len(queries), 20_000, p=odds / odds.sum())]
    moved = moved_vectors(
        np.zeros((1, DIM), np.float32), chosen.sum(axis=0, dtype=np.float64)[None], np.array([20_000]),
        QueryMoments.of(queries),
    )  # fmt: skip
    np.testing.assert_allclose(moved[0], vector, atol=0.06)


def test_queries_that_are_all_the_same_say_nothing() -> None:
    content, sums, counts, _ = world(4, 5)
    moments = QueryMoments.of(np.ones((9, DIM), np.float32))
    np.testing.assert_array_equal(moved_vectors(content, sums, counts, moments), content)


def test_moments_are_those_of_the_sample() -> None:
    queries = np.random.default_rng(5).normal(size=(300, DIM)).astype(np.float32)
    moments = QueryMoments.of(queries)
    np.testing.assert_allclose(moments.mean, queries.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(moments.covariance, np.cov(queries.T, bias=True), atol=1e-6)


def test_an_item_of_a_factorization_is_folded_in_against_all_users() -> None:
    rng = np.random.default_rng(6)
    users = rng.normal(size=(30, DIM)).astype(np.float32)
    who, rows = rng.integers(0, 30, 25), rng.integers(0, 4, 25)
    folded = folded_items(users, who, rows, 5, alpha=2.0, regularization=0.1)
    for row in range(4):
        confidence = np.ones(30)
        wanted = np.zeros(30)
        counts = np.bincount(who[rows == row], minlength=30)
        confidence[counts > 0] = 2.0 * counts[counts > 0]
        wanted[counts > 0] = 1.0
        left = users.T @ (confidence[:, None] * users) + 0.1 * np.eye(DIM)
        expected = np.linalg.solve(left, users.T @ (confidence * wanted))
        assert folded[row] == pytest.approx(expected, rel=1e-3, abs=1e-4)
    assert not folded[4].any()
