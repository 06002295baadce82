"""Front ends before one device process, as a whole: real processes, and callers in others, over loopback."""

import asyncio
import datetime
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import grpc
import numpy as np
import psutil

from engine.adapters.kafka.embedded import EmbeddedKafka
from engine.adapters.redis.embedded import EmbeddedRedis
from engine.app.heartbeat import BEAT, BUSY, FREE, SERVING
from engine.app.supervisor import WORKER_COMMAND, Program
from engine.app.workers import with_device_process, worker_settings
from engine.bundle.bundle import Bundle
from engine.config.serving import EngineConfig
from engine.data.dataset import Dataset
from engine.errors import DependencyUnavailable, EngineError
from engine.rpc.port import ReservedPort
from engine_bench.load_target import ITEM_COUNT, METHOD, SURFACE
from engine_bench.timing import summarize
from engine_bench.world import WorldVectors, publish_world
from engine_client import build_request
from engine_client.v1 import recommendation_pb2 as pb

_HOST: Final = "127.0.0.1"
_USERS: Final = 500
_TIMEOUT_S, _END_S = 10.0, 20.0
# The kernel deals connections out by chance: with several for each caller, no front end has many more than another.
_CHANNELS: Final = 4
_WARM_UP_S: Final = 1.0
# Of answers that failed or were degraded, beyond which the others' times say nothing.
_MAX_BAD: Final = 0.01


def measure_frontends(
    bundle: Bundle,
    dataset: Dataset,
    vectors: WorldVectors,
    directory: Path,
    work: Path,
    device_section: dict[str, Any],
    front_ends: Sequence[int],
    callers: Sequence[int],
    seconds: float,
    *,
    limit_s: float = 300.0,
    device_process: bool = True,
) -> dict[str, Any]:
    """Requests a second and latencies, by front ends and callers, who ask one request after the other.

    The device process is started once, and the front ends again for each number of them.

    Args:
        directory: of bundles. work: for Redis and Kafka; made where it is not there. device_section: of the settings.
        seconds: of one figure, after a second of warming up.
        limit_s: after so long no further figure is begun; which ones are missing is in the result.
        device_process: without it, each worker searches and ranks for itself, for comparison.

    Returns:
        `device_start_s`, `client_processes`, `left_out` and `runs`: each with requests_per_s, p50_ms, p99_ms, and the
        cores that the device process, all front ends together, and all callers together kept busy.

    Raises:
        DependencyUnavailable: a process does not start. EngineError: more than 1% of the answers are bad.
    """
    until = time.monotonic() + limit_s
    work.mkdir(parents=True, exist_ok=True)
    plan = [(count, asking) for count in front_ends for asking in callers]
    runs: list[dict[str, Any]] = []
    with ExitStack() as resources:
        redis = resources.enter_context(EmbeddedRedis(work / "redis"))
        kafka = resources.enter_context(EmbeddedKafka(work / "kafka"))
        publish_world(bundle, dataset, vectors, redis.url)
        requests = _write_requests(work / "requests", bundle, dataset)
        config = EngineConfig.load(
            server={
                "host": _HOST,
                "request_timeout_ms": _TIMEOUT_S * 1000,
                "max_concurrent_requests": 2 * max(callers),
            },
            bundle={"directory": directory},
            redis={"url": redis.url, "timeout_ms": 1000},
            kafka={"brokers": kafka.brokers},
            exposures={"enabled": False},
            device=device_section,
        )
        started, device = time.monotonic(), None
        if device_process:
            # Its own directory: a socket's path has 107 characters at most.
            sockets = resources.enter_context(TemporaryDirectory(prefix="engine-device-"))
            config = config.model_copy(update={"device": config.device.model_copy(update={"process": True})})
            config, program = with_device_process(config, Path(sockets) / "socket")
            (device,) = resources.enter_context(_running([program]))
        start_s = time.monotonic() - started
        for count in front_ends:
            if time.monotonic() > until:
                break
            with _serving(config, count) as (address, processes):
                for asking in callers:
                    if time.monotonic() > until and runs:
                        break
                    measured = _measure(address, requests, work, asking, seconds, device, processes)
                    runs.append({"front_ends": count, "callers": asking, **measured})
    done = {(run["front_ends"], run["callers"]) for run in runs}
    return {
        "device_start_s": round(start_s, 1) if device_process else None,
        "client_processes": _client_processes(),
        "runs": runs,
        "left_out": [{"front_ends": count, "callers": asking} for count, asking in plan if (count, asking) not in done],
    }


def _write_requests(path: Path, bundle: Bundle, dataset: Dataset) -> Path:
    """Requests of users with a history, encoded, each as one line of hexadecimal digits."""
    active = dataset.histories().lengths() >= EngineConfig().cold_start.min_interactions
    users = [str(name) for name in dataset.users["user_id"].to_numpy()[active][:_USERS]]
    asked = datetime.datetime.fromtimestamp(bundle.manifest.data_end_ms / 1000, datetime.UTC)
    encoded = [build_request(user, SURFACE, item_count=ITEM_COUNT, time=asked).SerializeToString() for user in users]
    path.write_text("\n".join(each.hex() for each in encoded))
    return path


@contextmanager
def _serving(config: EngineConfig, count: int) -> Iterator[tuple[str, list[psutil.Process]]]:
    """So many workers on one port: the processes of `engine serve --workers`, without their supervisor."""
    server = config.server.model_copy(update={"workers": count, "port": 0})
    config = config.model_copy(update={"server": server})
    with ReservedPort(_HOST, 0) as reserved:
        settings = worker_settings(config, reserved.port)
        with _running([Program(settings, WORKER_COMMAND)] * count) as processes:
            yield f"{_HOST}:{reserved.port}", processes


@contextmanager
def _running(programs: Sequence[Program]) -> Iterator[list[psutil.Process]]:
    """Processes that a supervisor would start, once all of them serve; ended with the context."""
    with ExitStack() as resources:
        started: list[subprocess.Popen[str]] = []
        resources.callback(_end, started)
        for place, program in enumerate(programs, 1):
            command = [*program.command, str(place)]
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            assert process.stdin is not None
            process.stdin.write(program.settings + "\n")
            process.stdin.flush()
            started.append(process)
        for process, program in zip(started, programs, strict=True):
            assert process.stdout is not None
            words = process.stdout.readline().strip()
            while words in (BEAT, BUSY, FREE):
                words = process.stdout.readline().strip()
            if words != SERVING:
                raise DependencyUnavailable(f"{program.command[2]} did not start: {words or 'its message is above'}")
        yield [psutil.Process(process.pid) for process in started]


def _end(processes: Sequence[subprocess.Popen[str]]) -> None:
    """All at once: each of them takes its time."""
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            process.kill()
        process.communicate()


def _measure(
    address: str,
    requests: Path,
    work: Path,
    callers: int,
    seconds: float,
    device: psutil.Process | None,
    front_ends: Sequence[psutil.Process],
) -> dict[str, Any]:
    shares = [len(part) for part in np.array_split(np.arange(callers), min(_client_processes(), callers))]
    files = [work / f"latencies-{number}.npy" for number in range(len(shares))]
    clients = []
    for share, file in zip(shares, files, strict=True):
        command = [sys.executable, "-m", __name__, address, str(requests), str(file), str(share), str(seconds)]
        clients.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
    try:
        for client in clients:
            assert client.stdout is not None
            if client.stdout.readline().strip() != "ready":
                raise DependencyUnavailable("a calling process ended before it was ready; its message is above")
        before = _busy_s([device] if device else []), _busy_s(front_ends)
        began = time.perf_counter()
        for client in clients:
            assert client.stdin is not None
            client.stdin.write("go\n")
            client.stdin.flush()
        time.sleep(seconds)  # and no longer: what comes after is the callers' end
        took_s = time.perf_counter() - began
        after = _busy_s([device] if device else []), _busy_s(front_ends)
        said = [client.communicate(timeout=seconds + _TIMEOUT_S + _END_S)[0] for client in clients]
    finally:
        for client in clients:
            if client.poll() is None:
                client.kill()
                client.communicate()
    reports = [json.loads(line) for line in said]
    bad = sum(report["bad"] for report in reports)
    taken = np.concatenate([np.load(file) for file in files])
    if not len(taken) or bad > _MAX_BAD * len(taken):
        raise EngineError(f"{bad} answers failed or were degraded, beside {len(taken)}: their times are worth nothing")
    return {
        "requests_per_s": round(len(taken) / seconds, 1),
        **summarize(taken.tolist()),
        "bad": bad,
        "device_cores": round((after[0] - before[0]) / took_s, 2),
        "front_end_cores": round((after[1] - before[1]) / took_s, 2),
        "client_cores": round(sum(report["busy_s"] for report in reports) / seconds, 2),
    }


def _busy_s(processes: Sequence[psutil.Process]) -> float:
    """Seconds of processor time that they have taken until now."""
    return float(sum(sum(process.cpu_times()[:2]) for process in processes))


def _client_processes() -> int:
    """Three of eight cores for those who ask: a call costs them about half of what it costs a front end."""
    return max(1, (os.cpu_count() or 1) * 3 // 8)


async def _ask_all(
    address: str, requests: Sequence[bytes], callers: int, seconds: float
) -> tuple[list[float], int, float]:
    """Ask with so many callers.

    Returns: the seconds of good answers that came within `seconds`, how many were bad, and the processor time spent.
    """
    # Connections of its own for each channel, or all of them would share one.
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
    channels = [grpc.aio.insecure_channel(address, options) for _ in range(_CHANNELS * callers)]
    calls: list[Any] = [channel.unary_unary(METHOD, None, pb.RecommendResponse.FromString) for channel in channels]
    await asyncio.gather(*(channel.channel_ready() for channel in channels))
    taken: list[float] = []
    bad = 0

    async def ask(number: int, until: float) -> None:
        nonlocal bad
        own = calls[number * _CHANNELS : (number + 1) * _CHANNELS]
        place = number * 7919
        while (started := time.perf_counter()) < until:
            place += 1
            try:
                answer = await own[place % _CHANNELS](requests[place % len(requests)], timeout=_TIMEOUT_S)
                good = len(answer.items) == ITEM_COUNT and not answer.degraded_reasons
            except grpc.aio.AioRpcError:
                good = False
            now = time.perf_counter()
            if not good:
                bad += 1
            elif now < until:
                taken.append(now - started)

    async def ask_for(duration_s: float) -> None:
        until = time.perf_counter() + duration_s
        await asyncio.gather(*(ask(number, until) for number in range(callers)))

    await ask_for(_WARM_UP_S)
    taken.clear()
    bad = 0
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    busy = time.process_time()
    await ask_for(seconds)
    busy = time.process_time() - busy
    for channel in channels:
        await channel.close(None)
    return taken, bad, busy


def _main() -> None:
    import uvloop

    address, requests, out, callers, seconds = sys.argv[1:]
    encoded = [bytes.fromhex(line) for line in Path(requests).read_text().split()]
    taken, bad, busy_s = uvloop.run(_ask_all(address, encoded, int(callers), float(seconds)))
    np.save(out, np.array(taken))
    print(json.dumps({"bad": bad, "busy_s": busy_s}))


if __name__ == "__main__":
    _main()
