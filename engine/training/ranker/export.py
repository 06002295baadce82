"""Write the ranker as an ONNX graph for serving, and hold it against the network it came from."""

import warnings
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from torch import Tensor, nn

from engine.errors import EngineError
from engine.training.ranker.examples import RequestInputs
from engine.training.ranker.network import RankerNetwork
from engine.types import Float32Array

_OPSET = 17
_TOLERANCE = 1e-4
_CHECKED_CANDIDATES = 64


class ServingGraph(nn.Module):
    """The network over candidate rows: gathers from tables that are inputs, ends in probabilities."""

    def __init__(self, network: RankerNetwork) -> None:
        super().__init__()
        self.network = network

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
        return self.network.click_probability(self.network(query, session, collaborative, dense, codes, items, dynamic))


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
    rows = np.random.default_rng(0).integers(0, len(item_table), (len(sample.codes), _CHECKED_CANDIDATES))
    inputs = {
        "query": sample.query,
        "session": sample.session,
        "collaborative": sample.collaborative,
        "dense": sample.dense,
        "codes": sample.codes,
        "rows": rows,
        "item_table": item_table,
        "item_dynamic": item_dynamic,
    }
    graph = ServingGraph(network).eval()
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
    served = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(["click"], inputs)[0]
    request = (sample.query, sample.session, sample.collaborative, sample.dense, sample.codes)
    with torch.no_grad():
        logits = network.tiled(*map(torch.from_numpy, (*request, item_table[rows], item_dynamic[rows])))
        wanted = network.click_probability(logits).numpy()
    difference = float(np.abs(served - wanted).max())
    if not difference <= _TOLERANCE:
        raise EngineError(f"{path}: the exported ranker differs from the trained one by {difference:.2g}")
    return difference
