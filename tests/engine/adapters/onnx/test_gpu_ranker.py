"""What is the device ranker's own; the rest is in the contract. Without a CUDA device it runs on the processor."""

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from engine.adapters.onnx.gpu_ranker import DeviceRanking, OnnxGpuRanker, session_options
from engine.adapters.onnx.ranker import OnnxRanker
from engine.errors import BundleError, EngineError
from engine.training.ranker.train import export_half_ranker, export_ranker
from engine.types import RankingContext
from tests.engine.training.ranker import small
from tests.gpu import needs_cuda, on_gpu

# The execution provider for CUDA has a kernel for each of these, and none that computes with shapes is among them.
ON_THE_DEVICE = {
    "Abs", "Add", "Cast", "Clip", "Concat", "Div", "Exp", "Flatten", "Gather", "Gemm", "Log", "MatMul", "Max", "Min",
    "Mul", "Neg", "Pad", "Reciprocal", "ReduceSum", "Relu", "Reshape", "Sign", "Slice", "Sqrt", "Squeeze", "Sub",
    "Transpose", "Unsqueeze",
}  # fmt: skip
SETTINGS = {
    "cpu": DeviceRanking(device="cpu", candidate_count=100, batch_sizes=(1, 4)),
    "cuda": DeviceRanking(device="cuda", candidate_count=100, batch_sizes=(1, 4)),
}
DEVICES = ["cpu", on_gpu("cuda")]


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    home = tmp_path_factory.mktemp("ranker")
    paths = {"float32": home / "ranker.onnx", "float16": home / "ranker.fp16.onnx"}
    export_ranker(small.ranker(), *small.tables(), paths["float32"])
    export_half_ranker(small.ranker(), *small.tables(), paths["float16"])
    return paths


def open_ranker(path: Path, device: str = "cpu") -> tuple[OnnxGpuRanker, np.ndarray, np.ndarray]:
    table, dynamic = (array.copy() for array in small.tables())
    return OnnxGpuRanker(path, small.ranker().schema, table, dynamic, SETTINGS[device]), table, dynamic


def context(position: int) -> RankingContext:
    sample = small.ranker().sample
    return RankingContext(
        sample.query[position], sample.session[position], sample.collaborative[position], sample.dense[position],
        sample.codes[position],
    )  # fmt: skip


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_batches_of_any_size_and_length_score_as_the_ranker_on_the_processor(
    graphs: dict[str, Path], precision: str, device: str
) -> None:
    ranker, table, dynamic = open_ranker(graphs[precision], device)
    reference = OnnxRanker(graphs["float32"], small.ranker().schema, table, dynamic)
    rng = np.random.default_rng(0)
    tolerance = 1e-2 if precision == "float16" else 1e-5
    # Nobody, one, parts that fill a batch exactly, several batches; lists shorter, as long and longer than the shape.
    for counts in ([], [0], [1], [100], [0, 100, 7], [100] * 4, [250, 99, 0, 101, 1], [3] * 9):
        requests = [(context(i % 8), rng.integers(0, len(table), count)) for i, count in enumerate(counts)]
        found = ranker.score_many(requests)
        assert len(found) == len(requests)
        for scores, (asked, rows) in zip(found, requests, strict=True):
            np.testing.assert_allclose(scores, reference.score(asked, rows), atol=tolerance)


def test_float16_keeps_the_best_fifty(graphs: dict[str, Path]) -> None:
    ranker, table, dynamic = open_ranker(graphs["float16"])
    reference = OnnxRanker(graphs["float32"], small.ranker().schema, table, dynamic)
    rows = np.arange(100)
    overlaps = []
    for position in range(8):
        best = [np.argsort(-one.score(context(position), rows))[:50] for one in (ranker, reference)]
        overlaps.append(len(np.intersect1d(*best)) / 50)
    assert np.mean(overlaps) >= 0.98


@pytest.mark.parametrize("device", DEVICES)
def test_rows_that_were_written_reach_the_next_score_once_told(graphs: dict[str, Path], device: str) -> None:
    ranker, table, dynamic = open_ranker(graphs["float32"], device)
    rows = np.arange(50)
    before = ranker.score(context(0), rows)
    dynamic[7] += 1.0
    table[9] = table[60]
    np.testing.assert_array_equal(ranker.score(context(0), rows), before)
    ranker.rows_written(np.array([7, 9]))
    after = ranker.score(context(0), rows)
    assert (after != before).nonzero()[0].tolist() == [7, 9]
    expected = OnnxRanker(graphs["float32"], small.ranker().schema, table, dynamic).score(context(0), rows)
    np.testing.assert_allclose(after, expected, atol=1e-5)


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_with_its_shape_known_nothing_of_the_graph_is_for_the_processor(
    graphs: dict[str, Path], precision: str, tmp_path: Path
) -> None:
    """A node without a CUDA kernel, such as those that compute shapes, would cost copies and forbid the recording."""
    options = session_options(SETTINGS["cpu"], 4, len(small.tables()[0]))
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(str(graphs[precision]), options, providers=["CPUExecutionProvider"])
    kinds = Counter(node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node)
    assert set(kinds) <= ON_THE_DEVICE, kinds


def test_only_the_layers_are_in_float16(graphs: dict[str, Path]) -> None:
    half = onnx.TensorProto.FLOAT16
    graph = onnx.load(graphs["float16"]).graph
    widths = [tuple(weight.dims) for weight in graph.initializer if weight.data_type == half]
    assert (16, 8) in widths or (8, 16) in widths
    assert all(value.type.tensor_type.elem_type != half for value in (*graph.input, *graph.output))


@needs_cuda
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_no_copies_are_put_into_the_graph(graphs: dict[str, Path], precision: str) -> None:
    """ONNX Runtime says in its log how many it had to add; sessions here would refuse to open with one."""
    script = (
        "import sys, onnxruntime as ort\n"
        "ort.preload_dlls(directory='')\n"
        "o = ort.SessionOptions()\n"
        "o.log_severity_level = 1\n"
        "for name, size in (('batch', 4), ('candidates', 100), ('items', int(sys.argv[2]))):\n"
        "    o.add_free_dimension_override_by_name(name, size)\n"
        "s = ort.InferenceSession(sys.argv[1], o, providers=['CUDAExecutionProvider'])\n"
        "print(s.get_providers())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(graphs[precision]), str(len(small.tables()[0]))],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "CUDAExecutionProvider" in done.stdout
    assert "MemcpyTransformer" in done.stderr  # the pass that would have added them speaks
    assert not re.search(r"Memcpy(FromHost|ToHost)|Memcpy nodes", done.stderr)


@pytest.mark.parametrize("row", [-1, 10**6])
def test_a_row_outside_the_tables_is_refused(graphs: dict[str, Path], row: int) -> None:
    ranker, _, _ = open_ranker(graphs["float32"])
    with pytest.raises(EngineError, match="candidate rows must lie in"):
        ranker.score(context(0), np.array([0, row]))


def test_scores_that_are_not_finite_are_refused_and_padding_is_nobodys(graphs: dict[str, Path]) -> None:
    ranker, table, _ = open_ranker(graphs["float32"])
    table[3, 0] = np.nan
    ranker.rows_written(np.array([3]))
    with pytest.raises(EngineError, match="not finite"):
        ranker.score(context(0), np.array([2, 3]))
    # What is left of it in the buffer behind a shorter request does not matter.
    assert len(ranker.score(context(0), np.array([2]))) == 1


def test_a_vector_of_another_space_is_refused(graphs: dict[str, Path]) -> None:
    ranker, _, _ = open_ranker(graphs["float32"])
    good = context(0)
    bad = RankingContext(np.zeros(9, np.float32), good.session, good.collaborative, good.dense, good.codes)
    with pytest.raises(EngineError, match="ranker: query is"):
        ranker.score(bad, np.array([0]))


def test_a_file_that_is_no_graph_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ranker.onnx"
    path.write_bytes(b"no graph")
    with pytest.raises(BundleError, match=r"ranker\.onnx: not a usable ONNX graph"):
        open_ranker(path)
