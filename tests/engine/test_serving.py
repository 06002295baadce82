"""The whole engine over real sockets: gRPC, Redis, FAISS, ONNX Runtime."""

import asyncio
import datetime
import json
import logging
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import json_format
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from engine.adapters.redis.embedded import EmbeddedRedis
from engine.app.publish import publish_once
from engine.app.serve import open_pipeline, running_server
from engine.bundle.store import BundleStore
from engine.config.serving import EngineConfig
from engine.errors import BundleError, DependencyUnavailable
from engine.types import Demographics, EventType
from engine_client import AsyncRecommendationClient, build_event
from engine_client.v1 import recommendation_pb2 as pb
from engine_client.v1.event_pb2 import EVENT_TYPE_CLICK
from tests.conftest import Trained

DAY_MS = 86_400_000
SERVICE = "engine.v1.RecommendationService"


def config_for(trained: Trained, home: Path, **sections: dict[str, Any]) -> EngineConfig:
    settings: dict[str, dict[str, Any]] = {
        # Machines that run tests are slow at times; what is late would be an honest, but another answer.
        "server": {"host": "127.0.0.1", "port": 0, "request_timeout_ms": 20_000, "drain_s": 2},
        "redis": {"directory": home, "timeout_ms": 5_000},
        "kafka": {"directory": home / "kafka"},
        "bundle": {"directory": trained.bundles.directory, "poll_s": 0.05},
    }
    for section, values in sections.items():
        settings[section] = {**settings.get(section, {}), **values}
    return EngineConfig.load(**settings)


@pytest.fixture(scope="module")
def redis_home(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Redis directory into which every user of the small world has been published."""
    home = tmp_path_factory.mktemp("serving-redis")
    count = publish_once(trained.data, config_for(trained, home))
    assert count == trained.dataset.user_count
    return home


@pytest.fixture
async def client(trained: Trained, redis_home: Path) -> AsyncIterator[AsyncRecommendationClient]:
    async with (
        running_server(config_for(trained, redis_home)) as server,
        AsyncRecommendationClient(f"127.0.0.1:{server.port}", timeout_s=20) as client,
    ):
        await client.wait_until_serving()
        yield client


def busiest_user(trained: Trained) -> tuple[str, set[str], datetime.datetime]:
    """The user with the longest history, what they had bought in the month before its end, and a minute after it."""
    histories = trained.dataset.histories()
    user = int(histories.lengths().argmax())
    own = slice(int(histories.offsets[user]), int(histories.offsets[user + 1]))
    end_ms = int(histories.timestamps_ms[own][-1]) + 60_000
    bought = (histories.event_types[own] == EventType.PURCHASE) & (histories.timestamps_ms[own] > end_ms - 30 * DAY_MS)
    ids = {trained.dataset.items["item_id"][int(row)] for row in histories.rows[own][bought]}
    assert ids
    return trained.dataset.users["user_id"][user], ids, datetime.datetime.fromtimestamp(end_ms / 1000, datetime.UTC)


async def test_a_known_user_gets_fifty_new_items(client: AsyncRecommendationClient, trained: Trained) -> None:
    user_id, bought, moment = busiest_user(trained)
    response = await client.recommend(user_id, "home", debug=True, time=moment)
    assert response.strategy == pb.STRATEGY_PERSONALIZED
    assert [item.position for item in response.items] == list(range(1, 51))
    ids = [item.item_id for item in response.items]
    assert len(set(ids)) == 50
    assert not bought & set(ids)
    assert response.bundle_version == trained.bundles.current().name
    assert not response.degraded_reasons
    assert {"features", "retrieve", "rank", "diversify", "total"} <= {timing.stage for timing in response.debug.stages}
    removed = {entry.reason: entry.count for entry in response.debug.removed}
    # What is out of stock, too, counts as that.
    assert 0 < removed["seen"] <= len(bought)
    hidden = [one.count for one in response.debug.seen if (one.action, one.event_type) == ("hidden", "purchase")]
    assert hidden == [removed["seen"]]
    assert all(item.explanation.HasField("rank_score") for item in response.items)
    assert all(item.explanation.rule_factor == item.propensity == 1.0 for item in response.items)
    scores = [item.explanation.retrieval_score for item in response.items]
    assert len(set(scores)) > 1
    again = await client.recommend(user_id, "home")
    assert not any(item.HasField("explanation") for item in again.items)
    same_moment = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    first = await client.recommend(user_id, "home", time=same_moment)
    second = await client.recommend(user_id, "home", time=same_moment)
    assert [item.item_id for item in first.items] == [item.item_id for item in second.items]
    assert len(again.items) == 50


async def test_unknown_users_are_served_and_labelled(client: AsyncRecommendationClient, trained: Trained) -> None:
    response = await client.recommend("nobody ever", "home")
    assert response.strategy == pb.STRATEGY_POPULARITY
    assert len(response.items) == 50
    age = trained.dataset.vocabularies["age_group"][0]
    response = await client.recommend("nobody ever", "home", demographics=Demographics(age_group=age))
    assert response.strategy == pb.STRATEGY_DEMOGRAPHIC


async def test_excluded_items_stay_away(client: AsyncRecommendationClient, trained: Trained) -> None:
    user_id, _, _ = busiest_user(trained)
    first = [item.item_id for item in (await client.recommend(user_id, "home", item_count=20)).items]
    second = [
        item.item_id for item in (await client.recommend(user_id, "home", item_count=20, exclude_item_ids=first)).items
    ]
    assert len(second) == 20
    assert not set(first) & set(second)


async def test_a_client_with_nothing_but_reflection(trained: Trained, redis_home: Path) -> None:
    user_id, bought, moment = busiest_user(trained)

    def call(port: int) -> dict[str, Any]:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
            method = pool.FindServiceByName(SERVICE).FindMethodByName("Recommend")
            request = GetMessageClass(method.input_type)(user_id=user_id, surface="home")
            request.context.time.FromDatetime(moment)
            recommend = channel.unary_unary(
                f"/{SERVICE}/Recommend",
                request_serializer=type(request).SerializeToString,
                response_deserializer=GetMessageClass(method.output_type).FromString,
            )
            return json_format.MessageToDict(recommend(request, timeout=20))

    async with running_server(config_for(trained, redis_home)) as server:
        answer = await asyncio.to_thread(call, server.port)
    ids = {item["itemId"] for item in answer["items"]}
    assert len(ids) == 50
    assert not ids & bought


async def test_redis_dies_under_way_and_the_answer_says_so(trained: Trained, tmp_path: Path, redis_home: Path) -> None:
    user_id, bought, moment = busiest_user(trained)
    stranger = next(name for name in trained.dataset.users["user_id"] if name != user_id)
    shutil.copy(redis_home / "dump.rdb", tmp_path)
    with EmbeddedRedis(tmp_path) as redis_server:
        config = config_for(trained, tmp_path, redis={"url": redis_server.url, "timeout_ms": 500})
        async with (
            running_server(config) as server,
            AsyncRecommendationClient(f"127.0.0.1:{server.port}", timeout_s=20) as client,
        ):
            before = await client.recommend(user_id, "home")
            assert not before.degraded_reasons
            redis_server.close()
            stale = await client.recommend(user_id, "home", time=moment)
            assert list(stale.degraded_reasons) == [pb.DEGRADED_REASON_FEATURES_STALE]
            assert stale.strategy == pb.STRATEGY_PERSONALIZED
            assert not bought & {item.item_id for item in stale.items}
            unknown = await client.recommend(stranger, "home")
            assert list(unknown.degraded_reasons) == [pb.DEGRADED_REASON_FEATURES_UNAVAILABLE]
            assert len(unknown.items) == 50


async def test_a_new_bundle_is_swapped_in_and_a_bad_one_is_refused(trained: Trained, tmp_path: Path) -> None:
    bundles = BundleStore(tmp_path / "bundles")
    original = shutil.copytree(trained.bundles.current(), bundles.directory / trained.bundles.current().name)
    bundles.point_to(original.name)
    redis_home = tmp_path / "redis"
    config = config_for(trained, redis_home, bundle={"directory": bundles.directory})

    def copy_as(version: str) -> Path:
        path = shutil.copytree(original, bundles.directory / version)
        manifest = json.loads((path / "manifest.json").read_text())
        (path / "manifest.json").write_text(json.dumps({**manifest, "version": version}))
        return path

    async def version_after(moves: bool) -> str:
        for _ in range(200):
            version = (await client.recommend("nobody", "home")).bundle_version
            if (version != original.name) == moves:
                break
            await asyncio.sleep(0.05)
        return version

    async with (
        running_server(config) as server,
        AsyncRecommendationClient(f"127.0.0.1:{server.port}", timeout_s=20) as client,
    ):
        broken = copy_as("broken")
        (broken / "ranker.onnx").write_bytes((broken / "ranker.onnx").read_bytes()[:-100])
        bundles.point_to("broken")
        await asyncio.sleep(0.5)
        assert await version_after(moves=False) == original.name
        copy_as("newer")
        bundles.point_to("newer")
        assert await version_after(moves=True) == "newer"


async def test_starting_without_redis_or_with_a_bad_bundle_says_what_is_wrong(trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(DependencyUnavailable, match="Redis cannot be reached"):
        async with open_pipeline(config_for(trained, tmp_path, redis={"url": "redis://127.0.0.1:1/0"})):
            pass
    with pytest.raises(BundleError, match="engine train"):
        async with open_pipeline(config_for(trained, tmp_path, bundle={"directory": tmp_path / "none"})):
            pass


async def test_events_are_recorded_beside_recommendations(trained: Trained, redis_home: Path) -> None:
    config = config_for(trained, redis_home)
    item = trained.dataset.items["item_id"][0]
    async with (
        running_server(config) as server,
        AsyncRecommendationClient(f"127.0.0.1:{server.port}") as client,
    ):
        events = [build_event("someone", EVENT_TYPE_CLICK, item, surface=surface) for surface in ("home", "nowhere")]
        response = await client.record_events(events, timeout_s=20)
    assert response.accepted_count == 1
    assert [(bad.index, bad.field) for bad in response.rejected] == [(1, "surface")]


async def test_a_server_without_kafka_starts_serves_and_says_so(
    trained: Trained, redis_home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = config_for(trained, redis_home, kafka={"brokers": "127.0.0.1:1", "delivery_timeout_ms": 200})
    with caplog.at_level(logging.WARNING, "engine"):
        async with (
            running_server(config) as server,
            AsyncRecommendationClient(f"127.0.0.1:{server.port}", retries=0) as client,
        ):
            assert len((await client.recommend("nobody ever", "home", timeout_s=20)).items) == 50
            with pytest.raises(DependencyUnavailable, match="1 of 1 events"):
                await client.record_events([build_event("u", EVENT_TYPE_CLICK, "i")], timeout_s=20)
            assert len((await client.recommend("nobody ever", "home", timeout_s=20)).items) == 50
    assert "recording events will say UNAVAILABLE" in caplog.text
