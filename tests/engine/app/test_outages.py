"""`engine serve --workers 2` while a worker does not answer, and while all that a start needs is broken."""

import asyncio
import os
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import grpc
import pytest

from engine.adapters.redis.embedded import EmbeddedRedis
from engine.bundle.store import BundleStore
from engine.errors import EngineError
from engine_client import AsyncRecommendationClient
from engine_client.v1 import recommendation_pb2 as pb
from engine_client.v1 import recommendation_pb2_grpc as pb_grpc
from tests.conftest import Trained
from tests.engine.app.test_last_good import BAD, GOOD, OTHER, break_bundle
from tests.engine.app.test_workers import connections_of, own_channels
from tests.engine.fleet import Fleet, running, running_fleet, wait_until_ready
from tests.engine.rpc.conftest import until

HEARTBEAT_S = 3.0
CALLS_PER_S = 50
PATIENCE_S = 120


@dataclass(slots=True)
class Outage:
    """A fleet, and what it depends on."""

    fleet: Fleet
    bundles: BundleStore
    rules: Path
    redis: Path

    def behind(self, what: str) -> float:
        return self.fleet.metrics()[f'engine_last_known_good{{what="{what}"}}']


@pytest.fixture
def connection_age_s() -> float:
    """Never: only a worker's end moves connections."""
    return 0


@pytest.fixture
def outage(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, connection_age_s: float
) -> Iterator[Outage]:
    bundles = BundleStore(tmp_path / "bundles")
    for name in ("first", "second"):
        shutil.copytree(trained.bundles.current(), bundles.directory / name)
    bundles.point_to("first")
    rules = tmp_path / "rules.yaml"
    rules.write_text(GOOD)
    redis = tmp_path / "r"
    monkeypatch.setenv("ENGINE_REDIS__URL", f"unix://{redis}/redis.sock")
    monkeypatch.setenv("ENGINE_SERVER__MAX_CONNECTION_AGE_S", str(connection_age_s))
    more = f'[rules]\nfile = "{rules}"\npoll_s = 0.2\n'
    with EmbeddedRedis(redis), running_fleet(tmp_path, bundles.directory, more) as fleet:
        wait_until_ready(fleet)
        yield Outage(fleet, bundles, rules, redis)


@dataclass(slots=True)
class Call:
    channel: int
    started: float
    code: str


async def call_at_a_rate(stop: asyncio.Event, channels: list[grpc.aio.Channel], ended: list[Call]) -> None:
    """Calls at a fixed rate over these connections in turn, however long each takes."""
    stubs = [pb_grpc.RecommendationServiceStub(channel) for channel in channels]
    request = pb.RecommendRequest(user_id="nobody", surface="home", item_count=10)
    running_calls: set[asyncio.Task[None]] = set()

    async def call(channel: int) -> None:
        started, code = time.monotonic(), "OK"
        try:
            await stubs[channel].Recommend(request, timeout=PATIENCE_S, wait_for_ready=True)
        except grpc.aio.AioRpcError as error:
            code = error.code().name
        ended.append(Call(channel, started, code))

    for number in count():
        if stop.is_set():
            break
        running_calls.add(task := asyncio.create_task(call(number % len(channels))))
        task.add_done_callback(running_calls.discard)
        await asyncio.sleep(1 / CALLS_PER_S)
    await asyncio.gather(*running_calls)


async def test_a_stopped_worker_under_load_is_replaced_and_fails_its_own_calls_alone(outage: Outage) -> None:
    fleet = outage.fleet
    channels = own_channels(fleet, ("grpc.enable_retries", 0))
    ended: list[Call] = []
    stop = asyncio.Event()
    calling = asyncio.create_task(call_at_a_rate(stop, channels, ended))
    await until(lambda: len({call.channel for call in ended}) == len(channels), PATIENCE_S)
    before = fleet.workers
    taken = {place: connections_of(process, fleet.port) for place, process in before.items()}
    assert min(taken.values()) > 0, "one worker has every connection"

    os.kill(before[1], signal.SIGSTOP)
    stopped = time.monotonic()
    await until(lambda: "does not answer, and is killed" in fleet.log, PATIENCE_S)
    noticed_s = time.monotonic() - stopped
    assert HEARTBEAT_S * 0.7 <= noticed_s < HEARTBEAT_S + 3
    assert fleet.metrics()["engine_workers_serving"] == 1
    await until(lambda: fleet.workers[1] != before[1], PATIENCE_S)
    await until(lambda: fleet.metrics()["engine_workers_serving"] == 2, PATIENCE_S)
    then = len(ended)
    await until(lambda: len({call.channel for call in ended[then:]}) == len(channels), PATIENCE_S)
    stop.set()
    await calling

    failed = [call for call in ended if call.code != "OK"]
    assert {call.code for call in failed} == {"UNAVAILABLE"}
    assert 0 < len({call.channel for call in failed}) <= taken[1]
    assert max(call.started for call in failed) < stopped + noticed_s + 2
    assert not running(before[1])
    assert fleet.workers[2] == before[2]
    figures = fleet.metrics()
    assert figures["engine_worker_silences_total"] == 1
    assert figures["engine_workers_wanted"] == 2
    for channel in channels:
        await channel.close()


@pytest.mark.parametrize("connection_age_s", [4.0])
async def test_a_replacement_gets_its_share_of_connections_in_seconds(outage: Outage) -> None:
    fleet = outage.fleet
    channels = own_channels(fleet, ("grpc.enable_retries", 0))
    ended: list[Call] = []
    stop = asyncio.Event()
    calling = asyncio.create_task(call_at_a_rate(stop, channels, ended))
    await until(lambda: len({call.channel for call in ended}) == len(channels), PATIENCE_S)
    before = fleet.workers
    killed = time.monotonic()
    os.kill(before[1], signal.SIGKILL)
    await until(lambda: fleet.workers[1] != before[1], PATIENCE_S)
    await until(lambda: connections_of(fleet.workers[1], fleet.port) >= len(channels) // 4, PATIENCE_S)
    stop.set()
    await calling
    # Nobody has noticed the renewals.
    failed = [call for call in ended if call.code != "OK"]
    assert all(call.started < killed + 2 for call in failed)
    for channel in channels:
        await channel.close()


@dataclass(slots=True)
class Answers:
    """Of one client that calls without a pause."""

    count: int = 0
    degraded: set[int] = field(default_factory=set)
    failed: list[str] = field(default_factory=list)


async def ask(stop: asyncio.Event, client: AsyncRecommendationClient, answers: Answers) -> None:
    while not stop.is_set():
        try:
            response = await client.recommend("nobody", "home", item_count=10)
            assert len(response.items) == 10
            answers.count += 1
            answers.degraded = set(response.degraded_reasons)
        except EngineError as error:
            answers.failed.append(str(error))
        await asyncio.sleep(0.05)


async def test_everything_is_broken_and_every_call_is_answered_until_it_is_whole_again(outage: Outage) -> None:
    fleet = outage.fleet
    async with AsyncRecommendationClient(fleet.target, timeout_s=PATIENCE_S, retries=4) as client:
        answers, stop = Answers(), asyncio.Event()
        asking = asyncio.create_task(ask(stop, client, answers))
        await until(lambda: answers.count > 5, PATIENCE_S)
        assert not answers.degraded

        with EmbeddedRedis(outage.redis) as shared:
            assert shared.pid is None
        os.kill(redis_process(outage.redis), signal.SIGKILL)
        whole = break_bundle(outage.bundles.directory / "second")
        outage.bundles.point_to("second")
        outage.rules.write_text(BAD)
        # One after the other, so that by the end both have started by what was last good.
        for place in (1, 2):
            before = fleet.workers
            os.kill(before[place], signal.SIGKILL)
            await until(lambda place=place, before=before: fleet.workers[place] != before[place], PATIENCE_S)
        assert await asyncio.to_thread(running, fleet.process.pid)
        await until(lambda: outage.behind("bundle") == outage.behind("rules") == 2, PATIENCE_S)
        assert fleet.metrics()["engine_workers_serving"] == 2
        count = answers.count
        await until(lambda: answers.count > count + 5, PATIENCE_S)
        assert answers.degraded == {pb.DEGRADED_REASON_FEATURES_UNAVAILABLE}
        assert outage.bundles.current().name == "second", "the pointer was moved"

        (outage.bundles.directory / "second" / "ranker.onnx").write_bytes(whole)
        outage.rules.write_text(OTHER)
        (outage.redis / "lock").unlink()
        with EmbeddedRedis(outage.redis):
            await until(lambda: outage.behind("bundle") == outage.behind("rules") == 0, PATIENCE_S)
            await until(lambda: not answers.degraded, PATIENCE_S)
            stop.set()
            await asking
    assert not answers.failed
    assert "Traceback" not in fleet.log


def redis_process(home: Path) -> int:
    """The redis-server of a directory."""
    (found,) = (
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and str(home).encode() in _command(entry) and b"redis-server" in _command(entry)
    )
    return found


def _command(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""
