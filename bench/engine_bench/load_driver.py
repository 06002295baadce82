"""Sends a schedule's requests on time, whatever has become of those before, and notes what came of each.

A loop that waits for an answer before it sends the next request asks a slow server less, and never sees the queue that
real callers would stand in ("coordinated omission"). Here a thread that waits for nothing but the clock says when each
request is due, and a latency counts from then, however late the request was sent or answered.
Source: G. Tene, "How NOT to Measure Latency", 2015; B. Schroeder et al., "Open Versus Closed", NSDI 2006.
"""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Literal, NamedTuple

import numpy as np

from engine.types import BoolArray, Float64Array, Int64Array, UInt8Array

# "poisson": users who know nothing of each other. "constant": evenly spaced, the kindest load of the same rate.
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


# Past it requests are not sent any more and count as failed: memory is bounded even where nothing answers.
IN_FLIGHT_LIMIT = 10_000
# Between the decision to start and the first request, so that a thread's start makes nothing late.
_LEAD_S = 0.05
_REPORT_EVERY_S = 0.2


class Status(IntEnum):
    """What came of a request."""

    OK = 0
    DEADLINE = 1
    EXHAUSTED = 2
    UNAVAILABLE = 3
    OTHER = 4
    # Never sent: IN_FLIGHT_LIMIT requests were unanswered.
    OVERFLOW = 5
    # gRPC itself has refused it, since the server's event loop did not take it.
    CANCELLED = 6


class Answer(NamedTuple):
    """What a target says to one request. stages_ms: only of requests that asked for it."""

    status: Status
    degraded: bool = False
    stages_ms: Mapping[str, float] | None = None


# Answers the request at a place of the schedule; raises nothing.
Ask = Callable[[int], Awaitable[Answer]]


@dataclass(slots=True)
class Record:
    """What came of a schedule, request by request.

    latency_ms: float64 (n,), from the moment that the request was due; infinite where there was no good answer.
    lateness_ms: float64 (n,), from the moment that the request was due until it was sent: the generator's own fault.
    ended_ms: float64 (n,), the same until its end, whatever that was; infinite for what was never sent.
    status: uint8 (n,), see Status. degraded: bool (n,).
    stages_ms: by place, of requests that asked for it.
    """

    schedule: Schedule
    latency_ms: Float64Array
    lateness_ms: Float64Array
    ended_ms: Float64Array
    status: UInt8Array
    degraded: BoolArray
    stages_ms: dict[int, Mapping[str, float]] = field(default_factory=dict)

    @staticmethod
    def empty(schedule: Schedule) -> "Record":
        count = len(schedule)
        status = np.full(count, Status.OTHER, np.uint8)
        never, none = np.full(count, np.inf), np.zeros(count, np.bool_)
        return Record(schedule, never, np.zeros(count), never.copy(), status, none)

    @property
    def ok(self) -> BoolArray:
        good: BoolArray = self.status == Status.OK
        return good

    def answered_per_s(self) -> float:
        """Good answers a second, from the start until the schedule's end or the last answer, whichever is later."""
        ok = self.ok
        if not ok.any():
            return 0.0
        last_s = float((self.schedule.offsets_s[ok] + self.latency_ms[ok] / 1000.0).max())
        return int(ok.sum()) / max(self.schedule.seconds, last_s)

    def share_within(self, bound_ms: float) -> float:
        """How many of the requests without debug were answered as designed within the bound, of all that were due.

        Refused, failed and degraded ones are not; so p99 <= bound, in the strictest sense, is a share of 0.99.
        """
        plain = ~self.schedule.debug
        good = self.ok & ~self.degraded & (self.latency_ms <= bound_ms)
        return float(good[plain].mean()) if plain.any() else 0.0


async def drive(
    target: Ask,
    schedule: Schedule,
    progress: Callable[[float], None] | None = None,
    in_flight_limit: int = IN_FLIGHT_LIMIT,
) -> Record:
    """Run a schedule against a target, and return once every request has come to its end.

    Args:
        target: called with each place of the schedule, on this event loop; must bound its own waiting.
        progress: told the seconds of the schedule that have passed, now and then.

    Raises what the target raised first; no further request is sent then.
    """
    record = Record.empty(schedule)
    loop = asyncio.get_running_loop()
    asking: set[asyncio.Task[None]] = set()
    failures: list[BaseException] = []
    stop = threading.Event()
    start = time.perf_counter() + _LEAD_S
    due_s = (start + schedule.offsets_s).tolist()

    async def ask(place: int) -> None:
        answer = await target(place)
        record.status[place] = answer.status
        record.degraded[place] = answer.degraded
        record.ended_ms[place] = (time.perf_counter() - due_s[place]) * 1000.0
        if answer.status is Status.OK:
            record.latency_ms[place] = record.ended_ms[place]
        if answer.stages_ms is not None:
            record.stages_ms[place] = answer.stages_ms

    def send(place: int) -> None:
        record.lateness_ms[place] = max(0.0, time.perf_counter() - due_s[place]) * 1000.0
        if len(asking) >= in_flight_limit:
            record.status[place] = Status.OVERFLOW
            return
        task = loop.create_task(ask(place))
        asking.add(task)
        task.add_done_callback(ended)

    def ended(task: asyncio.Task[None]) -> None:
        asking.discard(task)
        if not task.cancelled() and (failure := task.exception()) is not None:
            failures.append(failure)
            stop.set()

    reporting = loop.create_task(_report(progress, start, schedule.seconds)) if progress is not None else None
    try:
        await asyncio.to_thread(_pace, loop, send, due_s, stop)
        await asyncio.gather(*asking, return_exceptions=True)
        if failures:
            raise failures[0]
    finally:
        stop.set()
        if reporting is not None:
            reporting.cancel()
    return record


def _pace(
    loop: asyncio.AbstractEventLoop, send: Callable[[int], None], due_s: list[float], stop: threading.Event
) -> None:
    """Have each request sent when it is due. An event loop's own timers are a millisecond coarse; this is not."""
    for place, due in enumerate(due_s):
        pause_s = due - time.perf_counter()
        if pause_s > 0 and stop.wait(pause_s):
            return
        loop.call_soon_threadsafe(send, place)


async def _report(progress: Callable[[float], None], start: float, seconds: float) -> None:
    while True:
        progress(min(max(time.perf_counter() - start, 0.0), seconds))
        await asyncio.sleep(_REPORT_EVERY_S)
