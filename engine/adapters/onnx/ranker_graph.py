"""What a ranker's graph and the tables beside it must be like, wherever they run."""

from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime as ort

from engine.errors import BundleError
from engine.features.schema import ITEM_DYNAMIC, FeatureSchema
from engine.types import Float32Array

# Those that a request brings, by their names in RankingContext; its rows and the tables are the others.
CONTEXT_INPUTS: Final = ("query", "session", "collaborative", "dense", "codes")

_TYPES: Final = {"tensor(float)": np.float32, "tensor(int64)": np.int64}


def check_graph(session: ort.InferenceSession, path: Path, schema: FeatureSchema) -> None:
    """Raise BundleError where the graph's inputs and output are not those of the schema."""
    wanted = {
        **{name: (np.int64 if name == "codes" else np.float32, width) for name, width in schema.request_widths.items()},
        "rows": (np.int64, None),
        "item_table": (np.float32, schema.table_width),
        "item_dynamic": (np.float32, len(ITEM_DYNAMIC)),
    }
    found = {value.name: value for value in session.get_inputs()}
    if found.keys() != wanted.keys():
        raise BundleError(f"{path}: inputs are {sorted(found)}, wanted are {sorted(wanted)}")
    for name, (dtype, width) in wanted.items():
        shape = found[name].shape
        if _TYPES.get(found[name].type) is not dtype or len(shape) != 2 or (width and shape[1] != width):
            raise BundleError(
                f"{path}: input {name} is {found[name].type} {shape}, the feature schema wants "
                f"{np.dtype(dtype)} with {width or 'any number of'} columns"
            )
    if "click" not in {value.name for value in session.get_outputs()}:
        raise BundleError(f"{path}: no output named click")


def check_tables(item_table: Float32Array, item_dynamic: Float32Array, schema: FeatureSchema) -> None:
    """Raise BundleError where the tables are not what the schema says."""
    wanted = {"item_table": schema.table_width, "item_dynamic": len(ITEM_DYNAMIC)}
    for (name, width), array in zip(wanted.items(), (item_table, item_dynamic), strict=True):
        if array.dtype != np.float32 or array.ndim != 2 or array.shape[1] != width or not array.flags.c_contiguous:
            raise BundleError(
                f"{name} is {array.dtype} {array.shape}, wanted is C-contiguous float32 with {width} columns"
            )
    if len(item_table) != len(item_dynamic):
        raise BundleError(f"item_table has {len(item_table)} rows, item_dynamic has {len(item_dynamic)}")
