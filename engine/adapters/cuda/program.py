"""CUDA C, compiled when it is opened, and its kernels, launched with arguments that stay where they are."""

import ctypes
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from engine.adapters.cuda.device import check, cuda_runtime
from engine.errors import ConfigError


class CudaProgram:
    """One compiled source file on one device."""

    def __init__(self, source: Path, definitions: Mapping[str, int], device: int) -> None:
        """Compile for this device, whatever its architecture.

        Raises ConfigError, with the compiler's words, where that fails. Cost: about a second.
        """
        from cuda.bindings import driver, nvrtc

        runtime = cuda_runtime()
        check(runtime.cudaSetDevice(device))
        check(runtime.cudaFree(0))  # makes the device's context, which the driver's calls below need
        attribute = runtime.cudaDeviceAttr
        major = check(runtime.cudaDeviceGetAttribute(attribute.cudaDevAttrComputeCapabilityMajor, device))
        minor = check(runtime.cudaDeviceGetAttribute(attribute.cudaDevAttrComputeCapabilityMinor, device))
        options = [f"--gpu-architecture=sm_{major}{minor}", "--std=c++17"]
        options += [f"--define-macro={name}={value}" for name, value in definitions.items()]
        program = check(nvrtc.nvrtcCreateProgram(source.read_bytes(), source.name.encode(), 0, [], []))
        status = nvrtc.nvrtcCompileProgram(program, len(options), [option.encode() for option in options])[0]
        if int(status) != 0:
            log = b" " * check(nvrtc.nvrtcGetProgramLogSize(program))
            check(nvrtc.nvrtcGetProgramLog(program, log))
            raise ConfigError(f"{source.name} does not compile for CUDA device {device}: {log.decode().strip()}")
        image = b" " * check(nvrtc.nvrtcGetCUBINSize(program))
        check(nvrtc.nvrtcGetCUBIN(program, image))
        self._driver: Any = driver
        self._module = check(driver.cuModuleLoadData(image))

    def kernel(self, name: str, arguments: "Arguments", shared_bytes: int = 0) -> "CudaKernel":
        """A kernel of the source, bound to arguments; raises ConfigError where there is none of that name."""
        function = check(self._driver.cuModuleGetFunction(self._module, name.encode()))
        if shared_bytes:
            dynamic = self._driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            check(self._driver.cuFuncSetAttribute(function, dynamic, shared_bytes))
        return CudaKernel(self._driver, function, arguments, shared_bytes)


class Arguments:
    """What a kernel takes, at fixed addresses: a launch reads what the values are then."""

    def __init__(self, *values: Any) -> None:
        """values: ctypes objects, in the kernel's order; kept, and may be changed in place."""
        self._values = values
        self._addresses = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
        self.address: int = ctypes.addressof(self._addresses)


class CudaKernel:
    """A function on the device with its arguments."""

    def __init__(self, driver: Any, function: Any, arguments: Arguments, shared_bytes: int) -> None:
        self._driver = driver
        self._function = function
        self._arguments = arguments
        self._shared_bytes = shared_bytes

    def launch(self, blocks: int, threads: int, stream: Any) -> None:
        """Queue one run. Raises ConfigError where the driver refuses."""
        check(
            self._driver.cuLaunchKernel(
                self._function, blocks, 1, 1, threads, 1, 1, self._shared_bytes, stream, self._arguments.address, 0
            )
        )


class DeviceBuffer:
    """Bytes of the device's memory; freed with the object."""

    def __init__(self, size: int) -> None:
        self._runtime = cuda_runtime()
        self.address = int(check(self._runtime.cudaMalloc(max(size, 1))))

    def __del__(self) -> None:
        if hasattr(self, "address"):
            self._runtime.cudaFree(self.address)


class PinnedBuffer:
    """Bytes of the processor's memory that the device reads and writes at the same address: `bytes`, uint8 (size,)."""

    def __init__(self, size: int) -> None:
        self._runtime = cuda_runtime()
        self.address = int(check(self._runtime.cudaHostAlloc(max(size, 1), 0)))
        self.bytes = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(self.address))

    def __del__(self) -> None:
        if hasattr(self, "address"):
            self._runtime.cudaFreeHost(self.address)
