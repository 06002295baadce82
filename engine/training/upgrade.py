"""Bundles of the feature schema before this one: their ranker takes what has come since, and does not look at it."""

import json
import shutil
from pathlib import Path
from typing import Any, Final

import onnx
from onnx import TensorProto, helper

from engine.bundle.bundle import RANKER_FILE, RANKER_HALF_FILE, RANKER_INT8_FILE, SCHEMA_FILE
from engine.bundle.manifest import MANIFEST, read_manifest, verify_files
from engine.bundle.store import BundleStore
from engine.errors import BundleError, described
from engine.features.schema import SCHEMA_VERSION, SESSION_DENSE

# Version 2 gave the ranker the recent session: an input of its own, and the last of the dense features.
_WITHOUT_SESSION: Final = 1
_MANIFEST_OWN: Final = {"schema_version", "version", "created_ms", "files"}


def upgrade_bundle(source: Path, store: BundleStore) -> Path:
    """Write a bundle of the feature schema before this one anew, as one that this engine serves.

    Its answers stay the same: the ranker goes on without the session. Vectors and generation are the same, too, so that
    the users' records stay good.

    Args:
        source: the directory of the bundle. It is not changed.

    Returns:
        The new bundle's directory in the store; the pointer stays where it is.

    Raises:
        BundleError: it does not verify, or is of a version that cannot be upgraded, or needs no upgrade.
    """
    manifest = read_manifest(source)
    verify_files(source, manifest)
    try:
        schema: dict[str, Any] = json.loads((source / SCHEMA_FILE).read_text())
        version = int(schema["schema_version"])
    except (OSError, ValueError, KeyError) as error:
        raise BundleError(f"{source / SCHEMA_FILE}: {described(error)}") from None
    if version == SCHEMA_VERSION:
        raise BundleError(f"{source}: is of feature schema version {version}, which needs no upgrade")
    if version != _WITHOUT_SESSION:
        raise BundleError(f"{source}: feature schema version {version} cannot be upgraded; train a new bundle")

    def write(directory: Path) -> dict[str, Any]:
        for name in manifest.files:
            shutil.copy2(source / name, directory / name)
        for name in (RANKER_FILE, RANKER_HALF_FILE, RANKER_INT8_FILE):
            if name in manifest.files:
                _take_session(directory / name, int(schema["embedding_dim"]))
        (directory / SCHEMA_FILE).write_text(json.dumps(schema | {"schema_version": SCHEMA_VERSION}))
        (directory / MANIFEST).unlink(missing_ok=True)
        return manifest.model_dump(exclude=_MANIFEST_OWN)

    return store.publish(write, make_current=False)


def _take_session(path: Path, embedding_dim: int) -> None:
    """Have a graph take `session` (B, dim) and the wider `dense`, and read of them what it read before."""
    model = onnx.load(str(path))
    graph = model.graph
    inputs = {given.name: given for given in graph.input}
    if "dense" not in inputs or "session" in inputs:
        raise BundleError(f"{path}: is no ranker of feature schema version {_WITHOUT_SESSION}")
    width = inputs["dense"].type.tensor_type.shape.dim[1].dim_value
    for node in graph.node:
        for place, name in enumerate(node.input):
            if name == "dense":
                node.input[place] = "dense_before"
    bounds = {"dense_start": 0, "dense_stop": width, "dense_axis": 1}
    graph.initializer.extend(
        helper.make_tensor(name, TensorProto.INT64, [1], [value]) for name, value in bounds.items()
    )
    graph.node.insert(0, helper.make_node("Slice", ["dense", *bounds], ["dense_before"]))
    inputs["dense"].type.tensor_type.shape.dim[1].dim_value = width + len(SESSION_DENSE)
    batch = inputs["dense"].type.tensor_type.shape.dim[0].dim_param or "batch"
    graph.input.append(helper.make_tensor_value_info("session", TensorProto.FLOAT, [batch, embedding_dim]))
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
