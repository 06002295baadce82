"""Both clients against a real server: fields, retries, health, the one tree of errors."""

import asyncio
import datetime
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest

from engine.errors import DeadlineExceeded, DependencyUnavailable, EngineError, InvalidRequest, Overloaded
from engine.rpc.server import Server, create_server
from engine.types import Demographics
from engine_client import AsyncRecommendationClient, RecommendationClient, build_request
from engine_client.v1 import recommendation_pb2 as pb
from tests.engine.rpc.config import server_config
from tests.engine.rpc.conftest import StartServer
from tests.engine.rpc.recommender import SteeredRecommender
from tests.ports import free_port

Recommend = Callable[..., Awaitable[pb.RecommendResponse]]
NOON = datetime.datetime(2024, 5, 1, 12, 0, 0, 250_000, tzinfo=datetime.timezone(datetime.timedelta(hours=2)))


def target_of(*servers: Server) -> str:
    return "ipv4:" + ",".join(f"127.0.0.1:{server.port}" for server in servers)


@pytest.fixture(params=["async", "blocking"])
def recommend_with(request: pytest.FixtureRequest) -> Callable[..., Recommend]:
    """Both clients behind one face: recommend_with(target, …) gives an awaitable recommend."""

    def of(target: str, **options: Any) -> Recommend:
        async def with_async(*args: Any, **fields: Any) -> pb.RecommendResponse:
            async with AsyncRecommendationClient(target, **options) as client:
                return await client.recommend(*args, **fields)

        def with_blocking(*args: Any, **fields: Any) -> pb.RecommendResponse:
            with RecommendationClient(target, **options) as client:
                return client.recommend(*args, **fields)

        async def in_thread(*args: Any, **fields: Any) -> pb.RecommendResponse:
            return await asyncio.to_thread(with_blocking, *args, **fields)

        return with_async if request.param == "async" else in_thread

    return of


class TestFields:
    async def test_all_of_them_arrive(
        self, server: Server, recommender: SteeredRecommender, recommend_with: Callable[..., Recommend]
    ) -> None:
        response = await recommend_with(target_of(server), timeout_s=10)(
            "u1",
            "cart",
            item_count=3,
            time=NOON,
            device="tv",
            country="DE",
            demographics=Demographics("25-34", "Ulm", "ad"),
            exclude_item_ids=["a", "b"],
            diversity_weight=0.0,
            request_id="r-1",
            debug=True,
        )
        (query,) = recommender.queries
        assert (query.user_id, query.surface, query.item_count, query.device, query.country) == (
            "u1",
            "cart",
            3,
            "tv",
            "DE",
        )
        assert query.time_ms == round(NOON.timestamp() * 1000)
        assert query.demographics == Demographics("25-34", "Ulm", "ad")
        assert (query.exclude_item_ids, query.diversity_weight) == (("a", "b"), 0.0)
        assert (response.request_id, len(response.items), response.debug.candidate_count) == ("r-1", 3, 1000)

    def test_absent_ones_stay_absent(self) -> None:
        request = build_request("u", "home")
        assert [field.name for field, _ in request.ListFields()] == ["user_id", "surface", "context"]
        assert not request.context.ListFields()

    def test_what_the_message_cannot_hold_is_an_invalid_request(self) -> None:
        with pytest.raises(InvalidRequest):
            build_request("u", "home", item_count=2**40)
        with pytest.raises(InvalidRequest, match="time zone"):
            build_request("u", "home", time=datetime.datetime(2024, 5, 1))

    def test_a_message_that_the_server_would_not_take_in(self) -> None:
        with pytest.raises(InvalidRequest, match="1048576 bytes"):
            build_request("u", "home", exclude_item_ids=["x" * 256] * 5000)

    def test_more_retries_than_grpc_allows(self) -> None:
        with pytest.raises(ValueError, match="between 0 and 4"):
            RecommendationClient("localhost:1", retries=5)


class TestErrors:
    async def test_invalid_request_keeps_field_and_reason(
        self, server: Server, recommend_with: Callable[..., Recommend]
    ) -> None:
        with pytest.raises(InvalidRequest) as caught:
            await recommend_with(target_of(server), timeout_s=10)("u", "home", item_count=0)
        assert (caught.value.field, caught.value.reason) == ("item_count", "must be between 1 and 200, got 0")
        assert isinstance(caught.value.__cause__, grpc.RpcError)

    async def test_overloaded(
        self, server: Server, recommender: SteeredRecommender, recommend_with: Callable[..., Recommend]
    ) -> None:
        recommender.error = lambda: Overloaded("the ranker's queue is full")
        with pytest.raises(Overloaded, match=r"^the ranker's queue is full$"):
            await recommend_with(target_of(server), timeout_s=10)("u", "home")
        assert len(recommender.queries) == 1

    async def test_deadline(
        self, server: Server, recommender: SteeredRecommender, recommend_with: Callable[..., Recommend]
    ) -> None:
        recommender.gate = asyncio.Event()
        started = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            await recommend_with(target_of(server), timeout_s=10)("u", "home", timeout_s=0.2)
        assert time.monotonic() - started < 5

    async def test_internal_is_the_base_class_with_the_request_id(
        self, server: Server, recommender: SteeredRecommender, recommend_with: Callable[..., Recommend]
    ) -> None:
        recommender.error = lambda: KeyError("hunter2")
        with pytest.raises(EngineError, match=r"^INTERNAL: internal error \(request r-5\)$") as caught:
            await recommend_with(target_of(server), timeout_s=10)("u", "home", request_id="r-5")
        assert type(caught.value) is EngineError


class TestRetries:
    async def test_unavailable_is_tried_again(
        self, server: Server, recommender: SteeredRecommender, recommend_with: Callable[..., Recommend]
    ) -> None:
        def fail_twice() -> Exception:
            if len(recommender.queries) == 2:
                recommender.error = None
            return DependencyUnavailable("not yet")

        recommender.error = fail_twice
        await recommend_with(target_of(server), timeout_s=10)("u", "home")
        assert len(recommender.queries) == 3

    @pytest.mark.parametrize(("retries", "attempts"), [(0, 1), (2, 3)])
    async def test_as_often_as_asked_and_no_more(
        self,
        retries: int,
        attempts: int,
        server: Server,
        recommender: SteeredRecommender,
        recommend_with: Callable[..., Recommend],
    ) -> None:
        recommender.error = lambda: DependencyUnavailable("not today")
        with pytest.raises(DependencyUnavailable, match=r"^not today$"):
            await recommend_with(target_of(server), timeout_s=10, retries=retries)("u", "home")
        assert len(recommender.queries) == attempts

    async def test_a_server_that_comes_up_late_is_reached_by_the_retries(
        self, start_server: StartServer, recommend_with: Callable[..., Recommend]
    ) -> None:
        port = free_port()
        call = asyncio.ensure_future(
            recommend_with(f"127.0.0.1:{port}", timeout_s=10, retries=4)("u", "home", item_count=2)
        )
        await asyncio.sleep(0.03)
        await start_server(port=port, request_timeout_ms=10_000)
        assert len((await call).items) == 2

    async def test_nobody_there(self, recommend_with: Callable[..., Recommend]) -> None:
        started = time.monotonic()
        with pytest.raises(DependencyUnavailable):
            await recommend_with(f"127.0.0.1:{free_port()}", timeout_s=10)("u", "home")
        assert time.monotonic() - started < 5


class TestChannel:
    async def test_one_connection_serves_many_calls(
        self, start_server: StartServer, recommender: SteeredRecommender
    ) -> None:
        server = await start_server(max_pending_calls=100, request_timeout_ms=10_000)
        async with AsyncRecommendationClient(target_of(server), timeout_s=10) as client:
            responses = await asyncio.gather(*(client.recommend(f"u{n}", "home", item_count=1) for n in range(50)))
        assert [response.items[0].item_id for response in responses] == [f"u{n}-0" for n in range(50)]

    async def test_a_replica_that_is_not_serving_gets_no_calls(self, start_server: StartServer) -> None:
        serving, idle = SteeredRecommender(), SteeredRecommender()
        servers = []
        for recommender in (serving, idle):
            server = create_server(recommender, server_config(request_timeout_ms=10_000))
            await server.start()
            servers.append(server)
        servers[0].set_serving()
        async with AsyncRecommendationClient(target_of(*servers), timeout_s=10, retries=0) as client:
            await client.wait_until_serving(10)
            for _ in range(20):
                await client.recommend("u", "home")
            assert (len(serving.queries), len(idle.queries)) == (20, 0)
            servers[1].set_serving()
            for _ in range(200):
                await client.recommend("u", "home")
                if idle.queries:
                    break
                await asyncio.sleep(0.01)
            assert idle.queries
            await servers[0].stop(5)
            for _ in range(20):
                await client.recommend("u", "home")
        await servers[1].stop(5)

    async def test_it_outlives_a_restart_of_the_server(self, start_server: StartServer) -> None:
        first = await start_server(request_timeout_ms=10_000)
        async with AsyncRecommendationClient(target_of(first), timeout_s=10, retries=4) as client:
            await client.recommend("u", "home")
            await first.stop(1)
            await start_server(port=first.port, request_timeout_ms=10_000)
            await client.wait_until_serving(10)
            assert len((await client.recommend("u", "home")).items) == 50

    async def test_credentials_are_used_on_both_ends(self, recommender: SteeredRecommender) -> None:
        server = create_server(recommender, server_config(), grpc.local_server_credentials())
        await server.start()
        server.set_serving()
        credentials = grpc.local_channel_credentials()
        async with AsyncRecommendationClient(target_of(server), timeout_s=10, credentials=credentials) as client:
            assert len((await client.recommend("u", "home")).items) == 50
        await server.stop(1)


class TestWaitUntilServing:
    async def test_async(self, start_server: StartServer) -> None:
        server = await start_server(serving=False)
        async with AsyncRecommendationClient(target_of(server)) as client:
            waiting = asyncio.ensure_future(client.wait_until_serving(20))
            await asyncio.sleep(0.2)
            assert not waiting.done()
            server.set_serving()
            await asyncio.wait_for(waiting, 10)

    async def test_blocking(self, start_server: StartServer) -> None:
        server = await start_server(serving=False)
        with RecommendationClient(target_of(server)) as client:
            waiting = asyncio.ensure_future(asyncio.to_thread(client.wait_until_serving, 20))
            await asyncio.sleep(0.2)
            assert not waiting.done()
            server.set_serving()
            await asyncio.wait_for(waiting, 10)

    async def test_a_server_that_is_not_there_yet(self, start_server: StartServer) -> None:
        port = free_port()
        async with AsyncRecommendationClient(f"127.0.0.1:{port}") as client:
            waiting = asyncio.ensure_future(client.wait_until_serving(20))
            await asyncio.sleep(0.3)
            await start_server(port=port)
            await asyncio.wait_for(waiting, 15)

    async def test_in_vain(self, start_server: StartServer) -> None:
        server = await start_server(serving=False)
        async with AsyncRecommendationClient(target_of(server)) as client:
            with pytest.raises(DependencyUnavailable, match=r"was not serving within 0\.2 s"):
                await client.wait_until_serving(0.2)


async def test_the_blocking_client_is_safe_to_share(server: Server) -> None:
    errors: list[BaseException] = []

    def work(client: RecommendationClient, user_id: str) -> None:
        try:
            for _ in range(10):
                assert client.recommend(user_id, "home", item_count=1).items[0].item_id == f"{user_id}-0"
        except BaseException as error:
            errors.append(error)

    def share() -> None:
        with RecommendationClient(target_of(server), timeout_s=10) as client:
            threads = [threading.Thread(target=work, args=(client, f"u{n}")) for n in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

    await asyncio.to_thread(share)
    assert errors == []
