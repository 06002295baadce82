import pytest

from engine.config.seen import SeenConfig
from engine.evaluation.leave_one_out import MIN_TRAINING_EVENTS
from engine.evaluation.run import MethodResult, evaluate_leave_one_out
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


def test_what_may_come_again_is_asked_for_and_offered(trained: Trained) -> None:
    again = SeenConfig.model_validate({"hide": {"purchase": 0}})
    config: TrainingConfig = SMALL_TRAINING.model_copy(update={"embeddings": "als", "repeats": True, "seen": again})
    users, results = evaluate_leave_one_out(trained.dataset, config, [1], diversity_weights=[0.0], seen=again)
    tested = trained.dataset.histories().lengths() > MIN_TRAINING_EVENTS
    assert users == tested.sum()
    assert {result.method for result in results} == {"popularity", "ALS", "pipeline"}
