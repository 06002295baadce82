"""Timing contestants against each other: in turns, so that a slow moment of the machine hits all of them."""

import time
from collections.abc import Callable, Mapping

import numpy as np

from engine.types import Float64Array

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
