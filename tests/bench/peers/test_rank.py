"""The tiled graph is the bundle's ranker, or the bench says that it is not."""

import numpy as np
import pytest

from engine.errors import BundleError
from engine.request.model import ServingModel
from engine_bench.peers.sample import StageInputs
from engine_bench.peers.stage_rank import SCORE_TOLERANCE, largest_difference, measure_rank
from engine_bench.peers.tiled import TiledRanker
from tests.bench.peers.conftest import Small


def test_the_tiled_ranker_gives_the_scores_of_the_serving_one(
    small: Small, model: ServingModel, inputs: list[StageInputs]
) -> None:
    tiled = TiledRanker(small.settings.tiled, small.bundle.item_table, small.bundle.item_dynamic)
    for each in inputs:
        served = model.ranker.score(each.context, each.rows)
        assert served.std() > 10 * SCORE_TOLERANCE / len(served)
        np.testing.assert_allclose(tiled.score(each.context, each.rows), served, rtol=1e-3, atol=1e-7)
    assert largest_difference(model.ranker, tiled, inputs) <= SCORE_TOLERANCE


def test_rows_of_the_matrix_repeat_the_user_beside_each_item(small: Small, inputs: list[StageInputs]) -> None:
    tiled = TiledRanker(small.settings.tiled, small.bundle.item_table, small.bundle.item_dynamic)
    context, rows = inputs[0].context, inputs[0].rows
    matrix = tiled.matrix(context, rows)
    table, dynamic = small.bundle.item_table, small.bundle.item_dynamic
    user = matrix.shape[1] - table.shape[1] - dynamic.shape[1]
    assert (matrix[:, :user] == matrix[0, :user]).all()
    np.testing.assert_array_equal(matrix[:, user : user + table.shape[1]], table[rows])
    np.testing.assert_array_equal(matrix[:, user + table.shape[1] :], dynamic[rows])


def test_another_model_is_refused(small: Small, model: ServingModel, inputs: list[StageInputs]) -> None:
    other = TiledRanker(small.settings.tiled, small.bundle.item_table[::-1], small.bundle.item_dynamic)
    with pytest.raises(BundleError, match="differ from the bundle's"):
        measure_rank(model.ranker, other, inputs, 1, lambda done, total: None)


def test_the_rows_of_the_report(small: Small, model: ServingModel, inputs: list[StageInputs]) -> None:
    tiled = TiledRanker(small.settings.tiled, small.bundle.item_table, small.bundle.item_dynamic)
    rows = measure_rank(model.ranker, tiled, inputs, 8, lambda done, total: None)
    assert [row["name"] for row in rows] == ["engine", "tiled", "tiled_graph"]
    assert all(0 < row["p50_ms"] <= row["p99_ms"] for row in rows)
