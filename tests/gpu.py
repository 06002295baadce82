"""Parameters of tests that need a CUDA device: marked, and skipped visibly without one."""

from typing import Any

import faiss
import pytest

HAS_CUDA = "GPU" in faiss.get_compile_options().split() and faiss.get_num_gpus() > 0
_MARKS = (pytest.mark.gpu, pytest.mark.skipif(not HAS_CUDA, reason="needs a CUDA device and the gpu extra"))


def on_gpu(value: Any) -> Any:
    """The parameter, for where there is a device."""
    return pytest.param(value, marks=_MARKS)


def needs_cuda(test: Any) -> Any:
    """A test as a whole."""
    for mark in _MARKS:
        test = mark(test)
    return test
