"""What every bench has: how it tells its progress, and what a figure was measured on, which is kept beside it."""

import datetime
import os
import platform
import subprocess
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

# Told what is done, of how much, and of what.
Progress = Callable[[int, int, str], None]

_LIBRARIES = ("numpy", "numba", "faiss-cpu", "faiss-gpu-cuvs", "onnxruntime", "onnxruntime-gpu", "grpcio", "redis")


def describe_machine(libraries: tuple[str, ...] = ()) -> dict[str, Any]:
    """Processor, memory, versions (of further libraries, too), the commit and the time (UTC), as far as can be told."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "python": platform.python_version(),
        "libraries": {name: found for name in _LIBRARIES + libraries if (found := _version(name))},
        "commit": _commit(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


def _version(name: str) -> str | None:
    try:
        return version(name)
    except ModuleNotFoundError:
        return None


def _commit() -> str | None:
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True, cwd=Path(__file__).parent
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()
