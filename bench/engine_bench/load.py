"""How many requests a second one server bears, and how fast it answers: an open-loop load test of the whole system."""

import gc
import json
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
import uvloop

from engine.adapters.redis.embedded import EmbeddedRedis
from engine_bench.load_driver import Arrivals
from engine_bench.load_report import require_histogram, unloaded_targets
from engine_bench.load_runs import Runs, calibrate, find_rates
from engine_bench.load_target import GrpcTarget, null_server
from engine_bench.load_world import publish_crowd, write_rules
from engine_bench.machine import Progress, describe_machine
from engine_bench.processes import engine_process, wait_until_serving, write_settings
from engine_bench.world import build_world, world_bundle
from engine_client import RecommendationClient


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadSettings:
    """What to measure.

    items, users: of the synthetic world.
    seconds: of one run of the search; the unloaded run takes four times as long.
    repeats: of each found rate.
    arrivals: of the search and its repeats.
    """

    items: int = 1_000_000
    users: int = 100_000
    seconds: float = 10.0
    repeats: int = 3
    arrivals: Arrivals = "poisson"
    seed: int = 0


def measure_load(settings: LoadSettings, port: int, cache: Path, progress: Progress) -> dict[str, Any]:
    """Load one `engine serve` over an embedded Redis from this process, on schedules fixed beforehand.

    Args:
        port: to serve on.
        cache: keeps the synthetic bundle for the next time.

    Returns:
        `calibration` (what the generator itself can keep up with), `floor` (a service that does nothing, asked like
        `unloaded`), `idle_cpu_share`, `unloaded`, `rates` (the highest for each bound, and how its repeats came out),
        `runs`, `settings`, the machine, and `targets`.

    Raises ConfigError without the package hdrhistogram, DependencyUnavailable when the server does not come up.
    """
    require_histogram()
    with _served_world(settings, port, cache, progress) as (server, user_ids):
        # Nothing of what is here by now can become garbage; scanning it would make requests late.
        gc.collect()
        gc.freeze()
        try:
            result: dict[str, Any] = uvloop.run(_measure(settings, port, server, user_ids, progress))
        finally:
            gc.unfreeze()
    return {
        "settings": asdict(settings),
        **result,
        "machine": describe_machine(),
        "targets": [each.as_json() for each in unloaded_targets(result["unloaded"], result["floor"])],
    }


@contextmanager
def _served_world(
    settings: LoadSettings, port: int, cache: Path, progress: Progress
) -> Iterator[tuple[subprocess.Popen[bytes], list[str]]]:
    """A server that is ready, and who can ask it."""
    work = cache.resolve() / f"load-{port}"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        with ExitStack() as resources:
            redis = resources.enter_context(EmbeddedRedis(work / "redis"))
            user_ids = _publish(settings, cache.resolve(), work, redis.url, progress)
            config_file = write_settings(work, port, redis.url)
            with config_file.open("a") as file:
                file.write(f"[rules]\nfile = {json.dumps(str(work / 'rules.yaml'))}\n")
            server = resources.enter_context(engine_process("serve", config_file))
            with RecommendationClient(f"127.0.0.1:{port}") as client:
                wait_until_serving(client, server)
            yield server, user_ids
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _publish(settings: LoadSettings, cache: Path, work: Path, redis_url: str, progress: Progress) -> list[str]:
    """Bundle, rules and users; a function of its own, so that the world's memory is free before the clock starts."""
    progress(0, settings.users, "publish")
    dataset, vectors = build_world(settings.items)
    directory = cache / f"bundles-{settings.items}"
    bundle = world_bundle(directory, dataset, vectors)
    (work / "bundles").symlink_to(directory)
    write_rules(work / "rules.yaml", dataset)
    now_ms = time.time_ns() // 1_000_000
    return publish_crowd(
        bundle,
        dataset,
        vectors,
        redis_url,
        settings.users,
        now_ms,
        lambda done, total: progress(done, total, "publish"),
    )


async def _measure(
    settings: LoadSettings, port: int, server: subprocess.Popen[bytes], user_ids: list[str], progress: Progress
) -> dict[str, Any]:
    with null_server() as address:
        async with _connected(address) as target:
            generator = Runs(target, user_ids, settings.seed, progress)
            ceiling = await calibrate(generator, settings.arrivals)
            calibrations = list(generator.done)
            floor = await generator.unloaded(4 * settings.seconds)
    async with _connected(f"127.0.0.1:{port}") as target:
        runs = Runs(target, user_ids, settings.seed, progress, psutil.Process(server.pid))
        idle_cpu_share = await runs.idle_cpu_share()
        unloaded = await runs.unloaded(4 * settings.seconds)
        rates = await find_rates(runs, settings.arrivals, settings.seconds, settings.repeats, ceiling)
    return {
        "calibration": {"ceiling_per_s": ceiling, "runs": calibrations},
        "floor": floor,
        "idle_cpu_share": idle_cpu_share,
        "unloaded": unloaded,
        "rates": rates,
        "runs": runs.done,
    }


@asynccontextmanager
async def _connected(address: str) -> AsyncIterator[GrpcTarget]:
    target = GrpcTarget(address)
    try:
        await target.connect()
        yield target
    finally:
        await target.close()
