"""Write the ranker as an ONNX graph for serving, and hold it against the network it came from."""

import copy
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import torch
from torch import Tensor, nn

from engine.errors import EngineError
from engine.training.ranker.examples import RequestInputs
from engine.training.ranker.network import RankerNetwork
from engine.types import Float32Array

log = logging.getLogger(__name__)

_OPSET = 17
_TOLERANCE = 1e-4
# Float16 keeps 11 bits: this is what a probability may move by, so that lists stay what they are.
_HALF_TOLERANCE = 1e-2
_CHECKED_CANDIDATES = 64


class ServingGraph(nn.Module):
    """The network over candidate rows: gathers from tables that are inputs, ends in probabilities.

    half: what follows the features, where nearly all arithmetic is, in float16. The features themselves stay in
    float32: days, counts and the offsets of inner products have more digits than float16 keeps, until standardized.
    """

    def __init__(self, network: RankerNetwork, half: bool = False) -> None:
        super().__init__()
        self.network = copy.deepcopy(network)
        self.half_learned = half
        if half:
            self.network.cross.half()
            self.network.tower.half()

    def forward(
        self,
        query: Tensor,
        session: Tensor,
        collaborative: Tensor,
        dense: Tensor,
        codes: Tensor,
        rows: Tensor,
        item_table: Tensor,
        item_dynamic: Tensor,
    ) -> Tensor:
        items = nn.functional.embedding(rows, item_table)
        dynamic = nn.functional.embedding(rows, item_dynamic)
        user = self.network.features.user(dense, codes)
        item, retrieval = self.network.features.item(query, session, collaborative, dense, items, dynamic)
        if self.half_learned:
            user, item = user.half(), item.half()
        learned = (self.network.cross(user, item) + self.network.tower(user, item)).float()
        return self.network.click_probability(self.network.logits(retrieval, learned))


def export_network(
    network: RankerNetwork, sample: RequestInputs, item_table: Float32Array, item_dynamic: Float32Array, path: Path
) -> float:
    """Write ranker.onnx: (B, N) rows against B requests, where B, N and the tables' length are free.

    The tables are inputs rather than weights, so that every worker process shares one mapping of them and counts can
    change while the graph is in use.

    Args:
        network: to be written as it is.
        sample: real requests (at least one) that the graph is checked on, against random rows of the tables.
        item_table, item_dynamic: float32 (items, columns), of a few items at least.

    Returns:
        The largest difference of probability between ONNX Runtime and the tiled network on the sample.

    Raises:
        EngineError: that difference exceeds 1e-4.
    """
    inputs = _checked_inputs(sample, item_table, item_dynamic)
    difference = _write(ServingGraph(network).eval(), network, inputs, path)
    if not difference <= _TOLERANCE:
        raise EngineError(f"{path.name}: the exported ranker differs from the trained one by {difference:.2g}")
    return difference


def export_half_network(
    network: RankerNetwork, sample: RequestInputs, item_table: Float32Array, item_dynamic: Float32Array, path: Path
) -> float | None:
    """Write the graph for GPUs, ranker.fp16.onnx: the same inputs and output, all of float32, around float16 layers.

    Args:
        As for export_network.

    Returns:
        The largest difference of probability from the tiled network on the sample. None where it exceeds 0.01: then no
        file is written, and the log says so; a GPU can still rank in float32.
    """
    inputs = _checked_inputs(sample, item_table, item_dynamic)
    difference = _write(ServingGraph(network, half=True).eval(), network, inputs, path)
    if difference <= _HALF_TOLERANCE:
        return difference
    log.warning("no %s: in float16 the ranker's probabilities would be off by %.2g", path.name, difference)
    path.unlink()
    return None


def _checked_inputs(
    sample: RequestInputs, item_table: Float32Array, item_dynamic: Float32Array
) -> dict[str, npt.NDArray[Any]]:
    return {
        "query": sample.query,
        "session": sample.session,
        "collaborative": sample.collaborative,
        "dense": sample.dense,
        "codes": sample.codes,
        "rows": np.random.default_rng(0).integers(0, len(item_table), (len(sample.codes), _CHECKED_CANDIDATES)),
        "item_table": item_table,
        "item_dynamic": item_dynamic,
    }


def _write(graph: ServingGraph, network: RankerNetwork, inputs: dict[str, npt.NDArray[Any]], path: Path) -> float:
    """Write a graph; returns how far ONNX Runtime's answer is from the network's own."""
    with warnings.catch_warnings():
        # The exporter that reads TorchScript announces its retirement with every call.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            graph,
            tuple(torch.from_numpy(value) for value in inputs.values()),
            str(path),
            input_names=list(inputs),
            output_names=["click"],
            dynamic_axes={name: {0: "batch"} for name in ("query", "session", "collaborative", "dense", "codes")}
            | {name: {0: "batch", 1: "candidates"} for name in ("rows", "click")}
            | {name: {0: "items"} for name in ("item_table", "item_dynamic")},
            opset_version=_OPSET,
            dynamo=False,
        )
    options = ort.SessionOptions()
    options.log_severity_level = 3  # of float16 it would say that the processor has no kernels, and casts
    served = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]).run(["click"], inputs)[0]
    *request, rows, item_table, item_dynamic = inputs.values()
    with torch.no_grad():
        logits = network.tiled(*map(torch.from_numpy, (*request, item_table[rows], item_dynamic[rows])))
        wanted = network.click_probability(logits).numpy()
    return float(np.abs(served - wanted).max())
