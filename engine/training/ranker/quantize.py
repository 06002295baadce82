"""The ranker with its dense layers in int8, for processors that multiply small integers faster than floats."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.quant_utils import add_pre_process_metadata

from engine.training.ranker.examples import RequestInputs
from engine.types import Float32Array, Int64Array

log = logging.getLogger(__name__)

# Of the items that are shown, so many at least must be the ones that float32 would show.
LEAST_OVERLAP = 0.98
_CANDIDATES, _SHOWN = 1000, 50
# Nearest items are found for these at most, by a scan of all items.
_REQUESTS = 64


def export_int8_network(
    exported: Path,
    sample: RequestInputs,
    item_vectors: Float32Array,
    item_table: Float32Array,
    item_dynamic: Float32Array,
    path: Path,
) -> float:
    """Write ranker.int8.onnx, where its order agrees with that of ranker.onnx.

    The layers after the first get int8 weights, by column, and their inputs are brought to int8 while serving. The
    first layer stays as it is: its weights are made again for every request, from the user's half.

    Args:
        exported: ranker.onnx.
        sample: real requests (at least one). For each, the 1000 nearest items are ranked by both graphs.
        item_vectors: float32 (items, dim), the retrieval space. item_table, item_dynamic: as for export_network.

    Returns:
        Of the top 50 by float32, the share that is among the top 50 by int8, in the mean over the sample. Below
        LEAST_OVERLAP no file is written, and the log says so.

    Cost: one scan of the items for each of 64 requests at most.
    """
    model = onnx.load(str(exported))
    names = [node.name for node in model.graph.node if node.op_type == "MatMul"]
    # The preparation that is advised without this mark fuses and folds, as ONNX Runtime does when it loads a graph.
    add_pre_process_metadata(model)
    quantize_dynamic(
        model,
        path,
        # The quantizer makes MatMul of dense layers; what is one already has a factor that is no constant, or is tiny.
        op_types_to_quantize=["MatMul"],
        nodes_to_exclude=names,
        weight_type=QuantType.QInt8,
        per_channel=True,
        # Processors without VNNI add pairs of products in 16 bits: with seven bits a weight the sum fits.
        reduce_range=True,
    )
    requests = sample.take(np.arange(min(len(sample.codes), _REQUESTS)))
    inputs: dict[str, npt.NDArray[Any]] = {
        "query": requests.query,
        "session": requests.session,
        "collaborative": requests.collaborative,
        "dense": requests.dense,
        "codes": requests.codes,
        "rows": _nearest(requests.query, item_vectors),
        "item_table": item_table,
        "item_dynamic": item_dynamic,
    }
    overlap = top_overlap(_scores(exported, inputs), _scores(path, inputs), _SHOWN)
    if overlap < LEAST_OVERLAP:
        log.warning("no %s: of the first %d items it would show %.3f only", path.name, _SHOWN, overlap)
        path.unlink()
    return overlap


def top_overlap(wanted: Float32Array, found: Float32Array, count: int) -> float:
    """The mean share of each row's `count` highest of `wanted` that are among its highest of `found`; ties by place."""
    best, others = (np.argsort(-scores, axis=1, kind="stable")[:, :count] for scores in (wanted, found))
    return float(np.mean([np.isin(row, other).mean() for row, other in zip(best, others, strict=True)]))


def _nearest(queries: Float32Array, item_vectors: Float32Array) -> Int64Array:
    count = min(_CANDIDATES, len(item_vectors))
    return np.stack([np.argsort(-(item_vectors @ query), kind="stable")[:count] for query in queries])


def _scores(path: Path, inputs: dict[str, npt.NDArray[Any]]) -> Float32Array:
    scores: Float32Array = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(["click"], inputs)[0]
    return scores
