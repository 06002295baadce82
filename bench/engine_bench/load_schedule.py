"""When each request of a run is due, fixed before the run: an open loop, as independent people are."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from engine.types import BoolArray, Float64Array, Int64Array

# "poisson": people who know nothing of each other. "constant": evenly spaced, the kindest load of the same rate.
Arrivals = Literal["poisson", "constant"]


@dataclass(frozen=True, slots=True)
class Schedule:
    """One run, decided beforehand.

    offsets_s: float64 (n,), ascending, from the start of the run.
    users: int64 (n,): who asks, as a place in the list of users.
    debug: bool (n,): whose answers say how long the stages took. They cost the server an explanation, and so they
        stand outside the latencies.
    """

    arrivals: Arrivals
    rate: float
    seconds: float
    offsets_s: Float64Array
    users: Int64Array
    debug: BoolArray

    def __len__(self) -> int:
        return len(self.offsets_s)


def plan(
    arrivals: Arrivals, rate: float, seconds: float, user_count: int, seed: int, debug_every: int = 20
) -> Schedule:
    """The schedule of `seconds` at `rate` requests a second; the same for the same seed.

    At least one request is planned, so that no run is empty. Every `debug_every`-th asks for stage times; 0: none does.
    """
    draw = np.random.default_rng(seed)
    offsets = poisson_offsets(rate, seconds, draw) if arrivals == "poisson" else constant_offsets(rate, seconds)
    count = len(offsets)
    debug = np.arange(count) % debug_every == debug_every - 1 if debug_every else np.zeros(count, np.bool_)
    return Schedule(arrivals, rate, seconds, offsets, draw.integers(0, user_count, count), debug)


def constant_offsets(rate: float, seconds: float) -> Float64Array:
    """float64 (max(1, rate * seconds),): one request every 1 / rate seconds, the first at once."""
    return np.arange(max(1, round(rate * seconds)), dtype=np.float64) / rate


def poisson_offsets(rate: float, seconds: float, draw: np.random.Generator) -> Float64Array:
    """float64, ascending in [0, seconds): arrivals of a Poisson process, whose gaps are exponential.

    Given their number, the arrivals of such a process are uniform and independent, and so they are drawn.
    """
    count = max(1, int(draw.poisson(rate * seconds)))
    offsets: Float64Array = np.sort(draw.uniform(0.0, seconds, count))
    return offsets
