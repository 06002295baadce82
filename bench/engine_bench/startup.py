"""How long a serving process takes to SERVING, and what memory it needs of its own, by catalogue size."""

import json
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from engine.adapters.kafka.embedded import EmbeddedKafka
from engine.adapters.redis.embedded import EmbeddedRedis
from engine.errors import DependencyUnavailable
from engine_bench.load_report import spread
from engine_bench.load_target import SURFACE
from engine_bench.load_world import publish_crowd, write_rules
from engine_bench.machine import Progress, describe_machine
from engine_bench.processes import engine_process, wait_until_serving, write_settings
from engine_bench.targets import Target, target_size
from engine_bench.world import build_world, world_bundle
from engine_client import RecommendationClient

START_AT_MOST_S, OWN_MEMORY_AT_MOST_MIB = 8.0, 500.0
# Two over one bundle: what of it they share shows only where there is somebody to share it with.
REPLICAS = 2
_USERS = 2_000
# Enough that everything that a request touches has been touched, in every thread.
_REQUESTS = 500
_PATIENCE_S, _POLL_S, _TIMEOUT_S = 120.0, 0.02, 15.0
_MIB = 2**20


def measure_startup(
    item_counts: Sequence[int], repeats: int, port: int, cache: Path, progress: Progress
) -> dict[str, Any]:
    """Start real `engine serve` processes, time them, and look at their memory once they have answered requests.

    Args:
        item_counts: of the synthetic catalogues, whose bundles are kept in `cache`.
        repeats: starts that count; one before them warms the kernels' cache and the page cache.
        port: of the first process; the others take the next ones.

    Returns:
        `sizes`, one object a size with `start_s` (from the start of the process until health says SERVING) and
        `memory` of each replica (see `memory_of`), the machine, and `targets`.

    Raises DependencyUnavailable when a server does not come up.
    """
    sizes = [_measure(count, repeats, port, cache.resolve(), progress) for count in sorted(item_counts)]
    return {
        "requests": _REQUESTS,
        "replicas": REPLICAS,
        "sizes": sizes,
        "machine": describe_machine(),
        "targets": [each.as_json() for each in startup_targets(sizes)],
    }


def startup_targets(sizes: Sequence[dict[str, Any]]) -> list[Target]:
    """Against the catalogue of TARGET_ITEMS, or where there is none the largest smaller one; `items` says which."""
    by_items = {size["items"]: size for size in sizes}
    items = target_size(by_items)
    found = by_items[items]
    own = max(memory["own_mib"] for memory in found["memory"])
    name = "memory of a worker beyond the shared maps MiB"
    return [
        Target("start to SERVING s", found["start_s"]["median"], START_AT_MOST_S, unit="s", items=items),
        Target(name, own, OWN_MEMORY_AT_MOST_MIB, unit="MiB", items=items),
    ]


def memory_of(process: psutil.Process) -> dict[str, int]:
    """One process's memory in MiB.

    `rss_mib`: all that is resident. `uss_mib`: what no other process has mapped as well. `own_mib`: of that, what
    belongs to no file: pages of a mapped file are the page cache's, however few processes have them mapped at the
    moment, and come back from disk when they are wanted. `mapped_mib`: resident pages of files.
    """
    full, maps = process.memory_full_info(), process.memory_maps(grouped=False)
    files = [each for each in maps if each.path.startswith("/")]
    # A page of a private mapping that has been written to is the process's own from then on: "anonymous".
    private_of_files = sum(each.private_clean + each.private_dirty - each.anonymous for each in files)
    figures = {
        "rss": full.rss,
        "uss": full.uss,
        "own": full.uss - private_of_files,
        "mapped": sum(each.rss - each.anonymous for each in files),
    }
    return {f"{name}_mib": round(value / _MIB) for name, value in figures.items()}


def _measure(item_count: int, repeats: int, port: int, cache: Path, progress: Progress) -> dict[str, Any]:
    with _world(item_count, port, cache, progress) as (config_files, user_ids):
        starts: list[float] = []
        for number in range(repeats + 1):
            with _serving(config_files[0], port) as seconds:
                starts.append(seconds)
            progress(number + 1, repeats + 1, f"start with {item_count:,} items")
        with ExitStack() as resources:
            processes = []
            for number, config_file in enumerate(config_files):
                server = resources.enter_context(engine_process("serve", config_file))
                processes.append(psutil.Process(server.pid))
                _started(server, port + number)
            for number in range(REPLICAS):
                _ask(port + number, user_ids)
            memory = [memory_of(process) for process in processes]
    return {
        "items": item_count,
        "first_start_s": round(starts[0], 2),
        "start_s": spread([round(seconds, 2) for seconds in starts[1:]]),
        "memory": memory,
    }


@contextmanager
def _world(item_count: int, port: int, cache: Path, progress: Progress) -> Iterator[tuple[list[Path], list[str]]]:
    """Settings of each replica over one Redis, one Kafka and one bundle, and who can ask them."""
    work = cache / f"startup-{port}"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        with ExitStack() as resources:
            redis = resources.enter_context(EmbeddedRedis(work / "redis"))
            kafka = resources.enter_context(EmbeddedKafka(work / "kafka"))
            user_ids = _publish(item_count, cache, work, redis.url, progress)
            rules = f"[rules]\nfile = {json.dumps(str(work / 'rules.yaml'))}\n"
            config_files = []
            for number in range(REPLICAS):
                home = work / str(number)
                home.mkdir()
                (home / "bundles").symlink_to(cache / f"bundles-{item_count}")
                config_file = write_settings(home, port + number, redis.url, kafka.brokers)
                # On a busy machine, too, every stage is to be run and not skipped: this is not about its time.
                settings = config_file.read_text() + rules
                for section, key in (("server", "request_timeout_ms"), ("redis", "timeout_ms")):
                    settings = settings.replace(f"[{section}]\n", f"[{section}]\n{key} = {_TIMEOUT_S * 1000:.0f}\n")
                config_file.write_text(settings)
                config_files.append(config_file)
            yield config_files, user_ids
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _publish(item_count: int, cache: Path, work: Path, redis_url: str, progress: Progress) -> list[str]:
    """Bundle, rules and users; a function of its own, so that the world's memory is free before anything starts."""
    progress(0, _USERS, f"publish for {item_count:,} items")
    dataset, vectors = build_world(item_count)
    bundle = world_bundle(cache / f"bundles-{item_count}", dataset, vectors)
    write_rules(work / "rules.yaml", dataset)
    now_ms = time.time_ns() // 1_000_000
    return publish_crowd(
        bundle,
        dataset,
        vectors,
        redis_url,
        _USERS,
        now_ms,
        lambda done, total: progress(done, total, f"publish for {item_count:,} items"),
    )


@contextmanager
def _serving(config_file: Path, port: int) -> Iterator[float]:
    """A server that is ready; yields the seconds that it took."""
    started = time.perf_counter()
    with engine_process("serve", config_file) as server:
        _started(server, port)
        yield time.perf_counter() - started


def _started(server: subprocess.Popen[bytes], port: int) -> None:
    """Return once it serves.

    It is asked only once it listens: a gRPC channel that failed waits before it tries again, and trying to connect
    over and over can, by chance, take the very port as its own end.
    """
    process, deadline = psutil.Process(server.pid), time.monotonic() + _PATIENCE_S
    while not _listens(process, port):
        if server.poll() is not None:
            raise DependencyUnavailable("the server ended before it was ready; its message is above")
        if time.monotonic() > deadline:
            raise DependencyUnavailable(f"the server did not listen within {_PATIENCE_S:g} s")
        time.sleep(_POLL_S)
    with RecommendationClient(f"127.0.0.1:{port}") as client:
        wait_until_serving(client, server)


def _listens(process: psutil.Process, port: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        sockets = process.net_connections("tcp")
        return any(each.status == psutil.CONN_LISTEN and each.laddr.port == port for each in sockets)
    return False


def _ask(port: int, user_ids: Sequence[str]) -> None:
    as_designed = 0
    with RecommendationClient(f"127.0.0.1:{port}", timeout_s=_TIMEOUT_S) as client:
        for number in range(_REQUESTS):
            response = client.recommend(user_ids[number % len(user_ids)], SURFACE)
            as_designed += bool(response.items) and not response.degraded_reasons
    if 2 * as_designed < _REQUESTS:
        raise DependencyUnavailable(
            f"only {as_designed} of {_REQUESTS} requests were answered as designed: what memory the others needed says "
            "nothing"
        )
