"""EventService over real sockets into a real broker."""

import asyncio
import datetime
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from engine.adapters.kafka.bus import KafkaEventLog, KafkaProducer
from engine.adapters.kafka.embedded import EmbeddedKafka
from engine.config.stream import KafkaConfig
from engine.contract.events import decode
from engine.errors import DependencyUnavailable, InvalidRequest, Overloaded
from engine.rpc.server import EVENT_SERVICE_NAME, Server
from engine_client import AsyncRecommendationClient, RecommendationClient, build_event
from engine_client.v1 import event_pb2 as pb
from engine_client.v1 import event_pb2_grpc as pb_grpc
from engine_client.v1 import recommendation_pb2, recommendation_pb2_grpc
from tests.engine.rpc.conftest import OpenChannel, StartServer, answer_of, refusal_of, until
from tests.kafka import broker, click, read_back

Record = Callable[..., Awaitable[pb.RecordEventsResponse]]


@pytest.fixture
def kafka(tmp_path: Path) -> Iterator[KafkaConfig]:
    with broker(tmp_path / "kafka") as config:
        yield config


@pytest.fixture
async def event_log(kafka: KafkaConfig) -> AsyncIterator[KafkaEventLog]:
    producer = KafkaProducer(kafka.brokers, kafka.model_copy(update={"delivery_timeout_ms": 20_000}))
    yield KafkaEventLog(producer)
    await asyncio.to_thread(producer.close)


@pytest.fixture
async def server(start_server: StartServer, event_log: KafkaEventLog) -> Server:
    return await start_server(event_log=event_log, request_timeout_ms=10_000)


@pytest.fixture
def stub(server: Server, open_channel: OpenChannel) -> pb_grpc.EventServiceStub:
    return pb_grpc.EventServiceStub(open_channel(server))


@pytest.fixture(params=["async", "blocking"])
def record(request: pytest.FixtureRequest, server: Server) -> Record:
    """record_events of either client."""
    target = f"127.0.0.1:{server.port}"

    async def with_async(*args: Any, **options: Any) -> pb.RecordEventsResponse:
        async with AsyncRecommendationClient(target) as client:
            return await client.record_events(*args, **options)

    def with_blocking(*args: Any, **options: Any) -> pb.RecordEventsResponse:
        with RecommendationClient(target) as client:
            return client.record_events(*args, **options)

    async def in_thread(*args: Any, **options: Any) -> pb.RecordEventsResponse:
        return await asyncio.to_thread(with_blocking, *args, **options)

    return with_async if request.param == "async" else in_thread


async def test_what_is_accepted_is_in_the_topic(record: Record, kafka: KafkaConfig) -> None:
    user = f"user-{uuid.uuid4().hex}"
    before_ms = time.time_ns() // 1_000_000
    bought = build_event(
        user, pb.EVENT_TYPE_PURCHASE, "item-1", surface="cart", value=9.99, session_id="s", device="mobile",
        country="DE", request_id="r", position=4,
    )  # fmt: skip
    bad = build_event(user, pb.EVENT_TYPE_CLICK, "", surface="home")
    read = build_event(user, pb.EVENT_TYPE_DWELL, "item-2", dwell_ms=1500)
    response = await record([bought, bad, read], timeout_s=30)

    assert response.accepted_count == 2
    [rejected] = response.rejected
    assert (rejected.index, rejected.event_id, rejected.field) == (1, bad.event_id, "item_id")
    messages = await asyncio.to_thread(read_back, kafka, {user.encode()}, 2)
    logged = [decode(message.value()) for message in messages]
    assert [entry.event for entry in logged] == [bought, read]
    assert all(before_ms <= entry.received_ms <= time.time_ns() // 1_000_000 for entry in logged)


async def test_a_batch_of_bad_events_alone_is_answered_without_the_log(start_server: StartServer) -> None:
    nowhere = KafkaProducer("127.0.0.1:1", KafkaConfig(delivery_timeout_ms=100))
    server = await start_server(event_log=KafkaEventLog(nowhere))
    async with AsyncRecommendationClient(f"127.0.0.1:{server.port}") as client:
        response = await client.record_events([click("", "i"), click("u", "")], timeout_s=30)
    assert response.accepted_count == 0
    assert [bad.field for bad in response.rejected] == ["user_id", "item_id"]
    await asyncio.to_thread(nowhere.close)


async def test_batches_of_the_wrong_length_are_refused(record: Record, stub: pb_grpc.EventServiceStub) -> None:
    with pytest.raises(InvalidRequest, match="1 to 500 events, got 0"):
        await record([], timeout_s=30)
    refusal = await refusal_of(stub.RecordEvents(pb.RecordEventsRequest(events=[click("u", "i")] * 501), timeout=30))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.fields == ["events"]


async def test_a_batch_too_long_for_a_message_never_leaves(record: Record) -> None:
    with pytest.raises(InvalidRequest, match="at most 1048576 bytes"):
        await record([click("u", "i" * 5000)] * 500)


async def test_kafka_away_is_unavailable_for_the_whole_batch_and_recommend_goes_on(
    start_server: StartServer, open_channel: OpenChannel, tmp_path: Path
) -> None:
    with EmbeddedKafka(tmp_path / "own") as kafka:
        producer = KafkaProducer(kafka.brokers, KafkaConfig(delivery_timeout_ms=300))
        server = await start_server(event_log=KafkaEventLog(producer), request_timeout_ms=10_000)
        channel = open_channel(server)
        events = pb_grpc.EventServiceStub(channel)
        recommendations = recommendation_pb2_grpc.RecommendationServiceStub(channel)
        kafka.set_reachable(False)

        batch = pb.RecordEventsRequest(events=[click("u", "i"), click("u", "")])
        refused = asyncio.create_task(refusal_of(events.RecordEvents(batch, timeout=30)))
        request = recommendation_pb2.RecommendRequest(user_id="u", surface="home")
        assert len((await recommendations.Recommend(request, timeout=30)).items) == 50
        refusal = await refused
        assert refusal.code is grpc.StatusCode.UNAVAILABLE
        assert refusal.info.reason == "DEPENDENCY_UNAVAILABLE"
        assert len((await recommendations.Recommend(request, timeout=30)).items) == 50

        kafka.set_reachable(True)
        async with AsyncRecommendationClient(f"127.0.0.1:{server.port}", retries=4) as client:
            response = await client.record_events([click("u", "again")], timeout_s=30)
        assert response.accepted_count == 1
        await asyncio.to_thread(producer.close)


async def test_a_slow_log_takes_no_places_from_recommendations(
    start_server: StartServer, open_channel: OpenChannel, tmp_path: Path
) -> None:
    with EmbeddedKafka(tmp_path / "own") as kafka:
        producer = KafkaProducer(kafka.brokers, KafkaConfig(delivery_timeout_ms=20_000))
        server = await start_server(
            event_log=KafkaEventLog(producer),
            max_concurrent_requests=1,
            request_timeout_ms=10_000,
            events={"max_concurrent_batches": 2},
        )
        channel = open_channel(server)
        events = pb_grpc.EventServiceStub(channel)
        kafka.set_reachable(False)
        batch = pb.RecordEventsRequest(events=[click("u", "i")])
        running = [asyncio.create_task(answer_of(events.RecordEvents(batch, timeout=30))) for _ in range(2)]
        await until(lambda: server.in_flight == 2)

        assert (await refusal_of(events.RecordEvents(batch, timeout=30))).code is grpc.StatusCode.RESOURCE_EXHAUSTED
        request = recommendation_pb2.RecommendRequest(user_id="u", surface="home")
        stub = recommendation_pb2_grpc.RecommendationServiceStub(channel)
        assert len((await stub.Recommend(request, timeout=30)).items) == 50

        kafka.set_reachable(True)
        assert [answer.accepted_count for answer in await asyncio.gather(*running)] == [1, 1]
        await until(lambda: server.in_flight == 0)
        await asyncio.to_thread(producer.close)


async def test_a_full_queue_is_overload(start_server: StartServer) -> None:
    producer = KafkaProducer("127.0.0.1:1", KafkaConfig(delivery_timeout_ms=1000, max_queued_events=500))
    server = await start_server(event_log=KafkaEventLog(producer))
    async with AsyncRecommendationClient(f"127.0.0.1:{server.port}", retries=0) as client:
        waiting = asyncio.create_task(client.record_events([click("u", f"{i}") for i in range(500)], timeout_s=30))
        await until(lambda: server.in_flight == 1)
        await asyncio.sleep(0.05)
        with pytest.raises(Overloaded, match="queue"):
            await client.record_events([click("u", "i")], timeout_s=30)
        with pytest.raises(DependencyUnavailable, match="500 of 500 events"):
            await waiting
    await asyncio.to_thread(producer.close)


async def test_starting_servers_take_no_events(
    start_server: StartServer, open_channel: OpenChannel, event_log: KafkaEventLog
) -> None:
    server = await start_server(serving=False, event_log=event_log)
    channel = open_channel(server)
    health = health_pb2_grpc.HealthStub(channel)
    request = health_pb2.HealthCheckRequest(service=EVENT_SERVICE_NAME)
    batch = pb.RecordEventsRequest(events=[click("u", "i")])
    refusal = await refusal_of(pb_grpc.EventServiceStub(channel).RecordEvents(batch, timeout=30))
    assert refusal.code is grpc.StatusCode.UNAVAILABLE
    assert (await health.Check(request, timeout=30)).status == health_pb2.HealthCheckResponse.NOT_SERVING
    server.set_serving()
    assert (await health.Check(request, timeout=30)).status == health_pb2.HealthCheckResponse.SERVING


async def test_reflection_knows_the_service(server: Server) -> None:
    def look_up() -> list[str]:
        with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            database = ProtoReflectionDescriptorDatabase(channel)
            assert EVENT_SERVICE_NAME in database.get_services()
            return [method.name for method in DescriptorPool(database).FindServiceByName(EVENT_SERVICE_NAME).methods]

    assert await asyncio.to_thread(look_up) == ["RecordEvents"]


async def test_without_a_log_there_is_no_service(start_server: StartServer, open_channel: OpenChannel) -> None:
    stub = pb_grpc.EventServiceStub(open_channel(await start_server()))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.RecordEvents(pb.RecordEventsRequest(events=[click("u", "i")]), timeout=30)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


class TestBuildEvent:
    def test_ids_are_fresh_and_the_time_is_now(self) -> None:
        first, second = (build_event("u", pb.EVENT_TYPE_CLICK, "i") for _ in range(2))
        assert first.event_id != second.event_id
        assert abs(first.time.ToSeconds() - time.time()) < 5
        assert not first.HasField("value")
        assert not first.HasField("dwell_ms")

    def test_what_is_given_is_kept(self) -> None:
        noon = datetime.datetime(2024, 5, 1, 12, tzinfo=datetime.timezone(datetime.timedelta(hours=2)))
        event = build_event("u", pb.EVENT_TYPE_PURCHASE, "i", event_id="e", time=noon, value=0.0)
        assert (event.event_id, event.value, event.time.ToSeconds()) == ("e", 0.0, noon.timestamp())

    def test_values_that_no_message_can_hold(self) -> None:
        with pytest.raises(InvalidRequest, match="time zone"):
            build_event("u", pb.EVENT_TYPE_CLICK, "i", time=datetime.datetime(2024, 5, 1))
        with pytest.raises(InvalidRequest, match="event"):
            build_event("u", pb.EVENT_TYPE_CLICK, "i", position=1 << 40)
        with pytest.raises(TypeError):
            build_event("u", pb.EVENT_TYPE_CLICK, 7)  # type: ignore[arg-type]


async def test_an_unexpected_error_of_the_log_is_internal(start_server: StartServer, open_channel: OpenChannel) -> None:
    class Broken:
        async def append(self, events: Any, received_ms: int) -> None:
            raise RuntimeError("the secret of the log")

    stub = pb_grpc.EventServiceStub(open_channel(await start_server(event_log=Broken())))
    refusal = await refusal_of(stub.RecordEvents(pb.RecordEventsRequest(events=[click("u", "i")]), timeout=30))
    assert refusal.code is grpc.StatusCode.INTERNAL
    assert "secret" not in (refusal.text or "")
