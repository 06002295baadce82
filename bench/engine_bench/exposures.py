"""What logging each answer costs, and what it costs while Kafka is away: three servers that differ in nothing else."""

import asyncio
import gc
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
import psutil
import uvloop
from confluent_kafka import Consumer, TopicPartition

from engine.adapters.kafka.embedded import EmbeddedKafka
from engine.adapters.redis.embedded import EmbeddedRedis
from engine.stream.topics import EXPOSURES
from engine_bench.load_driver import Ask, Status, plan
from engine_bench.load_target import TIMEOUT_S, GrpcTarget
from engine_bench.load_world import publish_crowd
from engine_bench.machine import Progress, describe_machine
from engine_bench.processes import engine_process, wait_until_serving, write_settings
from engine_bench.targets import Target
from engine_bench.world import build_world, world_bundle
from engine_client import RecommendationClient

TARGET_COST_SHARE: Final = 0.03
# Where nobody listens: what a server sees of a Kafka that is down.
_NOWHERE: Final = "127.0.0.1:1"
_CALLERS: Final = 8
_USERS: Final = 2_000
_REQUESTS: Final = 10_000
_WARM_UP_S: Final = 2.0
# For what waits in the server's producer to reach Kafka.
_DRAIN_S: Final = 2.0
_KINDS: Final = ("off", "on", "kafka_away")


@dataclass(slots=True)
class Run:
    """What callers who always ask again got from one server in a while."""

    answers: int = 0
    failed: int = 0
    seconds: float = 0.0
    cpu_s: float = 0.0
    latencies_ms: list[float] = field(default_factory=list)

    @property
    def per_s(self) -> float:
        return self.answers / self.seconds

    @property
    def cpu_ms(self) -> float:
        return self.cpu_s * 1000.0 / max(1, self.answers)


def measure_exposures(
    items: int, seconds: float, rounds: int, port: int, brokers: str, cache: Path, progress: Progress
) -> dict[str, Any]:
    """Ask three `engine serve` in turn, in rounds: without the exposure log, with it, and with it while Kafka is away.

    Eight callers ask again as soon as they are answered. Shares compare runs of one round, whose order rotates, so that
    a slow minute of the machine meets all three; the processor time of a server leaves out what callers, Redis and the
    embedded broker, which run on the same machine, take.

    Args:
        items: of the synthetic world. seconds: of one run.
        port: of the first of the three servers. brokers: the operator's own; an embedded one where empty.
        cache: keeps the synthetic bundle for the next time.

    Returns:
        By kind the rates, latencies and processor times; the shares that logging costs; how many answers of the logging
        server are in the topic; the machine, and `targets`.

    Raises DependencyUnavailable when a server does not come up.
    """
    work = cache.resolve() / f"exposures-{port}"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        with ExitStack() as resources:
            redis = resources.enter_context(EmbeddedRedis(work / "redis"))
            brokers = brokers or resources.enter_context(EmbeddedKafka(work / "kafka")).brokers
            user_ids = _publish(items, cache.resolve(), redis.url, progress)
            started = {}
            for place, (kind, address) in enumerate(zip(_KINDS, (brokers, brokers, _NOWHERE), strict=True)):
                (work / kind).mkdir()
                (work / kind / "bundles").symlink_to(cache.resolve() / f"bundles-{items}")
                config_file = write_settings(work / kind, port + place, redis.url, address)
                config_file.write_text(_adapted(config_file.read_text(), logs=kind != "off"))
                started[kind] = resources.enter_context(engine_process("serve", config_file))
            for place, server in enumerate(started.values()):
                with RecommendationClient(f"127.0.0.1:{port + place}") as client:
                    wait_until_serving(client, server)
            servers = {kind: psutil.Process(server.pid) for kind, server in started.items()}
            before = _logged(brokers)
            gc.collect()
            gc.freeze()
            try:
                runs = uvloop.run(_measure(servers, port, user_ids, seconds, rounds, progress))
            finally:
                gc.unfreeze()
            time.sleep(_DRAIN_S)
            logged = _logged(brokers) - before
    finally:
        shutil.rmtree(work, ignore_errors=True)
    # Warm-ups are logged, too.
    return report({kind: made[1:] for kind, made in runs.items()}, logged, sum(run.answers for run in runs["on"]))


def _adapted(settings: str, *, logs: bool) -> str:
    """Who asks again at once must be answered, however slow the machine: no deadline but the callers' own."""
    timeout = f"request_timeout_ms = {TIMEOUT_S * 1000}"
    exposures = f"[exposures]\nenabled = {str(logs).lower()}\n"
    return settings.replace("[server]\n", f"[server]\n{timeout}\n") + exposures


def report(runs: Mapping[str, Sequence[Run]], logged: int, answered: int) -> dict[str, Any]:
    """The figures of runs, in step over the kinds. logged: messages in the topic. answered: by the server that logs."""
    result: dict[str, Any] = {kind: _figures(made) for kind, made in runs.items()}
    targets = []
    for kind, name in (("on", "cost_share"), ("kafka_away", "kafka_away_cost_share")):
        pairs = list(zip(runs["off"], runs[kind], strict=True))
        share = 1.0 - median(run.per_s / off.per_s for off, run in pairs)
        result[name] = round(share, 4)
        result[f"{name}s"] = [round(1.0 - run.per_s / off.per_s, 4) for off, run in pairs]
        result[name.replace("cost", "cpu_cost")] = round(median(run.cpu_ms / off.cpu_ms for off, run in pairs) - 1.0, 4)
        targets.append(Target(name, round(share, 4), TARGET_COST_SHARE))
    failed = sum(run.failed for run in runs["kafka_away"])
    targets.append(Target("kafka_away_failed", failed, 0))
    # Fewer than nought where a caller had stopped waiting: what was served late is logged all the same.
    missing = answered - logged
    targets.append(Target("answers_not_logged", missing, 0))
    made = [target.as_json() for target in targets]
    return {**result, "answered": answered, "logged": logged, "machine": describe_machine(), "targets": made}


def _figures(runs: Sequence[Run]) -> dict[str, Any]:
    p50, p99 = np.percentile([value for run in runs for value in run.latencies_ms] or [np.nan], [50, 99])
    return {
        "answers_per_s": [round(run.per_s, 1) for run in runs],
        "cpu_ms_per_answer": [round(run.cpu_ms, 3) for run in runs],
        "p50_ms": round(float(p50), 2),
        "p99_ms": round(float(p99), 2),
        "failed": sum(run.failed for run in runs),
    }


async def _measure(
    servers: Mapping[str, psutil.Process],
    port: int,
    user_ids: list[str],
    seconds: float,
    rounds: int,
    progress: Progress,
) -> dict[str, list[Run]]:
    """Of each kind a warm-up and a run a round."""
    runs: dict[str, list[Run]] = {kind: [] for kind in servers}
    targets = {kind: GrpcTarget(f"127.0.0.1:{port + place}") for place, kind in enumerate(servers)}
    # No request asks for debug: what is measured is what users get.
    schedule = plan("constant", _REQUESTS, 1.0, len(user_ids), seed=0, debug_every=_REQUESTS + 1)
    try:
        for target in targets.values():
            await target.connect()
        asks = {kind: target.asked_by(schedule, user_ids) for kind, target in targets.items()}
        for done in range(rounds + 1):
            kinds = [*servers][done % len(servers) :] + [*servers][: done % len(servers)]
            for kind in kinds:
                progress(done, rounds + 1, f"round {done}, {kind}" if done else "warm up")
                length = seconds if done else min(seconds, _WARM_UP_S)
                runs[kind].append(await _ask_all(asks[kind], servers[kind], length))
    finally:
        for target in targets.values():
            await target.close()
    return runs


async def _ask_all(ask: Ask, server: psutil.Process, seconds: float) -> Run:
    run, place = Run(), 0
    started, busy_s = time.perf_counter(), _busy_s(server)

    async def caller() -> None:
        nonlocal place
        while time.perf_counter() - started < seconds:
            place += 1
            asked = time.perf_counter()
            answer = await ask(place % _REQUESTS)
            if answer.status is Status.OK:
                run.answers += 1
                run.latencies_ms.append((time.perf_counter() - asked) * 1000.0)
            else:
                run.failed += 1

    await asyncio.gather(*(caller() for _ in range(_CALLERS)))
    run.seconds, run.cpu_s = time.perf_counter() - started, _busy_s(server) - busy_s
    return run


def _busy_s(server: psutil.Process) -> float:
    times = server.cpu_times()
    return float(times.user + times.system)


def _publish(items: int, cache: Path, redis_url: str, progress: Progress) -> list[str]:
    progress(0, _USERS, "publish")
    dataset, vectors = build_world(items)
    bundle = world_bundle(cache / f"bundles-{items}", dataset, vectors)
    now_ms = time.time_ns() // 1_000_000
    return publish_crowd(
        bundle, dataset, vectors, redis_url, _USERS, now_ms, lambda done, total: progress(done, total, "publish")
    )


def _logged(brokers: str) -> int:
    """How many exposures have ever been in the topic."""
    consumer = Consumer({"bootstrap.servers": brokers, "group.id": "bench-exposures"})
    try:
        ends = [
            consumer.get_watermark_offsets(TopicPartition(EXPOSURES.name, partition), timeout=10.0)[1]
            for partition in range(EXPOSURES.partitions)
        ]
        return sum(ends)
    finally:
        consumer.close()
