"""A bundle that an earlier engine trained (feature schema 1, before rankers read sessions) is made to serve."""

import tarfile
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from engine.adapters.onnx.ranker import OnnxRanker
from engine.app.bundle_check import check_bundle
from engine.bundle.bundle import RANKER_FILE, open_bundle
from engine.bundle.store import BundleStore
from engine.config.serving import EngineConfig
from engine.errors import BundleError
from engine.features.schema import CODE_FEATURES, SESSION_DENSE
from engine.training.upgrade import upgrade_bundle
from tests.conftest import Trained

OLD = Path(__file__).parent / "old" / "bundle-schema-1.tar.xz"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    with tarfile.open(OLD) as archive:
        archive.extractall(tmp_path / "old", filter="data")
    [path] = [path for path in (tmp_path / "old").iterdir() if path.is_dir()]
    return path


def test_it_is_refused_with_advice_and_upgraded_it_serves(old: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"schema version 1 is unknown.*bundles upgrade"):
        open_bundle(old)
    store = BundleStore(tmp_path / "bundles")
    path = upgrade_bundle(old, store)
    findings = check_bundle(path, EngineConfig())
    assert (findings.items, findings.probes) == (80, 32)
    with pytest.raises(BundleError, match="no bundle has been published"):
        store.current()


def test_its_ranker_says_what_it_said(old: Path, tmp_path: Path) -> None:
    bundle = open_bundle(upgrade_bundle(old, BundleStore(tmp_path / "bundles")))
    schema, rng = bundle.schema, np.random.default_rng(0)

    def numbers(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, np.float32)

    given = {name: numbers(1, width) for name, width in schema.request_widths.items()}
    given["codes"] = np.ones((1, len(CODE_FEATURES)), np.int64)
    rows = np.arange(80)[None]
    tables = {"item_table": np.array(bundle.item_table), "item_dynamic": np.array(bundle.item_dynamic)}
    new = OnnxRanker(bundle.path / RANKER_FILE, schema, *tables.values())
    graph = ort.InferenceSession(str(old / RANKER_FILE))
    known = {one.name: given[one.name][:, : one.shape[1]] for one in graph.get_inputs() if one.name in given}
    assert known.keys() == given.keys() - {"session"}
    assert known["dense"].shape[1] <= schema.dense_dim - len(SESSION_DENSE)
    [before] = graph.run(["click"], {**known, **tables, "rows": rows})
    after = new.score_batch(**given, rows=rows)
    np.testing.assert_allclose(after, before, rtol=1e-5)
    assert np.ptp(before) > 0


def test_what_needs_no_upgrade_or_is_damaged_is_refused(old: Path, trained: Trained, tmp_path: Path) -> None:
    store = BundleStore(tmp_path / "bundles")
    with pytest.raises(BundleError, match="needs no upgrade"):
        upgrade_bundle(trained.bundles.current(), store)
    with (old / RANKER_FILE).open("ab") as file:
        file.write(b"x")
    with pytest.raises(BundleError, match=r"ranker\.onnx"):
        upgrade_bundle(old, store)
    assert store.versions() == []
