import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from engine.bundle.bundle import SCHEMA_FILE, open_bundle
from engine.bundle.manifest import MANIFEST
from engine.config.serving import BlendConfig
from engine.errors import BundleError
from engine.features.schema import SCHEMA_VERSION
from engine.features.session import SessionSettings
from tests.conftest import Trained


def test_a_bundle_of_other_features_is_refused_in_a_sentence(trained: Trained, tmp_path: Path) -> None:
    path = shutil.copytree(trained.bundles.current(), tmp_path / "bundle")
    schema = json.loads((path / SCHEMA_FILE).read_text())
    (path / SCHEMA_FILE).write_text(json.dumps({**schema, "schema_version": SCHEMA_VERSION - 1}))
    with pytest.raises(
        BundleError, match=f"version {SCHEMA_VERSION - 1} is unknown; this engine reads {SCHEMA_VERSION}"
    ):
        open_bundle(path, verify=False)


def test_how_the_ranker_read_sessions_is_in_the_bundle(trained: Trained, tmp_path: Path) -> None:
    path = shutil.copytree(trained.bundles.current(), tmp_path / "bundle")
    manifest = json.loads((path / MANIFEST).read_text())
    assert manifest["training"]["session"]["half_life_s"] == BlendConfig().half_life_s

    def opened(session: object) -> SessionSettings:
        training = {name: value for name, value in manifest["training"].items() if name != "session"}
        if session is not None:
            training["session"] = session
        (path / MANIFEST).write_text(json.dumps({**manifest, "training": training}))
        return open_bundle(path, verify=False).ranker_session

    # Bundles that do not say were trained with the defaults.
    default, silent = SessionSettings.of(BlendConfig()), opened(None)
    assert (silent.window_s, silent.half_life_s) == (default.window_s, default.half_life_s)
    np.testing.assert_array_equal(silent.type_weights, default.type_weights)
    other = opened({"window_s": 60, "half_life_s": 30, "event_weights": {"purchase": 7}})
    assert (other.window_s, other.half_life_s, other.type_weights.sum()) == (60, 30, 7)
    with pytest.raises(BundleError, match=r"training\.session\.half_life_s: "):
        opened({"half_life_s": 0})


def test_a_key_that_older_bundles_have_is_passed_over(trained: Trained, tmp_path: Path) -> None:
    path = shutil.copytree(trained.bundles.current(), tmp_path / "bundle")
    schema = json.loads((path / SCHEMA_FILE).read_text())
    assert "has_engagement_head" not in schema
    for value in (False, True):
        (path / SCHEMA_FILE).write_text(json.dumps({**schema, "has_engagement_head": value}))
        assert open_bundle(path, verify=False).schema == open_bundle(trained.bundles.current()).schema
    (path / SCHEMA_FILE).write_text(json.dumps({**schema, "unheard_of": False}))
    with pytest.raises(BundleError, match="unheard_of"):
        open_bundle(path, verify=False)
