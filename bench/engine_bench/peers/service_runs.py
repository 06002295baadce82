"""Loading services in turns: a slow minute of the machine is one of all of them."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import numpy as np

from engine_bench.load_driver import Arrivals, Record, Schedule
from engine_bench.load_report import figures
from engine_bench.load_runs import Runs, calibrate, find_rates_in_turns
from engine_bench.load_target import GrpcTarget, null_server
from engine_bench.machine import Progress
from engine_bench.peers.report import RATE_BOUND_MS
from engine_bench.peers.services import TITLES, Connectable, Service

# The unloaded runs of all services alternate so many times.
_ROUNDS = 4
_OVER = object()


async def measure_services(
    services: Sequence[Service],
    user_ids: Sequence[str],
    arrivals: Arrivals,
    seconds: float,
    repeats: int,
    seed: int,
    progress: Progress,
) -> tuple[list[dict[str, Any]], float]:
    """The rows of the report, in the order of the services, and the generator's own ceiling, requests a second.

    One service is asked at a time. All of them run all the while, so that what an idle one costs is there for all:
    `idle_cpu_share` says how much of one core that is.
    """
    with null_server() as address:
        async with _opened(lambda: GrpcTarget(address)) as target:
            ceiling = await calibrate(Runs(target, user_ids, seed, progress), arrivals)
    async with AsyncExitStack() as stack:
        runs: dict[str, Runs] = {}
        for service in services:
            target = await stack.enter_async_context(_opened(service.target))
            named = _named(progress, service.name)
            runs[service.name] = Runs(target, user_ids, seed, named, service.process, explained=False)
        idle = {name: await of_service.idle_cpu_share() for name, of_service in runs.items()}
        unloaded = await _unloaded(runs, seconds)
        rates = await _rates(runs, arrivals, seconds, repeats, ceiling)
    rows = [
        {
            "name": name,
            "title": TITLES[name],
            "unloaded": unloaded[name],
            "rates": rates[name],
            "server_cpu_ms_per_answer": unloaded[name]["server_cpu_ms_per_answer"],
            "idle_cpu_share": idle[name],
            "runs": runs[name].done,
        }
        for name in runs
    ]
    return rows, ceiling


async def _unloaded(runs: dict[str, Runs], seconds: float) -> dict[str, dict[str, Any]]:
    """Figures of all rounds of each service together."""
    records: dict[str, list[Record]] = {name: [] for name in runs}
    for _ in range(_ROUNDS):
        for name, of_service in runs.items():
            record, _ = await of_service.unloaded_record(seconds)
            records[name].append(record)
    merged: dict[str, dict[str, Any]] = {}
    for name, of_service in runs.items():
        # So far no other runs have been made.
        busy = [run["server_cpu_ms_per_answer"] for run in of_service.done]
        rounds = joined(records[name])
        merged[name] = figures(rounds) | {"server_cpu_ms_per_answer": round(float(np.median(busy)), 2)}
    return merged


async def _rates(
    runs: dict[str, Runs], arrivals: Arrivals, seconds: float, repeats: int, ceiling: float
) -> dict[str, list[dict[str, Any]]]:
    """For each service its highest rates, found by one run of each after the other."""
    rates: dict[str, list[dict[str, Any]]] = {name: [] for name in runs}
    searches = {
        name: find_rates_in_turns(of_service, arrivals, seconds, repeats, ceiling, (RATE_BOUND_MS,), rates[name])
        for name, of_service in runs.items()
    }
    while searches:
        for name in list(searches):
            if await anext(searches[name], _OVER) is _OVER:
                del searches[name]
    return {
        name: [{"bound_p99_ms": rate["bound_ms"], **rate} for rate in of_service] for name, of_service in rates.items()
    }


def joined(records: Sequence[Record]) -> Record:
    """Several runs as one: the same requests one schedule after the other."""
    starts_s = np.cumsum([0.0, *(record.schedule.seconds for record in records)])
    first = records[0].schedule
    schedule = Schedule(
        arrivals=first.arrivals,
        rate=first.rate,
        seconds=float(starts_s[-1]),
        offsets_s=np.concatenate(
            [record.schedule.offsets_s + start for record, start in zip(records, starts_s, strict=False)]
        ),
        users=np.concatenate([record.schedule.users for record in records]),
        debug=np.concatenate([record.schedule.debug for record in records]),
    )
    return Record(
        schedule,
        latency_ms=np.concatenate([record.latency_ms for record in records]),
        lateness_ms=np.concatenate([record.lateness_ms for record in records]),
        ended_ms=np.concatenate([record.ended_ms for record in records]),
        status=np.concatenate([record.status for record in records]),
        degraded=np.concatenate([record.degraded for record in records]),
    )


def _named(progress: Progress, name: str) -> Progress:
    return lambda done, total, message: progress(done, total, f"{name}: {message}")


@asynccontextmanager
async def _opened(make: Callable[[], Connectable]) -> AsyncIterator[Connectable]:
    target = make()
    try:
        await target.connect()
        yield target
    finally:
        await target.close()
