"""The ranker on a device: tables that stay there, calls of a few fixed shapes, each recorded once as a CUDA graph."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime as ort

from engine.adapters.cuda.device import TURNS
from engine.adapters.cuda.device_table import DeviceTable
from engine.adapters.onnx.ranker_graph import CONTEXT_INPUTS, check_graph, check_tables
from engine.errors import BundleError, ConfigError, EngineError
from engine.features.schema import FeatureSchema
from engine.types import Float32Array, Int64Array, RankingContext

_PROVIDERS: Final = {"cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}
_NOT_FINITE: Final = "ranker: a score is not finite"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRanking:
    """Where and in which shapes to rank.

    device: "cuda", or "cpu", which runs the same code with its own buffers. device_id: of CUDA.
    provider: "cuda" or "tensorrt", on CUDA. half: whether TensorRT may use float16.
    memory_bytes: what ONNX Runtime may take there, beside the tables.
    candidate_count: of one request; fewer are padded, more are ranked in several parts.
    batch_sizes: requests of one call, ascending; others are padded to the next.
    tensorrt_cache: where TensorRT keeps what it builds.
    """

    device: str
    device_id: int = 0
    provider: str = "cuda"
    half: bool = True
    memory_bytes: int = 2 << 30
    candidate_count: int = 1000
    batch_sizes: tuple[int, ...] = (1, 4, 16, 32)
    tensorrt_cache: Path = Path("var/tensorrt")


class OnnxGpuRanker:
    """A Ranker and a BatchRanker. Safe for concurrent calls, which take turns."""

    def __init__(
        self,
        path: Path,
        schema: FeatureSchema,
        item_table: Float32Array,
        item_dynamic: Float32Array,
        settings: DeviceRanking,
    ) -> None:
        """Open the graph in every shape, put the tables on the device, and run each shape until it is recorded.

        Args:
            path: ranker.onnx or ranker.fp16.onnx.
            schema: of the same bundle.
            item_table, item_dynamic: as for OnnxRanker; what is written into them counts once `rows_written` was told.

        Raises:
            BundleError: the file is no ONNX graph, or does not go with the schema or the tables.
            ConfigError: the device or the execution provider cannot be used.

        Cost: a copy of the tables, and a session for each batch size; with TensorRT minutes, but for what is cached.
        """
        check_tables(item_table, item_dynamic, schema)
        self._candidate_count = settings.candidate_count
        self._item_count = len(item_table)
        # Before the tables go anywhere: a file or a device that cannot be used is to say so in its own words.
        sessions = {size: _open(path, settings, size, self._item_count) for size in sorted(set(settings.batch_sizes))}
        check_graph(next(iter(sessions.values())), path, schema)
        self._tables = {
            "item_table": DeviceTable(item_table, settings.device, settings.device_id),
            "item_dynamic": DeviceTable(item_dynamic, settings.device, settings.device_id),
        }
        shapes = {value.name: tuple(value.shape[1:]) for value in next(iter(sessions.values())).get_inputs()}
        self._shapes = {name: shapes[name] for name in CONTEXT_INPUTS}
        self._calls = [_Call(session, size, schema, self._tables, settings, path) for size, session in sessions.items()]

    def rows_written(self, rows: Int64Array) -> None:
        """Bring rows of both tables (int64 (n,)) up to date on the device; the very next score counts them."""
        for table in self._tables.values():
            table.copy_rows(rows)

    def score(self, context: RankingContext, rows: Int64Array) -> Float32Array:
        """Click probability of each candidate: float32 (n,) for rows int64 (n,), in their order.

        Raises EngineError as score_many returns it, or where the device fails.
        """
        (scores,) = self.score_many([(context, rows)])
        if isinstance(scores, EngineError):
            raise scores
        return scores

    def score_many(self, requests: Sequence[tuple[RankingContext, Int64Array]]) -> list[Float32Array | EngineError]:
        """Click probabilities of several requests' candidates, in step.

        A request with an input of another shape than the graph's, with a row outside the tables or with a score that is
        not finite has an error for an answer; the others have theirs.

        Raises EngineError where the device fails.
        """
        faults = [self._fault(*request) for request in requests]
        scores = [np.empty(len(rows), np.float32) for _, rows in requests]
        parts = [
            (position, start)
            for position, fault in enumerate(faults)
            if fault is None
            for start in range(0, len(scores[position]), self._candidate_count)
        ]
        largest = self._calls[-1].size
        for first in range(0, len(parts), largest):
            batch = parts[first : first + largest]
            call = next(call for call in self._calls if call.size >= len(batch))
            lines = [
                (requests[position][0], requests[position][1][start : start + self._candidate_count])
                for position, start in batch
            ]
            for (position, start), (_, rows), line in zip(batch, lines, call.run(lines), strict=False):
                scores[position][start : start + len(rows)] = line[: len(rows)]
        return [
            fault or (found if np.isfinite(found).all() else EngineError(_NOT_FINITE))
            for fault, found in zip(faults, scores, strict=True)
        ]

    def _fault(self, context: RankingContext, rows: Int64Array) -> EngineError | None:
        """Why a request cannot be scored."""
        # On a device nothing would say so: what is read there is whatever lies in that memory.
        if len(rows) and (rows.min() < 0 or rows.max() >= self._item_count):
            return EngineError(f"ranker: candidate rows must lie in [0, {self._item_count})")
        for name, shape in self._shapes.items():
            given = getattr(context, name).shape
            if given != shape:
                return EngineError(f"ranker: {name} is {given}, the graph takes {shape}")
        return None


class _Call:
    """One shape: a session, its buffers on the device at addresses that never change, and what is copied into them."""

    def __init__(
        self,
        session: ort.InferenceSession,
        size: int,
        schema: FeatureSchema,
        tables: dict[str, DeviceTable],
        settings: DeviceRanking,
        path: Path,
    ) -> None:
        self.size = size
        self._session = session
        self._host: dict[str, np.ndarray[Any, Any]] = {}
        self._inputs: dict[str, Any] = {}
        self._binding = session.io_binding()
        for value in session.get_inputs():
            if value.name in tables:
                self._binding.bind_ortvalue_input(value.name, tables[value.name].value)
                continue
            dtype = np.int64 if value.type == "tensor(int64)" else np.float32
            self._host[value.name] = np.zeros(value.shape, dtype)
            self._inputs[value.name] = _buffer(value.shape, dtype, settings)
            self._binding.bind_ortvalue_input(value.name, self._inputs[value.name])
        self._clicks = _buffer([size, settings.candidate_count], np.float32, settings)
        self._binding.bind_ortvalue_output("click", self._clicks)
        try:
            # The first runs allocate and, on CUDA, the second records the graph; nothing else may use the device.
            for _ in range(3):
                self.run([])
        except EngineError as error:
            raise BundleError(f"{path}: {error}") from error

    def run(self, lines: Sequence[tuple[RankingContext, Int64Array]]) -> Float32Array:
        """float32 (size, candidate_count): the scores of up to `size` requests, then padding."""
        with TURNS:
            for line, (context, rows) in enumerate(lines):
                for name in CONTEXT_INPUTS:
                    self._host[name][line] = getattr(context, name)
                # What is left over holds rows of before: they are valid, and nobody looks at their scores.
                self._host["rows"][line, : len(rows)] = rows
            try:
                for name, buffer in self._inputs.items():
                    buffer.update_inplace(self._host[name])
                self._session.run_with_iobinding(self._binding)
                clicks: Float32Array = np.array(self._clicks.numpy())
            except Exception as error:  # ONNX Runtime's errors share no base class
                raise EngineError(f"ranker: {str(error).splitlines()[0]}") from error
        return clicks


def _buffer(shape: Sequence[int], dtype: Any, settings: DeviceRanking) -> Any:
    return ort.OrtValue.ortvalue_from_shape_and_type(list(shape), dtype, settings.device, settings.device_id)


def _open(path: Path, settings: DeviceRanking, batch_size: int, item_count: int) -> ort.InferenceSession:
    options = session_options(settings, batch_size, item_count)
    providers = _providers(settings)
    if settings.device != "cpu":
        # Every buffer on the device would be a warning about plug-ins that nobody wants.
        ort.set_default_logger_severity(3)
        ort.preload_dlls(directory="")  # CUDA's libraries from their packages, where no system has them
    try:
        session = ort.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # ONNX Runtime's errors share no base class
        raise BundleError(f"{path}: not a usable ONNX graph: {str(error).splitlines()[0]}") from error
    # Where a provider cannot be loaded, ONNX Runtime only logs it and takes the processor.
    used = session.get_providers()[0]
    if used != providers[0][0]:
        raise ConfigError(
            f"ONNX Runtime cannot use {providers[0][0]} and would take {used}: "
            "the driver, cuDNN 9 or TensorRT is missing"
        )
    return session


def session_options(settings: DeviceRanking, batch_size: int, item_count: int) -> ort.SessionOptions:
    """Options of a session of one shape: with all dimensions known, nothing is left that computes shapes."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if settings.device != "cpu":
        # A node on the processor would copy from and to the device in every call, and cannot be recorded.
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    options.add_free_dimension_override_by_name("batch", batch_size)
    options.add_free_dimension_override_by_name("candidates", settings.candidate_count)
    options.add_free_dimension_override_by_name("items", item_count)
    return options


def _providers(settings: DeviceRanking) -> list[tuple[str, dict[str, str]]]:
    if settings.device == "cpu":
        return [("CPUExecutionProvider", {})]
    shared = {"device_id": str(settings.device_id)}
    cuda = shared | {
        "gpu_mem_limit": str(settings.memory_bytes),
        "arena_extend_strategy": "kSameAsRequested",
        "use_tf32": "0",
        "enable_cuda_graph": str(int(settings.provider == "cuda")),
    }
    if settings.provider == "cuda":
        return [(_PROVIDERS["cuda"], cuda)]
    tensorrt = shared | {
        "trt_max_workspace_size": str(settings.memory_bytes),
        "trt_fp16_enable": str(int(settings.half)),
        "trt_cuda_graph_enable": "1",
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(settings.tensorrt_cache),
        "trt_timing_cache_enable": "1",
    }
    return [(_PROVIDERS["tensorrt"], tensorrt), (_PROVIDERS["cuda"], cuda)]
