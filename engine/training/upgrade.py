"""Bundles of an earlier feature schema: their ranker takes the inputs that were added since, and does not read them."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import onnx
from onnx import TensorProto, helper

from engine.bundle.bundle import RANKER_FILE, RANKER_HALF_FILE, RANKER_INT8_FILE, SCHEMA_FILE
from engine.bundle.manifest import MANIFEST, read_manifest, verify_files
from engine.bundle.store import BundleStore
from engine.errors import BundleError, described
from engine.features.schema import ADDED_TO, SCHEMA_VERSION, FeatureSchema

_MANIFEST_OWN: Final = {"schema_version", "version", "created_ms", "files"}


def upgrade_bundle(source: Path, store: BundleStore) -> Path:
    """Write a bundle of an earlier feature schema again, as one that this engine serves.

    Its answers stay the same: the ranker goes on without what was added. Vectors and generation are the same, too, so
    that the users' records stay good.

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
    if not ADDED_TO.issuperset(range(version, SCHEMA_VERSION)) or version > SCHEMA_VERSION:
        raise BundleError(f"{source}: feature schema version {version} cannot be upgraded; train a new bundle")

    upgraded = schema | {"schema_version": SCHEMA_VERSION}
    widths = FeatureSchema.model_validate(upgraded).request_widths

    def write(directory: Path) -> dict[str, Any]:
        for name in manifest.files:
            shutil.copy2(source / name, directory / name)
        for name in (RANKER_FILE, RANKER_HALF_FILE, RANKER_INT8_FILE):
            if name in manifest.files:
                _widen(directory / name, widths)
        (directory / SCHEMA_FILE).write_text(json.dumps(upgraded))
        (directory / MANIFEST).unlink(missing_ok=True)
        return manifest.model_dump(exclude=_MANIFEST_OWN)

    return store.publish(write, make_current=False)


def _widen(path: Path, widths: Mapping[str, int]) -> None:
    """Have a graph take inputs (B, width), by name, and read of them what it read before."""
    model = onnx.load(str(path))
    graph = model.graph
    inputs = {given.name: given.type.tensor_type.shape for given in graph.input}
    if "dense" not in inputs:
        raise BundleError(f"{path}: is no ranker")
    batch = inputs["dense"].dim[0].dim_param or "batch"
    for name, width in widths.items():
        if name not in inputs:
            graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, width]))
            continue
        columns = inputs[name].dim[1]
        if columns.dim_value == width:
            continue
        for node in graph.node:
            for place, read in enumerate(node.input):
                if read == name:
                    node.input[place] = f"{name}_before"
        bounds = {f"{name}_start": 0, f"{name}_stop": columns.dim_value, f"{name}_axis": 1}
        graph.initializer.extend(
            helper.make_tensor(bound, TensorProto.INT64, [1], [value]) for bound, value in bounds.items()
        )
        graph.node.insert(0, helper.make_node("Slice", [name, *bounds], [f"{name}_before"]))
        columns.dim_value = width
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
