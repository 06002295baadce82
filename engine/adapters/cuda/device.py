"""Whether the CUDA device that the settings ask for is there, with the libraries that use it; and its memory.

Nothing here is touched while every stage is on the processor.
"""

import threading
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from engine.config.serving import DeviceConfig
from engine.errors import ConfigError

# One call at a time to the device from this process. FAISS's GPU resources and bound ONNX Runtime buffers belong to one
# caller at once; and while a CUDA graph is recorded, a copy or an allocation by another thread ends the recording.
TURNS: Final = threading.RLock()

_INSTALL: Final = "install 'personalization-engine[gpu]' in an environment without faiss-cpu and onnxruntime"


def require_device(config: DeviceConfig) -> None:
    """Raise ConfigError, naming what is missing, where a stage is to run on a device that cannot run it."""
    if config.retrieval == "cuda":
        _require_faiss()
    if config.ranking == "cuda":
        _require_onnxruntime(config.provider)
    if "cuda" in (config.retrieval, config.ranking):
        _require_present(config)


def free_memory(device: int) -> int:
    """Free bytes on the device."""
    runtime = cuda_runtime()
    check(runtime.cudaSetDevice(device))
    free, _ = check(runtime.cudaMemGetInfo())
    return int(free)


def require_memory(what: str, needed: int, device: int) -> None:
    """Raise ConfigError where `needed` bytes are not free on the device; `what` begins the sentence."""
    free = free_memory(device)
    if needed > free:
        raise ConfigError(
            f"{what} needs {needed >> 20:,} MiB on CUDA device {device}, where {free >> 20:,} MiB are free"
        )


def cuda_runtime() -> Any:
    """NVIDIA's binding of the CUDA runtime. Raises ConfigError where it is not installed."""
    try:
        from cuda.bindings import runtime
    except ImportError:
        raise ConfigError(f"a CUDA device needs cuda-bindings, which is not installed: {_INSTALL}") from None
    return runtime


def check(answer: tuple[Any, ...]) -> Any:
    """What a runtime call returned beside its status: nothing, one value, or a tuple. Raises ConfigError on failure."""
    status, *values = answer
    if int(status) != 0:
        raise ConfigError(f"CUDA: {status.name}")
    return values[0] if len(values) == 1 else tuple(values)


def _require_faiss() -> None:
    import faiss

    if "GPU" not in faiss.get_compile_options().split():
        raise ConfigError(
            f'device.retrieval = "cuda" needs FAISS with GPU support, found {_found("faiss")}: {_INSTALL}'
        )


def _require_onnxruntime(provider: str) -> None:
    import onnxruntime

    wanted = {"cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}[provider]
    if wanted not in onnxruntime.get_available_providers():
        raise ConfigError(
            f'device.ranking = "cuda" needs ONNX Runtime with {wanted}, found {_found("onnxruntime")}: {_INSTALL}'
        )


def _require_present(config: DeviceConfig) -> None:
    status, count = cuda_runtime().cudaGetDeviceCount()
    if int(status) != 0 or count == 0:
        raise ConfigError(
            f"the settings ask for a CUDA device, and none can be used ({status.name}): see that nvidia-smi lists one, "
            "that the driver is recent enough for CUDA 13, and that CUDA_VISIBLE_DEVICES does not hide it"
        )
    if config.cuda_device >= count:
        raise ConfigError(f"device.cuda_device is {config.cuda_device}, and there are {count}, counted from 0")


def _found(library: str) -> str:
    """The installed distribution that provides a library, with its version."""
    for name in (f"{library}-gpu-cuvs", f"{library}-gpu", f"{library}-cpu", library):
        try:
            return f"{name} {version(name)}"
        except PackageNotFoundError:
            continue
    return f"{library} of unknown origin"
