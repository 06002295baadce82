import copy
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from engine.errors import DataError
from engine.training.als import train_als
from engine.training.config import AlsConfig
from engine.training.ranker.examples import RequestInputs
from engine.training.ranker.split import split_for_ranker
from engine.training.ranker.train import export_ranker, train_ranker
from tests.engine.training.ranker.small import CONFIG, arguments, head_model, ranker, split, tables, world
from tests.engine.training.worlds import taste_world


def test_training_lowers_the_held_out_loss_and_reports_calibration() -> None:
    report = ranker().report
    assert report.examples == len(split())
    assert min(report.losses) < report.losses[0]
    assert report.calibration is not None
    assert report.calibration.log_loss_after < report.calibration.log_loss_before


def test_the_same_seed_gives_the_same_ranker() -> None:
    again = train_ranker(world(), split(), head_model(), head_model(), CONFIG, seed=1)
    for name, weight in ranker().network.state_dict().items():
        torch.testing.assert_close(again.network.state_dict()[name], weight, rtol=0, atol=0)


def test_too_few_users_leave_the_ranker_at_the_order_of_retrieval(tmp_path: Path) -> None:
    dataset = taste_world(seed=2, user_count=3)
    part = split_for_ranker(dataset, CONFIG, seed=0)
    als = train_als(dataset.with_interactions(part.head), AlsConfig(dim=8, iterations=2), seed=0, threads=1)
    model = train_ranker(dataset, part, als, als, CONFIG, seed=0)
    assert model.report.losses == ()
    assert model.report.calibration is None
    assert not model.network.tower.out.weight.any()


def serving_inputs(sample: RequestInputs, rows: np.ndarray) -> dict[str, np.ndarray]:
    table, dynamic = tables()
    return {
        "query": sample.query, "session": sample.session, "collaborative": sample.collaborative,
        "dense": sample.dense, "codes": sample.codes, "rows": rows, "item_table": table, "item_dynamic": dynamic,
    }  # fmt: skip


def test_users_with_one_event_each_are_too_little() -> None:
    dataset = taste_world(seed=2, user_count=5, length=1)
    part = split_for_ranker(dataset, CONFIG, seed=0)
    with pytest.raises(DataError, match="the ranker needs users with events on two items or more"):
        train_ranker(dataset, part, head_model(), head_model(), CONFIG, seed=0)


@pytest.mark.parametrize(("batch", "candidates"), [(1, 1), (1, 120), (5, 33)])
def test_the_exported_graph_is_the_network_at_every_size(tmp_path: Path, batch: int, candidates: int) -> None:
    table, dynamic = tables()
    path = tmp_path / "ranker.onnx"
    assert export_ranker(ranker(), table, dynamic, path) <= 1e-4
    sample = ranker().sample.take(np.arange(batch))
    rows = np.random.default_rng(0).integers(0, len(table), (batch, candidates))
    served = ort.InferenceSession(str(path)).run(["click"], serving_inputs(sample, rows))[0]
    network = ranker().network
    with torch.no_grad():
        wanted = network.click_probability(network.tiled(*arguments(sample, rows))).numpy()
    assert served.shape == (batch, candidates)
    np.testing.assert_allclose(served, wanted, atol=1e-4, rtol=1e-3)


def test_rare_clicks_keep_their_order(tmp_path: Path) -> None:
    rare = copy.deepcopy(ranker())
    rare.network.calibration.copy_(torch.tensor([1.0, -16.0]))
    table, dynamic = tables()
    path = tmp_path / "ranker.onnx"
    export_ranker(rare, table, dynamic, path)
    sample = rare.sample.take(np.arange(1))
    rows = np.arange(len(table))[None]
    served = ort.InferenceSession(str(path)).run(["click"], serving_inputs(sample, rows))[0]
    with torch.no_grad():
        logits = rare.network(*arguments(sample, rows)).numpy()[0]
    assert served.max() < 1e-4
    np.testing.assert_allclose(np.log(served[0]), logits - 16.0, atol=1e-3)


def test_the_graph_never_repeats_the_user_beside_the_candidates(tmp_path: Path) -> None:
    path = tmp_path / "ranker.onnx"
    export_ranker(ranker(), *tables(), path)
    operations = {node.op_type for node in onnx.load(path).graph.node}
    assert not operations & {"Tile", "Expand"}
