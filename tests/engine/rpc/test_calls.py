"""What surrounds a call: request ids, deadlines, the concurrency limit, errors."""

import asyncio
import logging
import time

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from engine.errors import BundleError, DeadlineExceeded, DependencyUnavailable
from engine.rpc.interceptors import Admission
from engine.rpc.server import Server
from engine_client.v1 import recommendation_pb2 as pb
from engine_client.v1 import recommendation_pb2_grpc as pb_grpc
from tests.engine.rpc.conftest import OpenChannel, StartServer, answer_of, refusal_of, until
from tests.engine.rpc.recommender import SteeredRecommender

REQUEST = pb.RecommendRequest(user_id="u1", surface="home")


async def request_id_of(call: grpc.aio.UnaryUnaryCall) -> str:
    return dict(await call.trailing_metadata())["x-request-id"]


class TestRequestId:
    async def test_the_callers_comes_back_in_message_and_metadata(
        self, stub: pb_grpc.RecommendationServiceStub
    ) -> None:
        call = stub.Recommend(pb.RecommendRequest(user_id="u", surface="home", request_id="order-7"), timeout=10)
        assert (await call).request_id == await request_id_of(call) == "order-7"

    async def test_one_is_made_when_there_is_none(self, stub: pb_grpc.RecommendationServiceStub) -> None:
        call = stub.Recommend(REQUEST, timeout=10)
        response = await call
        assert len(response.request_id) == 32
        assert await request_id_of(call) == response.request_id

    async def test_other_alphabets_are_encoded_in_the_metadata(self, stub: pb_grpc.RecommendationServiceStub) -> None:
        call = stub.Recommend(pb.RecommendRequest(user_id="u", surface="home", request_id=" é%"), timeout=10)
        assert (await call).request_id == " é%"
        assert await request_id_of(call) == "%20%C3%A9%25"

    async def test_a_refusal_has_one_too(self, stub: pb_grpc.RecommendationServiceStub) -> None:
        refusal = await refusal_of(stub.Recommend(pb.RecommendRequest(request_id="r-9"), timeout=10))
        assert refusal.metadata["x-request-id"] == refusal.info.metadata["request_id"] == "r-9"

    async def test_a_bad_one_is_replaced_in_its_refusal(self, stub: pb_grpc.RecommendationServiceStub) -> None:
        bad = pb.RecommendRequest(user_id="u", surface="home", request_id="x" * 257)
        refusal = await refusal_of(stub.Recommend(bad, timeout=10))
        assert refusal.fields == ["request_id"]
        assert len(refusal.metadata["x-request-id"]) == 32


class TestDeadline:
    async def test_the_clients_shorter_one_wins(
        self, stub: pb_grpc.RecommendationServiceStub, recommender: SteeredRecommender
    ) -> None:
        await stub.Recommend(REQUEST, timeout=5)
        # On the wire a timeout has three digits, rounded up.
        assert 0 < recommender.budgets_s[0] < recommender.deadlines_s[0] <= 5.1

    async def test_the_servers_own_applies_without_one(
        self, start_server: StartServer, open_channel: OpenChannel, recommender: SteeredRecommender
    ) -> None:
        channel = open_channel(await start_server(request_timeout_ms=100, reserve_ms=15))
        await pb_grpc.RecommendationServiceStub(channel).Recommend(REQUEST)
        assert 0 < recommender.budgets_s[0] <= 0.085
        assert recommender.deadlines_s == [float("inf")]

    async def test_of_little_time_half_is_kept_for_the_answer_of_a_late_recommender(
        self, start_server: StartServer, open_channel: OpenChannel, recommender: SteeredRecommender
    ) -> None:
        channel = open_channel(await start_server(request_timeout_ms=2_000, reserve_ms=1_500))
        await pb_grpc.RecommendationServiceStub(channel).Recommend(REQUEST, timeout=1.0)
        assert 0 < recommender.budgets_s[0] <= 0.51

    async def test_work_ends_with_the_clients_deadline_and_the_log_says_so(
        self,
        stub: pb_grpc.RecommendationServiceStub,
        recommender: SteeredRecommender,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        recommender.gate = asyncio.Event()
        refusal = await refusal_of(stub.Recommend(REQUEST, timeout=0.2))
        assert refusal.code is grpc.StatusCode.DEADLINE_EXCEEDED
        await until(lambda: recommender.cancelled == 1)
        await until(lambda: any(record.name == "engine.rpc.access" for record in caplog.records))
        [line] = [record.getMessage() for record in caplog.records if record.name == "engine.rpc.access"]
        assert "code=DEADLINE_EXCEEDED" in line
        assert "deadline passed" in line

    async def test_a_timeout_of_the_engines_own_is_a_bug_and_not_the_deadline(
        self, stub: pb_grpc.RecommendationServiceStub, recommender: SteeredRecommender
    ) -> None:
        recommender.error = lambda: TimeoutError("some socket")
        refusal = await refusal_of(stub.Recommend(REQUEST, timeout=10))
        assert refusal.code is grpc.StatusCode.INTERNAL

    async def test_a_request_that_is_late_already_is_not_started(
        self,
        server: Server,
        stub: pb_grpc.RecommendationServiceStub,
        recommender: SteeredRecommender,
    ) -> None:
        """The second request arrives while the first one holds the event loop, until long after its deadline.

        The caller runs in a thread, so that it goes on while the server's loop is held.
        """
        recommender.block_s = 0.6

        def call_twice() -> grpc.StatusCode:
            with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
                blocking_stub = pb_grpc.RecommendationServiceStub(channel)
                first = blocking_stub.Recommend.future(REQUEST, timeout=10)
                while not recommender.queries:
                    time.sleep(0.001)
                late = pb.RecommendRequest(user_id="late", surface="home")
                code = blocking_stub.Recommend.future(late, timeout=0.2).code()
                first.result()
                return code

        assert await asyncio.to_thread(call_twice) is grpc.StatusCode.DEADLINE_EXCEEDED
        # Whatever the server would still do for the late one, it has done by the time that another call is through.
        recommender.block_s = 0
        await stub.Recommend(REQUEST, timeout=10)
        assert [query.user_id for query in recommender.queries] == ["u1", "u1"]
        await until(lambda: server.in_flight == 0)

    async def test_admission_itself_refuses_a_late_call(self) -> None:
        """A real context, kept by a handler until its deadline has passed without the event loop hearing of it."""
        admission = Admission(concurrency_limit=1)
        admission.open()
        outcome: list[Exception] = []

        async def dawdle(raw: bytes, context: grpc.aio.ServicerContext) -> bytes:
            time.sleep(0.15)
            try:
                admission.enter(context)
            except DeadlineExceeded as error:
                outcome.append(error)
            return raw

        server = grpc.aio.server()
        handlers = {"Dawdle": grpc.unary_unary_rpc_method_handler(dawdle)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Late", handlers),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            with pytest.raises(grpc.aio.AioRpcError):
                await channel.unary_unary("/test.Late/Dawdle")(b"", timeout=0.1)
        await server.stop(None)

        assert [str(error) for error in outcome] == ["the deadline had passed before the request was started"]
        assert admission.in_flight == 0

    async def test_a_client_that_leaves_cancels_the_work_and_is_no_error(
        self,
        stub: pb_grpc.RecommendationServiceStub,
        recommender: SteeredRecommender,
        server: Server,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        caplog.set_level(logging.DEBUG, "engine")
        recommender.gate = asyncio.Event()
        call = stub.Recommend(REQUEST, timeout=10)
        await asyncio.wait_for(recommender.started.wait(), 10)
        call.cancel()
        await until(lambda: server.in_flight == 0)

        assert (recommender.cancelled, recommender.finished) == (1, 0)
        (record,) = [record for record in caplog.records if record.name.startswith("engine")]
        assert (record.levelno, record.args["code"]) == (logging.DEBUG, "CANCELLED")


class TestConcurrencyLimit:
    async def test_past_it_the_answer_is_a_refusal_at_once(
        self, start_server: StartServer, open_channel: OpenChannel, recommender: SteeredRecommender
    ) -> None:
        server = await start_server(max_concurrent_requests=2, request_timeout_ms=30_000)
        channel = open_channel(server)
        stub = pb_grpc.RecommendationServiceStub(channel)
        recommender.gate = asyncio.Event()
        running = [asyncio.ensure_future(answer_of(stub.Recommend(REQUEST, timeout=30))) for _ in range(2)]
        await until(lambda: len(recommender.queries) == 2)

        refusal = await refusal_of(stub.Recommend(REQUEST, timeout=30))
        assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert refusal.info.reason == "OVERLOADED"
        assert len(recommender.queries) == 2

        health = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
        assert health.status == health_pb2.HealthCheckResponse.SERVING

        recommender.gate.set()
        assert [len(response.items) for response in await asyncio.gather(*running)] == [50, 50]
        await until(lambda: server.in_flight == 0)
        await stub.Recommend(REQUEST, timeout=30)

    async def test_the_backstop_counts_every_call(
        self, start_server: StartServer, open_channel: OpenChannel, recommender: SteeredRecommender
    ) -> None:
        server = await start_server(max_concurrent_requests=1, other_calls=4)
        channel = open_channel(server)
        watches = [
            health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=30) for _ in range(5)
        ]
        for watch in watches:
            await watch.read()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await pb_grpc.RecommendationServiceStub(channel).Recommend(REQUEST, timeout=30)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert recommender.queries == []

    async def test_health_watches_of_one_client_keep_nobody_out(
        self, server: Server, open_channel: OpenChannel, recommender: SteeredRecommender
    ) -> None:
        # Connections of their own: channels to one address share one otherwise.
        own = [("grpc.use_local_subchannel_pool", 1)]
        watching = [grpc.aio.insecure_channel(f"127.0.0.1:{server.port}", own) for _ in range(6)]
        watches = []
        for channel in watching:
            for _ in range(200):
                watches.append(health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=60))
                if len(watches) % 10 == 0:
                    await asyncio.gather(*(watch.read() for watch in watches[-10:]))
        response = await pb_grpc.RecommendationServiceStub(open_channel(server)).Recommend(REQUEST, timeout=30)
        assert len(response.items) == 50
        for channel in watching:
            await channel.close()

    async def test_every_way_to_end_gives_the_place_back(
        self, start_server: StartServer, open_channel: OpenChannel, recommender: SteeredRecommender
    ) -> None:
        server = await start_server(max_concurrent_requests=1)
        stub = pb_grpc.RecommendationServiceStub(open_channel(server))

        async def ends_with(
            code: grpc.StatusCode, request: pb.RecommendRequest = REQUEST, timeout_s: float = 10
        ) -> None:
            assert (await refusal_of(stub.Recommend(request, timeout=timeout_s))).code is code
            await until(lambda: server.in_flight == 0)

        await ends_with(grpc.StatusCode.INVALID_ARGUMENT, pb.RecommendRequest())
        recommender.error = lambda: RuntimeError("bug")
        await ends_with(grpc.StatusCode.INTERNAL)
        recommender.error, recommender.sleep_s = None, 10
        await ends_with(grpc.StatusCode.DEADLINE_EXCEEDED, timeout_s=0.05)


class TestErrors:
    @pytest.mark.parametrize(
        "error", [RuntimeError("password=hunter2"), BundleError("hunter2"), AssertionError("hunter2")]
    )
    async def test_internal_hides_the_message_and_the_log_has_it(
        self,
        error: Exception,
        stub: pb_grpc.RecommendationServiceStub,
        recommender: SteeredRecommender,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        recommender.error = lambda: error
        refusal = await refusal_of(
            stub.Recommend(pb.RecommendRequest(user_id="u", surface="home", request_id="r-3"), timeout=10)
        )

        assert refusal.code is grpc.StatusCode.INTERNAL
        assert refusal.text == "internal error (request r-3)"
        assert refusal.info.reason == "INTERNAL"
        assert not any(word in str(value) for value in refusal.metadata.values() for word in ("hunter2", "Traceback"))
        (record,) = [record for record in caplog.records if record.name == "engine.rpc.access"]
        assert record.levelno == logging.ERROR
        assert record.exc_info is not None
        assert record.exc_info[1] is error
        assert "request_id=r-3" in record.getMessage()

    async def test_an_engine_error_keeps_its_text(
        self, stub: pb_grpc.RecommendationServiceStub, recommender: SteeredRecommender
    ) -> None:
        recommender.error = lambda: DependencyUnavailable("Redis at cache:6379 does not answer")
        refusal = await refusal_of(stub.Recommend(REQUEST, timeout=10))

        assert refusal.code is grpc.StatusCode.UNAVAILABLE
        assert refusal.info.reason == "DEPENDENCY_UNAVAILABLE"
        assert refusal.text == "Redis at cache:6379 does not answer"

    async def test_an_unknown_method(self, server: Server, open_channel: OpenChannel) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await open_channel(server).unary_unary("/engine.v1.RecommendationService/Guess")(b"", timeout=10)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
