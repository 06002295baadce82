"""The tail of the latencies of one server, with everything going on that a server does beside requests."""

import gc
import json
import multiprocessing
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import uvloop

from engine.adapters.kafka.embedded import EmbeddedKafka
from engine.adapters.redis.embedded import EmbeddedRedis
from engine.errors import ConfigError, DependencyUnavailable
from engine_bench.load_driver import Record, drive, plan
from engine_bench.load_target import GrpcTarget
from engine_bench.load_world import publish_crowd
from engine_bench.machine import Progress, describe_machine
from engine_bench.processes import engine_process, wait_until_serving, write_settings
from engine_bench.tail_activity import EXPERIMENT, Stage, go_on, write_many_rules
from engine_bench.tail_report import Steal, read_pauses, report_tail
from engine_bench.world import build_world, world_bundle
from engine_client import RecommendationClient

BUNDLES: Final = ("one", "two")
_USERS: Final = 2_000
_SAMPLE: Final = 500
# Not counted: the caches of processor and memory fill, and the first live counts and exposures come about.
_WARM_UP_S: Final = 10.0
# The server looks at its event loop this often: shorter pauses than that do not show.
_PERIOD_MS: Final = 2
_SETTINGS: Final = """\
[rules]
file = {rules}
[reports]
archive = {archive}
cache_s = 1
[processor]
archive_directory = {events}
exposures_directory = {exposures}
archive_flush_s = 5
[stalls]
period_ms = {period_ms}
record = {record}
[[experiments]]
name = "{experiment}"
variants = [{{name = "control", share = 0.5}}, {{name = "varied", share = 0.5, diversity_weight = 0.3}}]
"""
_NEEDED: Final = {"duckdb": "analysis", "scipy": "analysis"}
_NEEDED_TO_TRAIN: Final = {"torch": "train", "implicit": "train", "onnx": "train", "scipy": "train"}


@dataclass(frozen=True, slots=True, kw_only=True)
class TailSettings:
    """What to measure. items: of the synthetic world. rate: requests a second, evenly spaced, for `seconds`."""

    items: int = 100_000
    rate: float = 50.0
    seconds: float = 300.0
    seed: int = 0


def check_needs(items: int, cache: Path) -> None:
    """Raises ConfigError naming what is not installed, before anything has begun."""
    needed = dict(_NEEDED)
    if not (cache / f"bundles-{items}" / "current").exists():
        needed |= _NEEDED_TO_TRAIN
    missing = {name: extra for name, extra in needed.items() if find_spec(name) is None}
    if missing:
        extras = ",".join(sorted(set(missing.values())))
        raise ConfigError(
            f"the tail bench needs {', '.join(missing)}: pip install 'personalization-engine[cpu,{extras}]'"
        )


def measure_tail(settings: TailSettings, port: int, cache: Path, progress: Progress) -> dict[str, Any]:
    """Ask one `engine serve` at a fixed rate, open loop, while bundles are swapped, rules, stock, items and trends
    change, and reports are made.

    Args:
        port: to serve on.
        cache: keeps the synthetic bundle for the next time.

    Returns:
        See engine_bench.tail_report.report_tail; and the settings and the machine.

    Raises ConfigError where a package is missing, DependencyUnavailable when the server does not come up.
    """
    check_needs(settings.items, cache)
    work = cache.resolve() / f"tail-{port}"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        with _served(settings, port, cache.resolve(), work, progress) as (server, stage):
            # Nothing of what is here by now can become garbage; scanning it would make requests late.
            gc.collect()
            gc.freeze()
            try:
                result = uvloop.run(_measure(settings, stage, server, work / "pauses", progress))
            finally:
                gc.unfreeze()
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return {"settings": asdict(settings), **result, "machine": describe_machine()}


@contextmanager
def _served(
    settings: TailSettings, port: int, cache: Path, work: Path, progress: Progress
) -> Iterator[tuple[subprocess.Popen[bytes], Stage]]:
    with ExitStack() as resources:
        redis = resources.enter_context(EmbeddedRedis(work / "redis"))
        kafka = resources.enter_context(EmbeddedKafka(work / "kafka"))
        stage = _prepare(settings, port, cache, work, redis.url, progress)
        config_file = write_settings(work, port, redis.url, kafka.brokers)
        paths = {
            "rules": stage.rules_file,
            "archive": work / "archive",
            "events": work / "archive" / "events",
            "exposures": work / "archive" / "exposures",
            "record": work / "pauses",
        }
        more = _SETTINGS.format(
            period_ms=_PERIOD_MS, experiment=EXPERIMENT, **{name: json.dumps(str(path)) for name, path in paths.items()}
        )
        with config_file.open("a") as file:
            file.write(more)
        server = resources.enter_context(engine_process("serve", config_file))
        resources.enter_context(engine_process("process", config_file))
        with RecommendationClient(stage.address) as client:
            wait_until_serving(client, server)
        yield server, stage


def _prepare(settings: TailSettings, port: int, cache: Path, work: Path, redis_url: str, progress: Progress) -> Stage:
    """Two bundles, rules and users; on its own, so that the world's memory is free before the clock starts."""
    progress(0, 1, "world")
    dataset, vectors = build_world(settings.items)
    bundle = world_bundle(cache / f"bundles-{settings.items}", dataset, vectors)
    for name in BUNDLES:
        shutil.copytree(bundle.path, work / "bundles" / name)
    (work / "bundles" / "current").symlink_to(BUNDLES[0])
    categories = dataset.items["category"].drop_nulls().unique(maintain_order=True).to_list()
    write_many_rules(work / "rules.yaml", categories, 1.1)
    now_ms = time.time_ns() // 1_000_000
    user_ids = publish_crowd(
        bundle, dataset, vectors, redis_url, _USERS, now_ms, lambda done, total: progress(done, total, "publish")
    )
    return Stage(
        address=f"127.0.0.1:{port}",
        bundles=work / "bundles",
        names=BUNDLES,
        rules_file=work / "rules.yaml",
        item_ids=dataset.items["item_id"].head(_SAMPLE).to_list(),
        user_ids=user_ids,
        categories=categories,
    )


async def _measure(
    settings: TailSettings, stage: Stage, server: subprocess.Popen[bytes], record_file: Path, progress: Progress
) -> dict[str, Any]:
    target = GrpcTarget(stage.address)
    await target.connect()
    try:
        with _going_on(stage) as activity:
            await _run(target, settings, stage, _WARM_UP_S, "warm-up", progress)
            steal, began = Steal.read(server.pid), time.monotonic()
            record = await _run(target, settings, stage, settings.seconds, "tail", progress)
            ended, stolen = time.monotonic(), Steal.read(server.pid) - steal
            try:
                activity.send("enough")
                done: dict[str, int] = activity.recv()
            except (EOFError, OSError):
                raise DependencyUnavailable("what goes on beside requests ended early; its message is above") from None
    finally:
        await target.close()
    return report_tail(record, read_pauses(record_file, began, ended), done, stolen, ended - began)


async def _run(
    target: GrpcTarget, settings: TailSettings, stage: Stage, seconds: float, what: str, progress: Progress
) -> Record:
    schedule = plan("constant", settings.rate, seconds, len(stage.user_ids), settings.seed, debug_every=0)
    asked = target.asked_by(schedule, stage.user_ids)
    return await drive(asked, schedule, lambda passed: progress(int(passed), int(seconds), what))


@contextmanager
def _going_on(stage: Stage) -> Iterator[Connection]:
    """A process that keeps the server busy beside requests, for as long as the context lasts."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=go_on, args=(stage, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        yield ours
    finally:
        ours.close()
        process.terminate()
        process.join()
