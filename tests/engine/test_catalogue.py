"""The living catalogue over real sockets: two replicas, one Redis, and changes while requests run."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from engine.adapters.redis.embedded import EmbeddedRedis
from engine.app.serve import running_server
from engine.bundle.store import BundleStore
from engine.config.serving import EngineConfig
from engine.errors import DependencyUnavailable, InvalidRequest, RulesError
from engine_client import AsyncRecommendationClient
from engine_client.v1 import catalog_pb2 as pb
from tests.conftest import Trained
from tests.engine.test_serving import config_for as serving_config

Client = AsyncRecommendationClient


def config_for(trained: Trained, home: Path, **sections: dict[str, Any]) -> EngineConfig:
    """Without rotation, which has its own idea, from hour to hour, of what stands where."""
    return serving_config(trained, home, cold_start={"rotation_share": 0.0}, **sections)


async def eventually(holds: Callable[[], Awaitable[bool]], timeout_s: float = 20.0) -> float:
    """Seconds until it holds; the bound of 2 s is the bench's to measure, on a machine that is not shared."""
    started = time.monotonic()
    while not await holds():
        assert time.monotonic() - started < timeout_s
        await asyncio.sleep(0.01)
    return time.monotonic() - started


async def slate(client: Client, count: int = 50, **fields: object) -> list[str]:
    response = await client.recommend("nobody", "home", item_count=count, timeout_s=20, **fields)  # type: ignore[arg-type]
    return [item.item_id for item in response.items]


@pytest.fixture
async def replicas(trained: Trained, tmp_path: Path) -> AsyncIterator[tuple[Client, Client, EmbeddedRedis]]:
    async with AsyncExitStack() as stack:
        redis = stack.enter_context(EmbeddedRedis(tmp_path / "redis"))
        clients = []
        for number in range(2):
            config = config_for(trained, tmp_path / str(number), redis={"url": redis.url})
            server = await stack.enter_async_context(running_server(config))
            clients.append(await stack.enter_async_context(Client(f"127.0.0.1:{server.port}", timeout_s=20)))
        for client in clients:
            await client.wait_until_serving()
        yield clients[0], clients[1], redis


async def test_what_one_replica_is_told_all_of_them_follow(replicas: tuple[Client, Client, EmbeddedRedis]) -> None:
    one, other, _ = replicas
    first = (await slate(one))[0]
    assert (await one.update_inventory({first: False})).accepted_count == 1

    async def is_gone() -> bool:
        return first not in await slate(other) + await slate(one)

    await eventually(is_gone)
    await other.update_inventory({first: True})

    async def is_back() -> bool:
        return first in await slate(one) and first in await slate(other)

    await eventually(is_back)
    await one.delete_items([first])
    await eventually(is_gone)


async def test_a_new_item_can_be_shown_and_a_deleted_one_cannot(
    replicas: tuple[Client, Client, EmbeddedRedis], trained: Trained
) -> None:
    one, other, _ = replicas
    every_item = trained.dataset.items["item_id"].to_list()
    response = await one.upsert_items(
        [pb.Item(item_id="new", title="new", price=3.0), pb.Item(item_id="broken", price=-1), pb.Item(item_id="new")]
    )
    assert response.accepted_count == 1
    assert [(error.index, error.field) for error in response.errors] == [(1, "title"), (2, "item_id")]
    # With all others out of the way, an answer that is never short holds the new one.
    for start in range(0, len(every_item), 1000):
        await one.update_inventory(dict.fromkeys(every_item[start : start + 1000], False))

    async def alone() -> bool:
        return await slate(other) == ["new"] == await slate(one)

    await eventually(alone)
    await other.delete_items(["new"])

    async def empty() -> bool:
        return await slate(one) == [] == await slate(other)

    await eventually(empty)
    with pytest.raises(InvalidRequest, match="item_ids: must hold 1 to 1000"):
        await one.delete_items([])


async def test_a_new_replica_knows_all_changes_before_it_serves(trained: Trained, tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path / "redis") as redis:
        config = config_for(trained, tmp_path, redis={"url": redis.url})
        async with running_server(config) as server, Client(f"127.0.0.1:{server.port}", timeout_s=20) as client:
            gone = await slate(client, 20)
            await client.update_inventory(dict.fromkeys(gone, False))
            await client.upsert_items([pb.Item(item_id="new", title="new")])
        async with running_server(config) as server, Client(f"127.0.0.1:{server.port}", timeout_s=20) as client:
            assert not set(gone) & set(await slate(client, 200))


async def test_changes_outlive_a_bundle(trained: Trained, tmp_path: Path) -> None:
    import shutil

    bundles = BundleStore(tmp_path / "bundles")
    name = trained.bundles.current().name
    for version in (name, "copy"):
        shutil.copytree(trained.bundles.current(), bundles.directory / version)
    bundles.point_to(name)
    config = config_for(trained, tmp_path / "redis", bundle={"directory": bundles.directory})
    async with running_server(config) as server, Client(f"127.0.0.1:{server.port}", timeout_s=20) as client:
        gone = await slate(client, 20)
        await client.update_inventory(dict.fromkeys(gone, False))

        async def are_gone() -> bool:
            return not set(gone) & set(await slate(client))

        await eventually(are_gone)
        bundles.point_to("copy")
        for _ in range(100):
            assert await are_gone()
            await asyncio.sleep(0.01)


async def test_redis_away_and_back(trained: Trained, tmp_path: Path) -> None:
    home = tmp_path / "redis"
    with EmbeddedRedis(home) as redis:
        config = config_for(trained, tmp_path, redis={"url": redis.url, "timeout_ms": 200, "connect_timeout_s": 0.5})
        async with (
            running_server(config) as server,
            Client(f"127.0.0.1:{server.port}", timeout_s=20, retries=0) as client,
        ):
            first, second = (await slate(client))[:2]
            await client.update_inventory({first: False})

            async def are_gone(*items: str) -> bool:
                return not set(items) & set(await slate(client))

            await eventually(lambda: are_gone(first))
            redis.close()
            with pytest.raises(DependencyUnavailable, match="catalogue store"):
                await client.update_inventory({second: False})
            # What was known before the store went away still holds.
            assert await are_gone(first)
            assert second in await slate(client)
            with EmbeddedRedis(home) as again:
                assert again.url == redis.url
                await eventually(lambda: _accepted(client, second))
                await eventually(lambda: are_gone(first, second))


async def _accepted(client: Client, item_id: str) -> bool:
    try:
        return (await client.update_inventory({item_id: False})).accepted_count == 1
    except DependencyUnavailable:
        return False


def write_rules(path: Path, *lines: str) -> None:
    path.write_text("version: 1\nrules:\n" + "".join(f"  {line}\n" for line in lines))


async def test_rules_are_followed_and_a_bad_file_is_refused(
    trained: Trained, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "rules.yaml"

    path.write_text("version: 1\nrules: []\n")
    config = config_for(trained, tmp_path, rules={"file": path, "poll_s": 0.05})
    async with running_server(config) as server, Client(f"127.0.0.1:{server.port}", timeout_s=20) as client:
        first, second, *_ = await slate(client)
        write_rules(path, "- name: withdrawn", "  action: deny", f"  items: {{item_ids: {first}}}")

        async def is_gone() -> bool:
            return first not in await slate(client)

        await eventually(is_gone)
        write_rules(path, "- name: withdrawn", "  action: denny", f"  items: {{item_ids: {second}}}")

        async def is_told() -> bool:
            return "rules.yaml:4: rule 'withdrawn': action" in caplog.text

        await eventually(is_told)
        assert await is_gone()
        assert second in await slate(client)
        # A pin of what another rule denies, by what the item is: found with the catalogue at hand.
        category = trained.dataset.items.row(trained.dataset.items["item_id"].index_of(second), named=True)["category"]
        write_rules(
            path, "- name: none of these", "  action: deny", f"  items: {{category: {category}}}",
            "- name: but this", "  action: pin", f"  item_id: {second}", "  position: 1",
        )  # fmt: skip

        async def clash_is_told() -> bool:
            return "is denied by the rule 'none of these'" in caplog.text

        await eventually(clash_is_told)
        assert await is_gone()
        assert second in await slate(client)
        path.write_text("version: 1\nrules: []\n")

        async def is_back() -> bool:
            return first in await slate(client)

        await eventually(is_back)


async def test_a_server_does_not_start_without_its_rules(trained: Trained, tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    write_rules(path, "- name: nothing", "  action: deny", "  itemz: {category: x}")
    with pytest.raises(RulesError, match=r"rules\.yaml:5: .*unknown key 'itemz'; did you mean 'items'"):
        async with running_server(config_for(trained, tmp_path / "redis", rules={"file": path})):
            pass
