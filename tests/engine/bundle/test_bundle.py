import json
import shutil
from pathlib import Path

import pytest

from engine.bundle.bundle import SCHEMA_FILE, open_bundle
from engine.errors import BundleError
from engine.features.schema import SCHEMA_VERSION
from tests.conftest import Trained


def test_a_bundle_of_other_features_is_refused_in_a_sentence(trained: Trained, tmp_path: Path) -> None:
    path = shutil.copytree(trained.bundles.current(), tmp_path / "bundle")
    schema = json.loads((path / SCHEMA_FILE).read_text())
    (path / SCHEMA_FILE).write_text(json.dumps({**schema, "schema_version": SCHEMA_VERSION - 1}))
    with pytest.raises(
        BundleError, match=f"version {SCHEMA_VERSION - 1} is unknown; this engine reads {SCHEMA_VERSION}"
    ):
        open_bundle(path, verify=False)
