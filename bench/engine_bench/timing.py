"""How long a call takes, from many of them."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

_WARM_UP = 5
_FEWEST, _MOST = 20, 2_000


def time_calls(call: Callable[[int], object], seconds: float) -> dict[str, Any]:
    """Wall time of call(0), call(1), …, one after the other, for about so many seconds and 20 calls at least.

    Returns:
        p50_ms, p99_ms, best_ms and count. A call is to return when its work is done; what it returns is not used.
    """
    for position in range(_WARM_UP):
        call(position)
    taken: list[float] = []
    began = time.perf_counter()
    while len(taken) < _FEWEST or (time.perf_counter() - began < seconds and len(taken) < _MOST):
        started = time.perf_counter()
        call(len(taken))
        taken.append(time.perf_counter() - started)
    return summarize(taken)


def summarize(seconds: list[float]) -> dict[str, Any]:
    """The same of durations that were measured elsewhere, one at least."""
    p50, p99 = np.percentile(seconds, [50, 99]) * 1000
    return {
        "p50_ms": round(float(p50), 4),
        "p99_ms": round(float(p99), 4),
        "best_ms": round(min(seconds) * 1000, 4),
        "count": len(seconds),
    }
