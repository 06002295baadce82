"""int8 serves where it shows what float32 shows, and nowhere else."""

import copy
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from engine.training.ranker.quantize import LEAST_OVERLAP, export_int8_network, top_overlap
from engine.training.ranker.train import RankerModel, export_ranker
from tests.engine.training.ranker.small import arguments, head_model, ranker, scrambled, tables
from tests.engine.training.ranker.test_train import serving_inputs


def quantized(model: RankerModel, directory: Path) -> tuple[float, Path]:
    table, dynamic = tables()
    exported, path = directory / "ranker.onnx", directory / "ranker.int8.onnx"
    export_ranker(model, table, dynamic, exported)
    return export_int8_network(exported, model.sample, head_model().item_vectors, table, dynamic, path), path


def test_dense_layers_are_int8_and_scores_stay_near(tmp_path: Path) -> None:
    model = copy.deepcopy(ranker())
    model.network.load_state_dict(scrambled(model.schema).state_dict())
    overlap, path = quantized(model, tmp_path)
    assert LEAST_OVERLAP <= overlap <= 1.0
    operations = [node.op_type for node in onnx.load(path).graph.node]
    # Of the tower: its second layer and its output.
    assert operations.count("MatMulInteger") == 2
    sample = model.sample.take(np.arange(4))
    rows = np.random.default_rng(0).integers(0, len(tables()[0]), (4, 50))
    served = ort.InferenceSession(str(path)).run(["click"], serving_inputs(sample, rows))[0]
    with torch.no_grad():
        wanted = model.network.click_probability(model.network(*arguments(sample, rows))).numpy()
    assert np.abs(served - wanted).max() > 0
    np.testing.assert_allclose(np.log(served), np.log(wanted), atol=0.2)


def test_an_order_that_int8_cannot_hold_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = copy.deepcopy(ranker())
    model.network.load_state_dict(scrambled(model.schema).state_dict())
    with torch.no_grad():
        # One unit that nothing reads is so large that in eight bits all others are nothing beside it.
        first, second = model.network.tower.layers
        first.bias[0] = 1e4
        second.weight[:, 0] = 0.0
        model.network.tower.out.weight.mul_(100.0)
    overlap, path = quantized(model, tmp_path)
    assert overlap < LEAST_OVERLAP
    assert not path.exists()
    assert "no ranker.int8.onnx: of the first 50 items it would show" in caplog.text


def test_overlap_is_of_the_highest() -> None:
    wanted = np.array([[0.9, 0.8, 0.1, 0.0], [0.1, 0.2, 0.3, 0.4]], np.float32)
    found = np.array([[0.8, 0.9, 0.0, 0.1], [0.4, 0.2, 0.3, 0.1]], np.float32)
    assert top_overlap(wanted, wanted, 2) == 1.0
    assert top_overlap(wanted, found, 2) == pytest.approx((1.0 + 0.5) / 2)
    assert top_overlap(wanted, found, 4) == 1.0
