"""What the device can do at best: how fast it reads its memory, and how fast it multiplies matrices."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from engine.adapters.cuda_device import check, cuda_runtime

_ROUNDS: Final = 10
# Larger than any cache, and of a shape that keeps the whole device busy.
_CUDA_BYTES, _CUDA_SIDE = 2 << 30, 8192
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
    """Copies within the device's memory, and large products. Takes a few seconds and 6 GB of it; less on "cpu"."""
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
    """cuBLAS by way of FAISS: all inner products of two sets of float16 vectors, nothing of which leaves the device."""
    import faiss

    library: Any = faiss
    side = _CUDA_SIDE
    memory = [check(runtime.cudaMalloc(size)) for size in (2 * side * side, 2 * side * side, 4 * side * side)]
    try:
        for address in memory[:2]:
            check(runtime.cudaMemset(address, 0x3C, 2 * side * side))  # 1.06 everywhere: zeros would cost less power
        vectors, queries = (library.cast_integer_to_void_ptr(int(address)) for address in memory[:2])
        arguments = library.GpuDistanceParams()
        arguments.metric = faiss.METRIC_INNER_PRODUCT
        arguments.k = -1
        arguments.dims = arguments.numVectors = arguments.numQueries = side
        arguments.vectors, arguments.vectorType = vectors, library.DistanceDataType_F16
        arguments.queries, arguments.queryType = queries, library.DistanceDataType_F16
        arguments.vectorsRowMajor = arguments.queriesRowMajor = True
        arguments.outDistances = library.cast_integer_to_float_ptr(int(memory[2]))
        arguments.device = device_id
        resources = library.StandardGpuResources()

        def multiply() -> None:
            library.bfKnn(resources, arguments)
            check(runtime.cudaDeviceSynchronize())

        return 2.0 * side**3 / _best_s(multiply)
    finally:
        for address in memory:
            check(runtime.cudaFree(address))


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
