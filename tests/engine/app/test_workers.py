"""`engine serve --workers 2`, the whole of it: real processes, killed and told to stop under load."""

import asyncio
import json
import os
import re
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest

from engine.adapters.kafka.embedded import EmbeddedKafka
from engine.adapters.redis.embedded import EmbeddedRedis
from engine.bundle.store import BundleStore
from engine.errors import EngineError
from engine_client import AsyncRecommendationClient, build_event
from engine_client.channel import channel_options
from engine_client.v1 import recommendation_pb2 as pb
from engine_client.v1 import recommendation_pb2_grpc as pb_grpc
from engine_client.v1.event_pb2 import EVENT_TYPE_CLICK
from tests.conftest import Trained
from tests.engine.fleet import START_TIMEOUT_S, Fleet, running, running_fleet, wait_until_ready
from tests.engine.rpc.conftest import until

# So many that all of them on one of two workers would be a wonder.
CHANNELS = 24
OWN_CONNECTION = ("grpc.use_local_subchannel_pool", 1)


@pytest.fixture(scope="module")
def fleet(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """For all tests, since a start takes seconds; what they do to it is what it is there to bear."""
    home, current = tmp_path_factory.mktemp("fleet"), trained.bundles.current()
    bundles = BundleStore(home / "bundles")
    shutil.copytree(current, bundles.directory / current.name)
    bundles.point_to(current.name)
    with running_fleet(home, bundles.directory) as fleet:
        wait_until_ready(fleet)
        yield fleet


def own_channels(fleet: Fleet, *options: tuple[str, int]) -> list[grpc.aio.Channel]:
    return [grpc.aio.insecure_channel(fleet.target, [OWN_CONNECTION, *options]) for _ in range(CHANNELS)]


def connections_of(process_id: int, port: int) -> int:
    """Established connections to this port that a process has taken, as the kernel lists them."""
    sockets = set()
    for entry in Path(f"/proc/{process_id}/fd").iterdir():
        try:
            sockets.add(os.readlink(entry))
        except FileNotFoundError:
            continue
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    lines += [line.split() for line in Path("/proc/net/tcp6").read_text().splitlines()[1:]]
    established = "01"
    return sum(
        line[1].endswith(f":{port:04X}") and line[3] == established and f"socket:[{line[9]}]" in sockets
        for line in lines
    )


@dataclass(slots=True)
class Calls:
    """How the calls of one connection ended: those answered in full, and the rest with code and moment."""

    answered: int = 0
    failed: list[tuple[str, float]] = field(default_factory=list)


async def call_until(stop: asyncio.Event, channel: grpc.aio.Channel, calls: Calls) -> None:
    """One caller with a connection of its own, one call after the other, without retries."""
    stub = pb_grpc.RecommendationServiceStub(channel)
    request = pb.RecommendRequest(user_id="nobody", surface="home", item_count=10)
    while not stop.is_set():
        try:
            response = await stub.Recommend(request, timeout=20, wait_for_ready=True)
            assert len(response.items) == 10
            calls.answered += 1
        except grpc.aio.AioRpcError as error:
            calls.failed.append((error.code().name, time.monotonic()))


async def call_with_retries(stop: asyncio.Event, client: AsyncRecommendationClient, calls: Calls) -> None:
    while not stop.is_set():
        try:
            await client.recommend("nobody", "home", item_count=10)
            calls.answered += 1
        except EngineError as error:
            calls.failed.append((type(error).__name__, time.monotonic()))


async def test_figures_are_those_of_all_workers_and_of_those_that_are_gone(fleet: Fleet, trained: Trained) -> None:
    channels = own_channels(fleet)
    stubs = [pb_grpc.RecommendationServiceStub(channel) for channel in channels]
    before = fleet.metrics()
    for stub in stubs:
        await stub.Recommend(pb.RecommendRequest(user_id="nobody", surface="home"), timeout=20)
    for stub in stubs[:5]:
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.Recommend(pb.RecommendRequest(user_id="nobody", surface="nowhere"), timeout=20)
    workers = fleet.workers
    assert min(connections_of(process, fleet.port) for process in workers.values()) > 0
    bundle = f'engine_bundle_info{{version="{trained.bundles.current().name}"}}'
    await until(lambda: fleet.metrics()[bundle] == 2, 20)

    def check() -> None:
        figures = {name: value - before.get(name, 0) for name, value in fleet.metrics().items()}
        assert figures['engine_requests_total{code="OK",method="Recommend"}'] == CHANNELS
        assert figures['engine_requests_total{code="INVALID_ARGUMENT",method="Recommend"}'] == 5
        assert figures['engine_request_seconds_count{method="Recommend"}'] == CHANNELS + 5
        assert figures['engine_recommendations_total{strategy="popularity"}'] == CHANNELS
        # Both watch their event loops and their collectors.
        assert figures["engine_event_loop_lag_seconds_count"] > 0
        assert 'engine_collector_pause_seconds_count{generation="2"}' in figures
        assert 'engine_stalls_total{cause="collector"}' in figures
        # Every eighth of each worker, wherever its count stood.
        assert abs(figures['engine_stage_seconds_count{stage="total"}'] - CHANNELS / 8) <= 2

    check()
    os.kill(workers[2], signal.SIGKILL)
    await until(lambda: fleet.metrics()[bundle] == 1, 20)
    check()
    await until(lambda: fleet.metrics()[bundle] == 2, 60)
    check()
    for channel in channels:
        await channel.close()


async def test_a_killed_worker_fails_its_own_calls_alone_and_is_back_in_seconds(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Clients of one process share connections to one address; here each stands for a process.
    monkeypatch.setattr(
        "engine_client.client.channel_options", lambda retries: [*channel_options(retries), OWN_CONNECTION]
    )
    channels = own_channels(fleet, ("grpc.enable_retries", 0))
    clients = [AsyncRecommendationClient(fleet.target, timeout_s=20) for _ in range(8)]
    calls, retried, stop = [Calls() for _ in channels], [Calls() for _ in clients], asyncio.Event()
    callers = [asyncio.create_task(call_until(stop, *pair)) for pair in zip(channels, calls, strict=True)]
    callers += [asyncio.create_task(call_with_retries(stop, *pair)) for pair in zip(clients, retried, strict=True)]
    await until(lambda: all(one.answered >= 3 for one in [*calls, *retried]), 60)
    before, ends_before = fleet.workers, fleet.metrics()["engine_worker_ends_total"]
    taken = {place: connections_of(process, fleet.port) for place, process in before.items()}
    assert min(taken.values()) > 0, "one worker has every connection"
    assert sum(taken.values()) == CHANNELS + len(clients)

    answered = sum(one.answered for one in calls)
    killed = time.monotonic()
    os.kill(before[1], signal.SIGKILL)
    await until(lambda: fleet.workers[1] != before[1], 60)
    assert time.monotonic() - killed < 30
    assert sum(one.answered for one in calls) > answered + CHANNELS, "they were not served meanwhile"
    then = [one.answered for one in calls]
    await until(lambda: all(one.answered > count for one, count in zip(calls, then, strict=True)), 60)
    stop.set()
    await asyncio.gather(*callers)

    failed = [one.failed for one in calls if one.failed]
    assert 0 < len(failed) <= taken[1], f"{len(failed)} connections saw it, {taken} were there"
    assert {code for failures in failed for code, _ in failures} == {"UNAVAILABLE"}
    assert max(moment for failures in failed for _, moment in failures) < killed + 2
    assert not any(one.failed for one in retried), "a client that retries saw it"
    assert fleet.workers[2] == before[2]

    # New connections reach the new worker, and are answered by it.
    fresh = own_channels(fleet)
    for channel in fresh:
        await pb_grpc.RecommendationServiceStub(channel).Recommend(
            pb.RecommendRequest(user_id="nobody", surface="home"), timeout=20, wait_for_ready=True
        )
    assert connections_of(fleet.workers[1], fleet.port) > 0
    figures = fleet.metrics()
    assert figures["engine_worker_ends_total"] == ends_before + 1
    assert figures["engine_workers_serving"] == 2
    for closing in (*channels, *fresh, *clients):
        await closing.close()


async def test_redis_and_kafka_survive_every_worker(fleet: Fleet) -> None:
    with EmbeddedRedis(fleet.home / "redis") as redis, EmbeddedKafka(fleet.home / "kafka") as kafka:
        assert redis.pid is None
        assert not kafka.owned
    before = fleet.workers
    for process in before.values():
        os.kill(process, signal.SIGKILL)
    await until(lambda: not set(fleet.workers.values()) & set(before.values()), 60)
    async with AsyncRecommendationClient(fleet.target, timeout_s=20) as client:
        answer = await client.record_events([build_event("somebody", EVENT_TYPE_CLICK, "item", surface="home")])
        assert answer.accepted_count == 1
        response = await client.recommend("nobody", "home")
        assert not response.degraded_reasons


async def test_both_workers_follow_a_new_bundle(fleet: Fleet) -> None:
    bundles = BundleStore(fleet.home / "bundles")
    path = shutil.copytree(bundles.current(), bundles.directory / "next")
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps({**manifest, "version": "next"}))
    bundles.point_to("next")
    await until(lambda: fleet.metrics().get('engine_bundle_info{version="next"}') == 2, 30)
    assert fleet.metrics()[f'engine_bundle_info{{version="{manifest["version"]}"}}'] == 0


async def test_sigterm_drains_the_workers_once_and_leaves_nothing_behind(fleet: Fleet) -> None:
    channels = own_channels(fleet)
    calls, stop = [Calls() for _ in channels], asyncio.Event()
    callers = [asyncio.create_task(call_until(stop, *pair)) for pair in zip(channels, calls, strict=True)]
    await until(lambda: all(one.answered >= 2 for one in calls), 60)
    workers, answered = fleet.workers, sum(one.answered for one in calls)
    stop.set()
    fleet.process.send_signal(signal.SIGTERM)
    await asyncio.gather(*callers)
    assert await asyncio.to_thread(fleet.process.wait, 30) == 0
    assert not any(running(process) for process in workers.values())
    # Each worker hears of it once: a second signal would cut the drain short.
    in_flight = re.findall(r"SIGTERM: draining (\d+) requests, for at most 20 s", fleet.log)
    assert len(in_flight) == 2
    # What the workers had begun they finished; calls that reached them later are turned away.
    assert sum(one.answered for one in calls) - answered >= sum(map(int, in_flight))
    assert not (fleet.home / "kafka" / "brokers").exists()
    for channel in channels:
        await channel.close()


async def test_workers_do_not_outlive_their_supervisor(trained: Trained, tmp_path: Path) -> None:
    with running_fleet(tmp_path, trained.bundles.directory) as fleet:
        await asyncio.to_thread(wait_until_ready, fleet)
        workers = fleet.workers.values()
        assert all(running(process) for process in workers)
        fleet.process.kill()
        await until(lambda: not any(running(process) for process in workers), 30)


def test_without_a_bundle_it_says_so_and_ends(tmp_path: Path) -> None:
    with running_fleet(tmp_path, tmp_path / "empty") as fleet:
        assert fleet.process.wait(START_TIMEOUT_S) == 2
        last = fleet.log.splitlines()[-1]
    assert last.startswith("engine: a worker ended 3 times in a row before it served, ")
    assert str(tmp_path / "empty") in last
    assert "Traceback" not in fleet.log
