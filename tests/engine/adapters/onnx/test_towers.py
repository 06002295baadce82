from pathlib import Path

import numpy as np
import onnx
import pytest

from engine.adapters.onnx.towers import OnnxItemTower, OnnxUserTower
from engine.data.dataset import Dataset
from engine.errors import BundleError
from engine.features.content import content_features
from engine.features.history import HistoryStates
from engine.training.config import TwoTowerConfig
from engine.training.two_tower.model import TwoTowerModel, export_item_tower, export_user_tower
from engine.training.two_tower.train import train_two_tower
from tests.engine.training.towers import content_vectors
from tests.engine.training.worlds import chain_world


@pytest.fixture(scope="module")
def world() -> Dataset:
    return chain_world(seed=4)


@pytest.fixture(scope="module")
def model(world: Dataset) -> TwoTowerModel:
    config = TwoTowerConfig(dim=16, window=12, layers=2, heads=2, negatives=50, epochs=2, batch_positions=300)
    return train_two_tower(world, config, seed=1, threads=1)


@pytest.fixture(scope="module")
def exported(model: TwoTowerModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("towers")
    export_item_tower(model, directory / "item_tower.onnx")
    export_user_tower(model, directory / "user_tower.onnx")
    return directory


def test_item_tower_agrees_with_torch(world: Dataset, model: TwoTowerModel, exported: Path) -> None:
    tower = OnnxItemTower(exported / "item_tower.onnx")
    features = content_features(world.items, model.content_schema)
    assert tower.dim == 16
    np.testing.assert_allclose(tower.embed(features, batch=7), content_vectors(model, features), atol=1e-4)
    nothing = features.take(np.empty(0, np.int64))
    assert tower.embed(nothing).shape == content_vectors(model, nothing).shape == (0, 16)


def test_user_tower_agrees_with_torch_at_every_length(world: Dataset, model: TwoTowerModel, exported: Path) -> None:
    tower = OnnxUserTower(exported / "user_tower.onnx", intra_op_threads=2)
    assert (tower.window, tower.dim) == (12, 16)
    histories, codes = world.histories(), world.demographic_codes()
    every = [(user, length) for user in range(10) for length in range(21)]
    states = HistoryStates(np.array([user for user, _ in every]), np.array([length for _, length in every]))
    want = model.user_vectors(histories, states, codes)
    got = tower.embed(histories, states, model.item_vectors, codes, batch=64)
    np.testing.assert_allclose(got, want, atol=1e-4)
    assert np.ptp(want, axis=0).max() > 0.1, "equal vectors everywhere would agree as well"


def test_files_are_self_contained(exported: Path) -> None:
    assert sorted(path.name for path in exported.iterdir()) == ["item_tower.onnx", "user_tower.onnx"]
    for path in exported.iterdir():
        onnx.checker.check_model(path, full_check=True)
        assert onnx.load(path).opset_import[0].version >= 17


def test_a_wrong_file_is_refused_by_name(exported: Path, tmp_path: Path) -> None:
    broken = tmp_path / "item_tower.onnx"
    broken.write_bytes(b"not a model")
    with pytest.raises(BundleError, match=r"item_tower\.onnx: not a usable model"):
        OnnxItemTower(broken)
    with pytest.raises(BundleError, match=r"inputs are item_vectors, .* wanted are token_ids, dense"):
        OnnxItemTower(exported / "user_tower.onnx")
