from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
from implicit.cpu.als import AlternatingLeastSquares

from engine.data.build import load_dataset
from engine.data.dataset import Dataset
from engine.errors import DataError
from engine.features.fold_in import fold_in
from engine.features.history import Histories, HistoryStates
from engine.training.als import train_als
from engine.training.config import AlsConfig
from engine_bench.datasets.movielens import import_movielens
from tests.engine.training.worlds import hit_rate, taste_world, unseen_hit_rate, without_last

CONFIG = AlsConfig(dim=8, iterations=10, alpha=4.0)


def counts_of(dataset: Dataset, states: HistoryStates) -> np.ndarray:
    """The obvious oracle: float32 (n, items), events of each state on each item."""
    histories = dataset.histories()
    counts = np.zeros((len(states), dataset.item_count), np.float32)
    for state, (user, length) in enumerate(zip(states.users, states.lengths, strict=True)):
        for position in range(histories.offsets[user], histories.offsets[user] + length):
            counts[state, histories.rows[position]] += 1
    return counts


@pytest.fixture(scope="module")
def world() -> Dataset:
    return taste_world(seed=1)


def test_beats_popularity_on_users_with_tastes(world: Dataset) -> None:
    training, targets = without_last(world)
    model = train_als(training, CONFIG, seed=1, threads=1)
    histories = training.histories()
    scores = model.user_vectors(histories, histories.latest(), training.demographic_codes()) @ model.item_vectors.T
    popularity = np.tile(np.bincount(histories.rows, minlength=training.item_count), (training.user_count, 1))
    assert hit_rate(scores, targets, 30) > 0.8
    assert hit_rate(popularity, targets, 30) < 0.5


def test_same_seed_same_model(world: Dataset) -> None:
    first, second, other = (train_als(world, CONFIG, seed=seed, threads=1) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.item_vectors, second.item_vectors)
    assert not np.array_equal(first.item_vectors, other.item_vectors)
    assert first.item_vectors.dtype == np.float32
    assert first.item_vectors.flags.c_contiguous


def test_progress_reaches_the_total(world: Dataset) -> None:
    calls: list[tuple[int, int]] = []
    train_als(world, CONFIG, seed=1, threads=1, progress=lambda done, total, _: calls.append((done, total)))
    assert calls == [(done, 10) for done in range(1, 11)]


def test_data_without_interest_is_refused(world: Dataset) -> None:
    nothing = world.with_interactions(world.interactions.select(np.zeros(len(world.interactions), np.bool_)))
    with pytest.raises(DataError, match="at least one view, click, cart or purchase"):
        train_als(nothing, CONFIG, seed=1)


def test_fold_in_solves_the_normal_equations(world: Dataset) -> None:
    """Against a dense solve of equation 4, with repeated items and prefixes of all lengths."""
    histories = world.histories()
    rng = np.random.default_rng(3)
    item_vectors = rng.normal(0, 0.3, (world.item_count, 8)).astype(np.float32)
    users = rng.integers(0, world.user_count, 200)
    states = HistoryStates(users, rng.integers(0, histories.lengths()[users] + 1))
    counts = counts_of(world, states)
    assert counts.max() > 1, "the world must repeat items, or half of the formula goes untested"

    got = fold_in(item_vectors, histories, states, alpha=3.0, regularization=0.2)
    for state in range(len(states)):
        confidence = np.where(counts[state] > 0, 3.0 * counts[state], 1.0)
        left = item_vectors.T @ (confidence[:, None] * item_vectors) + 0.2 * np.eye(8)
        want = np.linalg.solve(left, item_vectors.T @ (3.0 * counts[state]))
        np.testing.assert_allclose(got[state], want, atol=1e-4)


def test_fold_in_agrees_with_implicit(world: Dataset) -> None:
    histories = world.histories()
    states = histories.latest()
    solver = AlternatingLeastSquares(factors=8, alpha=4.0, regularization=0.1, random_state=1, num_threads=1)
    user_items = scipy.sparse.csr_matrix(counts_of(world, states))
    solver.fit(user_items, show_progress=False)
    want = solver.recalculate_user(states.users, user_items)
    got = fold_in(solver.item_factors, histories, states, alpha=4.0, regularization=0.1)
    np.testing.assert_allclose(got, want, atol=1e-4)


def test_fold_in_ignores_the_future_and_handles_no_past(world: Dataset) -> None:
    histories = world.histories()
    vectors = np.random.default_rng(0).normal(size=(world.item_count, 8)).astype(np.float32)
    early = HistoryStates(np.arange(world.user_count), np.full(world.user_count, 5))
    whole = fold_in(vectors, histories, early, 2.0, 0.1)
    keep = (np.arange(len(histories.rows)) - np.repeat(histories.offsets[:-1], histories.lengths())) < 5
    past = Histories.build(
        np.repeat(np.arange(world.user_count), histories.lengths())[keep],
        histories.rows[keep], histories.event_types[keep], histories.timestamps_ms[keep], world.user_count,
    )  # fmt: skip
    np.testing.assert_allclose(fold_in(vectors, past, past.latest(), 2.0, 0.1), whole, atol=1e-5)
    none = HistoryStates(np.arange(3), np.zeros(3, np.int64))
    np.testing.assert_array_equal(fold_in(vectors, histories, none, 2.0, 0.1), np.zeros((3, 8)))


@pytest.mark.shared_data
def test_reaches_the_reference_on_real_ratings(shared_data: Path, tmp_path: Path) -> None:
    """Leave-one-out HR@50 on ml-latest-small: the library itself has 0.254, with a standard error of 0.018."""
    import_movielens(shared_data / "ml-latest-small", tmp_path)
    dataset = load_dataset(tmp_path)
    training, targets = without_last(dataset)
    model = train_als(training, AlsConfig(), seed=1, threads=1)
    histories = training.histories()
    queries = model.user_vectors(histories, histories.latest(), training.demographic_codes())
    assert unseen_hit_rate(queries, model.item_vectors, training, targets, 50) > 0.254 - 0.018
