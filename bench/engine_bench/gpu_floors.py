"""What the device can do at best: how fast it reads its memory, and how fast it multiplies matrices."""

import ctypes
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from engine.adapters.cuda.device import check, cuda_runtime
from engine.adapters.cuda.program import Arguments, CudaProgram, DeviceBuffer

_ROUNDS: Final = 10
_CUDA_BYTES: Final = 2 << 30  # larger than any cache
_SOURCE: Final = Path(__file__).with_name("tensor_cores.cu")
_MULTIPLIED_ROUNDS, _BLOCKS_PER_PROCESSOR, _THREADS = 20_000, 4, 256
_FLOPS_PER_ROUND: Final = 8 * 2 * 16 * 8 * 16  # of a warp: eight products of 16 x 16 by 16 x 8
_CPU_BYTES, _CPU_SIDE = 128 << 20, 1024


@dataclass(frozen=True, slots=True)
class Floors:
    """bytes_per_s: of memory, reads and writes together. flops_per_s: of products of float16 matrices; CPU: float32."""

    bytes_per_s: float
    flops_per_s: float

    def scan_ms(self, item_count: int, dim: int, batch: int) -> float:
        """No exact scan of float16 vectors can be faster: it reads all of them once, and multiplies."""
        reading = item_count * dim * 2 / self.bytes_per_s
        multiplying = 2.0 * item_count * dim * batch / self.flops_per_s
        return max(reading, multiplying) * 1000


def measure_floors(device: str, device_id: int) -> Floors:
    """Measures transfers within the device's memory, and large products.

    Cost: a few seconds and 6 GB of that memory; less on "cpu".
    """
    if device == "cpu":
        return _cpu_floors()
    runtime = cuda_runtime()
    check(runtime.cudaSetDevice(device_id))
    return Floors(_copied_bytes_per_s(runtime), _multiplied_flops_per_s(runtime, device_id))


def device_name(device_id: int) -> str:
    """As its maker calls it."""
    properties = check(cuda_runtime().cudaGetDeviceProperties(device_id))
    name: Any = properties.name
    return name.decode().rstrip("\0") if isinstance(name, bytes) else str(name)


def _copied_bytes_per_s(runtime: Any) -> float:
    source, target = check(runtime.cudaMalloc(_CUDA_BYTES)), check(runtime.cudaMalloc(_CUDA_BYTES))
    try:
        within = runtime.cudaMemcpyKind.cudaMemcpyDeviceToDevice

        def copy() -> None:
            check(runtime.cudaMemcpy(target, source, _CUDA_BYTES, within))
            check(runtime.cudaDeviceSynchronize())

        return 2 * _CUDA_BYTES / _best_s(copy)
    finally:
        check(runtime.cudaFree(source))
        check(runtime.cudaFree(target))


def _multiplied_flops_per_s(runtime: Any, device_id: int) -> float:
    """On the tensor cores, out of registers, by the instruction that searches use."""
    program = CudaProgram(_SOURCE, {}, device_id)
    processors = check(runtime.cudaDeviceGetAttribute(runtime.cudaDeviceAttr.cudaDevAttrMultiProcessorCount, device_id))
    blocks = _BLOCKS_PER_PROCESSOR * int(processors)
    sink = DeviceBuffer(4 * blocks * _THREADS)
    kernel = program.kernel("multiply", Arguments(ctypes.c_int(_MULTIPLIED_ROUNDS), ctypes.c_void_p(sink.address)))
    stream = check(runtime.cudaStreamCreateWithFlags(runtime.cudaStreamNonBlocking))

    def multiply() -> None:
        kernel.launch(blocks, _THREADS, stream)
        check(runtime.cudaStreamSynchronize(stream))

    warps = blocks * _THREADS // 32
    return warps * _MULTIPLIED_ROUNDS * _FLOPS_PER_ROUND / _best_s(multiply)


def _cpu_floors() -> Floors:
    source, target = np.ones(_CPU_BYTES, np.uint8), np.empty(_CPU_BYTES, np.uint8)
    copying = _best_s(lambda: np.copyto(target, source))
    matrix = np.ones((_CPU_SIDE, _CPU_SIDE), np.float32)
    multiplying = _best_s(lambda: matrix @ matrix)
    return Floors(2 * _CPU_BYTES / copying, 2.0 * _CPU_SIDE**3 / multiplying)


def _best_s(call: Callable[[], object]) -> float:
    call()
    best = float("inf")
    for _ in range(_ROUNDS):
        started = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - started)
    return best
