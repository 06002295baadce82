import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.kernels.dpp import dpp_slate
from tests.kernels import naive
from tests.kernels.test_mmr import unit_rows


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 40), relevance_weight=st.floats(0, 0.95))
@settings(deadline=None, max_examples=100)
def test_every_pick_maximizes_the_determinant_of_the_kernel(seed: int, count: int, relevance_weight: float) -> None:
    """The kernel with its quality is written down as the paper has it, and no step is derived from another."""
    rng = np.random.default_rng(seed)
    relevance = rng.random(count, dtype=np.float32)
    embeddings = unit_rows(rng, count, 48)
    picks = dpp_slate(relevance, embeddings, relevance_weight, 12).picks.tolist()
    alpha = relevance_weight / (2 * (1 - relevance_weight))
    quality = np.exp(alpha * relevance.astype(np.float64))
    kernel = quality[:, None] * naive.dpp_kernel(embeddings) * quality
    for step in range(1, len(picks)):
        others = [item for item in range(count) if item not in picks[:step]]
        determinants = {item: np.linalg.slogdet(kernel[np.ix_(s := [*picks[:step], item], s)])[1] for item in others}
        # On the scale of the logarithm, the float32 error of the score is divided by the weight of diversity.
        assert determinants[picks[step]] >= max(determinants.values()) - 1e-5 / (1 - relevance_weight)


def test_the_penalties_add_up_to_the_log_determinant() -> None:
    rng = np.random.default_rng(0)
    embeddings = unit_rows(rng, 200, 64)
    slate = dpp_slate(rng.random(200, dtype=np.float32), embeddings, 0.3, 30)
    _, log_determinant = np.linalg.slogdet(naive.dpp_kernel(embeddings)[np.ix_(slate.picks, slate.picks)])
    np.testing.assert_allclose(slate.penalties.sum(), -0.7 * log_determinant, rtol=1e-4)
    assert (slate.penalties[1:] > 0).all()


def test_weight_one_keeps_relevance_order() -> None:
    rng = np.random.default_rng(1)
    relevance = rng.permutation(200).astype(np.float32)
    slate = dpp_slate(relevance, unit_rows(rng, 200, 8), 1.0, 50)
    assert slate.picks.tolist() == np.argsort(-relevance)[:50].tolist()
    assert not slate.penalties.any()


def test_past_the_rank_of_the_vectors_relevance_decides() -> None:
    """Vectors of 2 span 3 dimensions of the kernel; after that every item counts the same."""
    rng = np.random.default_rng(2)
    relevance = rng.random(40, dtype=np.float32)
    picks = dpp_slate(relevance, unit_rows(rng, 40, 2), 0.5, 40).picks
    assert (np.diff(relevance[picks[5:]]) <= 0).all()


def test_opposites_are_unlike_and_zero_rows_are_at_right_angles_to_each_other() -> None:
    embeddings = np.array([[1, 0], [0.6, 0.8], [-1, 0], [0, 0], [0, 0]], np.float32)
    slate = dpp_slate(np.zeros(5, np.float32), embeddings, 0.0, 5)
    assert slate.picks.tolist()[:2] == [0, 2]
    np.testing.assert_allclose(
        np.exp(-slate.penalties.sum()), np.linalg.det(naive.dpp_kernel(embeddings)[np.ix_(slate.picks, slate.picks)]),
        rtol=1e-3,
    )  # fmt: skip


def test_a_non_finite_embedding_counts_as_a_zero_row() -> None:
    embeddings = np.array([[1, 0], [0, 1], [0, 0], [0.6, 0.8]], np.float32)
    broken = embeddings.copy()
    broken[2] = np.nan
    relevance = np.array([0.3, 0.2, 0.4, 0.1], np.float32)
    expected = dpp_slate(relevance, embeddings, 0.5, 4)
    found = dpp_slate(relevance, broken, 0.5, 4)
    assert found.picks.tolist() == expected.picks.tolist()
    np.testing.assert_array_equal(found.penalties, expected.penalties)
