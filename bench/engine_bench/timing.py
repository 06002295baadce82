"""How long a call takes, from many of them."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from engine.types import Float64Array

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
    """The same of durations that the caller has measured, one at least."""
    p50, p99 = np.percentile(seconds, [50, 99]) * 1000
    return {
        "p50_ms": round(float(p50), 4),
        "p99_ms": round(float(p99), 4),
        "best_ms": round(min(seconds) * 1000, 4),
        "count": len(seconds),
    }


# A few calls in a row, so that what one contestant leaves in the caches is not what the next one is measured by.
_CALLS_IN_A_ROW, _WARM_CALLS = 20, 5


def in_turns(
    contestants: Mapping[str, Callable[[int], object]],
    calls: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Float64Array]:
    """Milliseconds of each call, float64 (calls,), of each contestant.

    Args:
        contestants: called with the number of the call, 0 to calls - 1; the same number means the same work for all.
        calls: of each contestant. Before each turn a few calls are made that do not count.
    """
    took = {name: np.empty(calls) for name in contestants}
    for start in range(0, calls, _CALLS_IN_A_ROW):
        stop = min(start + _CALLS_IN_A_ROW, calls)
        for name, call in contestants.items():
            for warm in range(_WARM_CALLS):
                call((start + warm) % calls)
            for number in range(start, stop):
                began = time.perf_counter()
                call(number)
                took[name][number] = (time.perf_counter() - began) * 1000.0
        progress(stop, calls)
    return took


def percentiles(took_ms: Float64Array) -> dict[str, float]:
    """p50_ms and p99_ms, as reports hold them."""
    return {
        "p50_ms": round(float(np.percentile(took_ms, 50)), 4),
        "p99_ms": round(float(np.percentile(took_ms, 99)), 4),
    }
