"""The runs of a load test in their order: calibration, unloaded, search, repeats."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import psutil

from engine_bench.load_driver import Arrivals, Ask, Record, Schedule, drive, plan
from engine_bench.load_report import LATENESS_LIMIT_MS, figures, spread
from engine_bench.machine import Progress


@dataclass
class RateSearch:
    """Says which rate to try next; whoever measures tells what came of it, of these rates and of any others.

    Where measurements contradict each other, a failure counts: the answer lies below the lowest rate that failed.

    Args:
        first: requests a second to begin with.
        ceiling: the highest rate to try: beyond it the generator itself would be measured.
        floor: below it there is nothing to find; the answer is then 0.
        precision: the search ends when what failed is at most this much above what held, as a share.
    """

    first: float
    ceiling: float
    floor: float = 1.0
    precision: float = 0.05
    _held: list[float] = field(default_factory=list)
    _failed: list[float] = field(default_factory=list)

    def tell(self, rate: float, held: bool) -> None:
        (self._held if held else self._failed).append(rate)

    @property
    def found(self) -> float:
        """The highest rate that held below all that failed; 0 where none did."""
        lowest_failed = min(self._failed, default=float("inf"))
        return max((rate for rate in self._held if rate < lowest_failed), default=0.0)

    @property
    def lowest_failed(self) -> float | None:
        """What ended the search; None where it was the ceiling, or has not come."""
        return min(self._failed, default=None)

    def next_rate(self) -> float | None:
        """The rate to measure now; None when the search is over. Cost: O(log(ceiling / floor)) rates in all."""
        found = self.found
        if not self._failed:
            if found >= self.ceiling:
                return None
            return min(2 * found if found else self.first, self.ceiling)
        failed = min(self._failed)
        if not found:
            # Nothing has held yet: look far below before the interval is known.
            return failed / 2 if failed / 2 >= self.floor else None
        return (found + failed) / 2 if failed > found * (1 + self.precision) else None


# The highest rates are found with p99 within these.
BOUNDS_MS = (100.0, 25.0)
# p99: of all requests that were due, this share must be answered as designed within the bound.
_SHARE = 0.99
_FIRST_PER_S, _LOWEST_PER_S = 50.0, 2.0
_UNLOADED_PER_S = 25.0
# Every second answer of the unloaded run says its stages: it is where they are compared with their targets.
_UNLOADED_DEBUG_EVERY, _DEBUG_EVERY = 2, 20
_CALIBRATION_PER_S, _CALIBRATION_S = (100.0, 200.0, 400.0, 800.0, 1600.0, 3200.0), 2.0
_CALIBRATION_LATENESS_MS = LATENESS_LIMIT_MS
# After each run: queues are gone, and what the server remembers of an overload has faded, before the next one.
_SETTLING_PER_S, _SETTLING_S = 25.0, 1.0
# A server that goes on with what nobody waits for any more needs that for as long as its queue takes.
_SETTLINGS = 30
# A generator that was disturbed tells nothing of the server: such a run is made again, up to so many times in all.
_ATTEMPTS = 3
# How late a generator may be at a bound (p99, as a share of the bound): it is counted in the latencies anyway.
_LATENESS_SHARE = 0.2
# A percentile needs requests: slow rates run for longer, up to so many times as long.
_FEWEST_REQUESTS, _LONGEST = 200, 4.0
# Where most repeats of a rate do not hold, the search was lucky: so much less is tried, so many times in all.
_STEP, _STEPS = 0.85, 6
_IDLE_S = 3.0


class Askable(Protocol):
    """What can be asked by the requests of a schedule."""

    def asked_by(self, schedule: Schedule, user_ids: Sequence[str]) -> Ask: ...


@dataclass
class Runs:
    """Makes runs against one target, one after the other, and keeps their figures in `done`.

    server: whose processor time and memory are noted with those of all processes that it started, where it is known.
    explained: whether some requests ask for debug, for the stages' times; what is no engine cannot say them.
    """

    target: Askable
    user_ids: Sequence[str]
    seed: int
    progress: Progress
    server: psutil.Process | None = None
    explained: bool = True
    done: list[dict[str, Any]] = field(default_factory=list)

    async def run(
        self,
        name: str,
        arrivals: Arrivals,
        rate: float,
        seconds: float,
        lateness_limit_ms: float = LATENESS_LIMIT_MS,
        debug_every: int = _DEBUG_EVERY,
    ) -> tuple[Record, dict[str, Any]]:
        """One run, made again when the generator was late; each has arrivals and users of its own."""
        explained = debug_every if self.explained else 0
        for _ in range(_ATTEMPTS):
            schedule = plan(arrivals, rate, seconds, len(self.user_ids), self.seed + len(self.done), explained)
            busy_s = self._busy_s()
            record = await drive(
                self.target.asked_by(schedule, self.user_ids),
                schedule,
                lambda passed_s: self.progress(round(passed_s), round(seconds), f"{name}, {rate:.0f}/s"),
            )
            made = {"name": name, **figures(record, lateness_limit_ms), **self._server_figures(busy_s, record)}
            self.done.append(made)
            await self._await_steady()
            if made["valid"]:
                break
        return record, made

    async def idle_cpu_share(self) -> float:
        """Of one core, what the server needs to follow catalogue, rules and trends while nobody asks."""
        busy_s = self._busy_s()
        await asyncio.sleep(_IDLE_S)
        return round((self._busy_s() - busy_s) / _IDLE_S, 3)

    async def at_bound(
        self, name: str, arrivals: Arrivals, rate: float, seconds: float, bound_ms: float
    ) -> tuple[Record, dict[str, Any]]:
        """A run that is to be held against a bound: long enough for a percentile, and by a generator in time for it."""
        longer_s = min(max(seconds, _FEWEST_REQUESTS / rate), _LONGEST * seconds)
        return await self.run(f"{name} p99 <= {bound_ms:g} ms", arrivals, rate, longer_s, _LATENESS_SHARE * bound_ms)

    async def unloaded(self, seconds: float) -> dict[str, Any]:
        """One request at a time: evenly spaced, and so slow that each is answered before the next is due."""
        _, made = await self.unloaded_record(seconds)
        return made

    async def unloaded_record(self, seconds: float) -> tuple[Record, dict[str, Any]]:
        """The same, with what came of each request."""
        await self._await_steady()
        return await self.run("unloaded", "constant", _UNLOADED_PER_S, seconds, debug_every=_UNLOADED_DEBUG_EVERY)

    async def _await_steady(self) -> None:
        """Send a short, slow load until the server answers all of it, a few times at most."""
        if self.server is None:
            return
        schedule = plan("constant", _SETTLING_PER_S, _SETTLING_S, len(self.user_ids), self.seed, debug_every=0)
        for _ in range(_SETTLINGS):
            record = await drive(self.target.asked_by(schedule, self.user_ids), schedule)
            if record.ok.all():
                return

    def _busy_s(self) -> float:
        if self.server is None:
            return 0.0
        times = [process.cpu_times() for process in self._processes()]
        return float(sum(time.user + time.system for time in times))

    def _processes(self) -> list[psutil.Process]:
        return [] if self.server is None else [self.server, *self.server.children(recursive=True)]

    def _server_figures(self, busy_before_s: float, record: Record) -> dict[str, float]:
        if self.server is None:
            return {}
        answered = max(1, int(record.ok.sum()))
        return {
            "server_cpu_ms_per_answer": round((self._busy_s() - busy_before_s) * 1000.0 / answered, 2),
            "server_rss_mib": round(sum(process.memory_info().rss for process in self._processes()) / 2**20),
        }


async def calibrate(runs: Runs, arrivals: Arrivals) -> float:
    """The highest rate at which the generator itself keeps its schedule, against a server that does nothing.

    Returns 0 where it keeps none: the machine is busy with something else, and nothing can be measured.
    """
    ceiling = 0.0
    for rate in _CALIBRATION_PER_S:
        record, made = await runs.run("calibrate", arrivals, rate, _CALIBRATION_S, _CALIBRATION_LATENESS_MS)
        if not made["valid"] or record.share_within(BOUNDS_MS[0]) < _SHARE:
            break
        ceiling = rate
    return ceiling


async def find_rates(
    runs: Runs, arrivals: Arrivals, seconds: float, repeats: int, ceiling_per_s: float
) -> list[dict[str, Any]]:
    """For each of BOUNDS_MS the highest rate that holds, and how it held when repeated."""
    rates: list[dict[str, Any]] = []
    async for _ in find_rates_in_turns(runs, arrivals, seconds, repeats, ceiling_per_s, BOUNDS_MS, rates):
        pass
    return rates


async def find_rates_in_turns(
    runs: Runs,
    arrivals: Arrivals,
    seconds: float,
    repeats: int,
    ceiling_per_s: float,
    bounds_ms: Sequence[float],
    rates: list[dict[str, Any]],
) -> AsyncIterator[None]:
    """Find the rates one run at a time, and add them to `rates`; between two runs others have their turn.

    A rate holds when of all requests that were due 99% were answered as designed within the bound, by a generator that
    was in time. What is learned in one search counts for the stricter ones, unless the generator was too late for their
    bounds.
    `ended_by` says whether it was the server that failed above the rate that was searched for, or the generator, so
    that the server may bear more.
    """
    searches = {bound: RateSearch(_FIRST_PER_S, ceiling_per_s, _LOWEST_PER_S) for bound in bounds_ms}
    disturbed: set[float] = set()
    for bound, search in searches.items():
        while ceiling_per_s and (rate := search.next_rate()) is not None:
            record, made = await runs.at_bound("search", arrivals, rate, seconds, bound)
            for other_bound, other in searches.items():
                # A search that is over is not reopened by what a slow moment does to a lower rate.
                if other is search or (other_bound < bound and _in_time(made, other_bound)):
                    other.tell(rate, _holds(record, made, other_bound))
            if not made["valid"]:
                disturbed.add(rate)
            yield
    for bound, search in searches.items():
        confirmed: dict[str, Any] = {"per_s": 0.0, "held": 0, "repeats": 0}
        async for latest in _confirm(runs, arrivals, seconds, repeats, bound, search.found):
            confirmed = latest or confirmed
            yield
        by_generator = search.lowest_failed is None or search.lowest_failed in disturbed
        ended_by = "generator" if by_generator else "server"
        rates.append({"bound_ms": bound, "searched_per_s": round(search.found, 1), "ended_by": ended_by, **confirmed})


async def _confirm(
    runs: Runs, arrivals: Arrivals, seconds: float, repeats: int, bound: float, rate: float
) -> AsyncIterator[dict[str, Any]]:
    """Repeat a rate, and a little less where most repeats do not hold; once more with the other kind of arrivals.

    Yields after each run; what counts is the last of it. Nothing comes for a rate of 0.
    """
    for step in range(_STEPS if rate else 0):
        rate *= _STEP if step else 1.0
        repeated = []
        for _ in range(repeats):
            repeated.append(await runs.at_bound("repeat", arrivals, rate, seconds, bound))
            yield {}
        held = sum(_holds(record, made, bound) for record, made in repeated)
        if 2 * held > repeats:
            break
    if not rate:
        return
    other: Arrivals = "constant" if arrivals == "poisson" else "poisson"
    _, otherwise = await runs.at_bound(f"{other} arrivals,", other, rate, seconds, bound)
    yield {
        "per_s": round(rate, 1) if 2 * held > repeats else 0.0,
        "held": held,
        "repeats": repeats,
        "reached_per_s": spread([made["rate_reached"] for _, made in repeated]),
        "p50_ms": spread([made["latency_ms"]["p50"] for _, made in repeated if made["latency_ms"]]),
        "p99_ms": spread([made["latency_ms"]["p99"] for _, made in repeated if made["latency_ms"]]),
        f"{other}_p99_ms": otherwise["latency_ms"].get("p99"),
    } | _cpu_spread([made for _, made in repeated])


def _cpu_spread(made: list[dict[str, Any]]) -> dict[str, Any]:
    name = "server_cpu_ms_per_answer"
    return {name: spread([run[name] for run in made])} if all(name in run for run in made) else {}


def _in_time(made: dict[str, Any], bound_ms: float) -> bool:
    return bool(made["lateness_p99_ms"] <= _LATENESS_SHARE * bound_ms)


def _holds(record: Record, made: dict[str, Any], bound_ms: float) -> bool:
    return _in_time(made, bound_ms) and record.share_within(bound_ms) >= _SHARE
