import numpy as np
import pytest

from engine.config.seen import SeenConfig
from engine.evaluation.leave_one_out import MIN_TRAINING_EVENTS
from engine.evaluation.metrics import MeanEstimate, intra_list_similarity
from engine.evaluation.run import MethodResult, _summarize, evaluate_leave_one_out
from engine.training.config import TrainingConfig
from tests.conftest import SMALL_TRAINING, Trained


@pytest.fixture(scope="module")
def results(trained: Trained) -> tuple[int, dict[str, MethodResult]]:
    config: TrainingConfig = SMALL_TRAINING.model_copy(update={"embeddings": "als"})
    users, results = evaluate_leave_one_out(trained.dataset, config, [1, 2], diversity_weights=[0.0, 0.5])
    return users, {result.method: result for result in results}


def test_every_method_is_measured_on_the_same_users(results: tuple[int, dict[str, MethodResult]]) -> None:
    users, methods = results
    assert users > 50
    assert list(methods) == ["popularity", "ALS", "pipeline", "pipeline, MMR 0.5"]
    for result in methods.values():
        assert 0 <= result.ndcg_at_10.mean <= result.hr_at_10.mean <= result.hr_at_50.mean <= 1
        assert all(len(values) == 2 for values in result.seed_means.values())
        assert result.hr_at_10.mean == pytest.approx(sum(result.seed_means["hr_at_10"]) / 2)
        assert 0 < result.coverage_at_10 <= 1


def test_learning_beats_popularity_and_diversity_diversifies(results: tuple[int, dict[str, MethodResult]]) -> None:
    _, methods = results
    assert methods["pipeline"].hr_at_50.mean > methods["popularity"].hr_at_50.mean
    assert (
        methods["pipeline, MMR 0.5"].intra_list_similarity_at_10.mean
        < methods["pipeline"].intra_list_similarity_at_10.mean
    )


def test_figures_are_what_one_counts_by_hand() -> None:
    """Over two seeds: a user's figures are averaged before users are."""
    rng = np.random.default_rng(1)
    lists = [np.stack([rng.permutation(70)[:50] for _ in range(200)]) for _ in range(2)]
    targets = rng.integers(0, 70, 200)
    targets[:4] = lists[0][range(4), [9, 10, 48, 49]]
    alike = [(MeanEstimate(seed + 0.1, seed + 0.2), MeanEstimate(seed + 0.3, seed + 0.4)) for seed in range(2)]
    result = _summarize("m", lists, targets, 100, alike)

    def found(rows: np.ndarray, k: int) -> np.ndarray:
        return (rows[:, :k] == targets[:, None]).any(axis=1)

    gained = [((rows[:, :10] == targets[:, None]) / np.log2(np.arange(10) + 2)).sum(axis=1) for rows in lists]
    for estimate, by_seed, name in (
        (result.hr_at_10, [found(rows, 10) for rows in lists], "hr_at_10"),
        (result.ndcg_at_10, gained, "ndcg_at_10"),
        (result.hr_at_50, [found(rows, 50) for rows in lists], "hr_at_50"),
    ):
        users = np.mean(by_seed, axis=0)
        assert estimate.mean == pytest.approx(users.mean())
        assert estimate.standard_error == pytest.approx(users.std(ddof=1) / np.sqrt(200))
        assert result.seed_means[name] == pytest.approx([one.mean() for one in by_seed])
    assert result.coverage_at_10 == pytest.approx(np.mean([len(np.unique(rows[:, :10])) / 100 for rows in lists]))
    assert result.intra_list_similarity_at_10 == MeanEstimate(pytest.approx(0.6), pytest.approx(0.7))
    assert result.intra_list_similarity_at_50 == MeanEstimate(pytest.approx(0.8), pytest.approx(0.9))


def test_what_may_come_again_is_asked_for_and_offered(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    widths: list[int] = []

    def noting(lists: np.ndarray, vectors: np.ndarray) -> MeanEstimate:
        widths.append(lists.shape[1])
        return intra_list_similarity(lists, vectors)

    monkeypatch.setattr("engine.evaluation.run.intra_list_similarity", noting)
    again = SeenConfig.model_validate({"hide": {"purchase": 0}})
    config: TrainingConfig = SMALL_TRAINING.model_copy(update={"embeddings": "als", "repeats": True, "seen": again})
    users, results = evaluate_leave_one_out(trained.dataset, config, [1], diversity_weights=[0.0], seen=again)
    tested = trained.dataset.histories().lengths() > MIN_TRAINING_EVENTS
    assert users == tested.sum()
    assert {result.method for result in results} == {"popularity", "ALS", "pipeline"}
    assert widths == [10, 50] * 3
