"""`engine serve --workers 2` with `device.process`: real processes, killed, replaced and given new bundles."""

import asyncio
import datetime
import json
import os
import re
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from engine.app.publish import publish_once
from engine.app.serve import open_pipeline, running_server
from engine.bundle.store import BundleStore
from engine.config.serving import EngineConfig
from engine.types import RecommendQuery
from engine_client import AsyncRecommendationClient, build_request
from engine_client.v1 import catalog_pb2
from engine_client.v1 import recommendation_pb2 as pb
from engine_client.v1 import recommendation_pb2_grpc as pb_grpc
from tests.conftest import Trained
from tests.engine.fleet import Fleet, running, running_fleet, wait_until_ready
from tests.engine.rpc.conftest import until
from tests.engine.test_serving import busiest_user

DEVICE = "[device]\nprocess = true\n"
CALLERS = 12
OWN_CONNECTION = ("grpc.use_local_subchannel_pool", 1)
PATIENCE_S = 60


@pytest.fixture(scope="module")
def fleet(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    home, current = tmp_path_factory.mktemp("front-ends"), trained.bundles.current()
    bundles = BundleStore(home / "bundles")
    shutil.copytree(current, bundles.directory / current.name)
    bundles.point_to(current.name)
    with running_fleet(home, bundles.directory, DEVICE) as fleet:
        wait_until_ready(fleet)
        publish_once(trained.data, settings_of(fleet))
        yield fleet


def settings_of(fleet: Fleet) -> EngineConfig:
    """Those of the fleet, for what this process does beside it: without a process for the device."""
    return EngineConfig.load(fleet.home / "engine.toml", device={"process": False})


def device_process(fleet: Fleet) -> int:
    """The one that serves now, as last heard."""
    return int(re.findall(r"the device process serves \(process (\d+)", fleet.log)[-1])


def maps(process_id: int) -> str:
    return Path(f"/proc/{process_id}/maps").read_text()


def slots(fleet: Fleet) -> int:
    """How many slots the device process has mapped."""
    return maps(device_process(fleet)).count("engine-slot")


class Callers:
    """Users who keep asking, each with a connection of its own."""

    def __init__(self, fleet: Fleet, user_id: str) -> None:
        self.answers: list[pb.RecommendResponse] = []
        self.failed: list[str] = []
        self._stop = asyncio.Event()
        self._channels = [grpc.aio.insecure_channel(fleet.target, [OWN_CONNECTION]) for _ in range(CALLERS)]
        self._tasks = [asyncio.create_task(self._ask(channel, user_id)) for channel in self._channels]

    async def _ask(self, channel: grpc.aio.Channel, user_id: str) -> None:
        stub = pb_grpc.RecommendationServiceStub(channel)
        while not self._stop.is_set():
            try:
                request = build_request(user_id, "home", item_count=50)
                self.answers.append(await stub.Recommend(request, timeout=20, wait_for_ready=True))
            except grpc.aio.AioRpcError as error:
                self.failed.append(error.code().name)

    async def wait_for_more(self, count: int = 40) -> list[pb.RecommendResponse]:
        """The answers that come from now on, this many at least."""
        start = len(self.answers)
        await until(lambda: len(self.answers) >= start + count, PATIENCE_S)
        return self.answers[start:]

    async def stop(self) -> None:
        self._stop.set()
        await asyncio.gather(*self._tasks)
        for channel in self._channels:
            await channel.close()


async def test_slates_are_those_of_one_process_and_only_one_has_the_index(fleet: Fleet, trained: Trained) -> None:
    users = [str(user) for user in trained.dataset.users["user_id"].to_list()[:20]]
    compared = 0
    async with AsyncRecommendationClient(fleet.target, timeout_s=20) as client:
        config = settings_of(fleet)
        async with open_pipeline(config) as alone:
            now_ms = alone.model.bundle.manifest.data_end_ms
            asked = datetime.datetime.fromtimestamp(now_ms / 1000, datetime.UTC)
            for user in users:
                expected = await alone.recommend(RecommendQuery(user, "home", 50, now_ms), time.monotonic() + 20)
                found = await client.recommend(user, "home", item_count=50, time=asked)
                assert not found.degraded_reasons
                if found.strategy == pb.STRATEGY_PERSONALIZED:
                    compared += 1
                assert [item.item_id for item in found.items] == list(expected.item_ids)
    assert compared > 5
    for worker in fleet.workers.values():
        assert "faiss" not in maps(worker).lower()
    assert "faiss" in maps(device_process(fleet)).lower()


async def test_a_killed_device_process_costs_quality_and_nothing_else(fleet: Fleet, trained: Trained) -> None:
    callers = Callers(fleet, busiest_user(trained)[0])
    before = await callers.wait_for_more()
    assert not any(answer.degraded_reasons for answer in before)
    workers, device = fleet.workers, device_process(fleet)
    os.kill(device, signal.SIGKILL)
    await until(lambda: any(answer.degraded_reasons for answer in callers.answers), PATIENCE_S)
    await until(lambda: device_process(fleet) != device, PATIENCE_S)
    await until(lambda: not any(answer.degraded_reasons for answer in callers.answers[-40:]), PATIENCE_S)
    after = await callers.wait_for_more()
    assert not any(answer.degraded_reasons for answer in after)
    await callers.stop()
    assert not callers.failed
    reasons = {reason for answer in callers.answers for reason in answer.degraded_reasons}
    assert reasons <= {pb.DEGRADED_REASON_RETRIEVAL_FAILED, pb.DEGRADED_REASON_RANKING_FAILED}
    assert {len(answer.items) for answer in callers.answers} == {50}
    assert fleet.workers == workers
    assert "the device process ended by SIGKILL; another one" in fleet.log


async def test_a_killed_front_end_leaves_no_slot_behind(fleet: Fleet, trained: Trained) -> None:
    callers = Callers(fleet, busiest_user(trained)[0])
    await callers.wait_for_more()
    workers, all_slots = fleet.workers, slots(fleet)
    os.kill(workers[1], signal.SIGKILL)
    # Half of them, before there is another one in its place.
    await until(lambda: slots(fleet) == all_slots // 2, PATIENCE_S)
    await until(lambda: fleet.workers[1] != workers[1], PATIENCE_S)
    assert slots(fleet) == all_slots
    await callers.wait_for_more()
    await callers.stop()
    assert set(callers.failed) <= {"UNAVAILABLE"}
    assert not any(answer.degraded_reasons for answer in callers.answers)


async def test_a_new_bundle_is_there_before_anybody_asks_for_it_and_the_old_one_goes(
    fleet: Fleet, trained: Trained
) -> None:
    callers = Callers(fleet, busiest_user(trained)[0])
    await callers.wait_for_more()
    bundles = BundleStore(fleet.home / "bundles")
    old = bundles.current()
    path = shutil.copytree(old, bundles.directory / "next")
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps({**manifest, "version": "next"}))
    bundles.point_to("next")
    await until(lambda: fleet.metrics().get('engine_bundle_info{version="next"}') == 2, PATIENCE_S)
    after = await callers.wait_for_more()
    await callers.stop()
    assert not callers.failed
    assert not any(answer.degraded_reasons for answer in callers.answers)
    assert {answer.bundle_version for answer in after[CALLERS:]} == {"next"}
    assert f"{path}/" in maps(device_process(fleet))
    await until(lambda: f"{old}/" not in maps(device_process(fleet)), PATIENCE_S)

    # A device process that starts now has the new one.
    device = device_process(fleet)
    os.kill(device, signal.SIGKILL)
    await until(lambda: device_process(fleet) != device, PATIENCE_S)

    async def is_back() -> bool:
        async with AsyncRecommendationClient(fleet.target, timeout_s=20) as client:
            return not (await client.recommend(busiest_user(trained)[0], "home")).degraded_reasons

    give_up = time.monotonic() + PATIENCE_S
    while not await is_back():
        assert time.monotonic() < give_up
    assert f"{old}/" not in maps(device_process(fleet))


async def test_new_items_score_alike_though_each_process_heard_of_them_in_another_order(
    fleet: Fleet, trained: Trained
) -> None:
    user, *_ = busiest_user(trained)
    known = trained.dataset.items["category"].to_list()
    async with AsyncRecommendationClient(fleet.target, timeout_s=20) as client:
        # So few are left that all of them are in an answer.
        out_of_stock = [str(item_id) for item_id in trained.dataset.items["item_id"].to_list()[:450]]
        await client.update_inventory(dict.fromkeys(out_of_stock, False))
        # Prices and categories that the ranker tells apart; the first two change once more, and go to the end of what
        # a process reads that starts now.
        for number in (0, 1, 2, 3, 4, 5, 1, 0):
            item = catalog_pb2.Item(
                item_id=f"new-{number}", title=f"new {number}", price=float(5**number), category=known[number]
            )
            assert (await client.upsert_items([item])).accepted_count == 1
        device = device_process(fleet)
        os.kill(device, signal.SIGKILL)
        await until(lambda: device_process(fleet) != device, PATIENCE_S)
        config = settings_of(fleet)
        config = config.model_copy(update={"server": config.server.model_copy(update={"metrics_port": None})})
        async with running_server(config) as alone, AsyncRecommendationClient(f"127.0.0.1:{alone.port}") as other:
            asked = datetime.datetime.now(datetime.UTC)
            expected = await scores_of(other, user, asked)
            assert {f"new-{number}" for number in range(6)} <= set(expected)
            give_up = time.monotonic() + PATIENCE_S
            while (found := await scores_of(client, user, asked)) is None:
                assert time.monotonic() < give_up
        assert found == pytest.approx(expected, rel=1e-4)


async def scores_of(client: AsyncRecommendationClient, user: str, asked: datetime.datetime) -> dict[str, float] | None:
    """The ranker's score of each item in an answer with all of them; None of one that is degraded."""
    answer = await client.recommend(user, "home", item_count=200, time=asked, diversity_weight=0.0, timeout_s=20)
    return None if answer.degraded_reasons else {item.item_id: item.score for item in answer.items}


async def test_on_sigterm_the_workers_finish_with_the_device_process_and_all_end(
    fleet: Fleet, trained: Trained
) -> None:
    callers = Callers(fleet, busiest_user(trained)[0])
    await callers.wait_for_more()
    processes = [*fleet.workers.values(), device_process(fleet)]
    socket = re.findall(r"(/\S+/engine-device-\w+)/socket", Path(f"/proc/{processes[-1]}/cmdline").read_text())
    callers._stop.set()
    fleet.process.send_signal(signal.SIGTERM)
    await callers.stop()
    assert await asyncio.to_thread(fleet.process.wait, 30) == 0
    assert not any(running(process) for process in processes)
    assert not any(answer.degraded_reasons for answer in callers.answers)
    assert not Path(socket[0]).exists()


async def test_a_device_process_that_cannot_begin_ends_everything_with_its_message(tmp_path: Path) -> None:
    with running_fleet(tmp_path, tmp_path / "empty", DEVICE) as fleet:
        assert fleet.process.wait(PATIENCE_S) == 2
        last = fleet.log.splitlines()[-1]
    assert last.startswith("engine: the device process ended 3 times in a row before it served, ")
    assert str(tmp_path / "empty") in last
    assert "Traceback" not in fleet.log
