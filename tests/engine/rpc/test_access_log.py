"""What is written of a call, and what is not."""

import asyncio
import logging
import time

import pytest

from engine_client.v1 import recommendation_pb2 as pb
from engine_client.v1 import recommendation_pb2_grpc as pb_grpc
from tests.engine.rpc.conftest import OpenChannel, StartServer, answer_of, refusal_of, until
from tests.engine.rpc.recommender import SteeredRecommender

REQUEST = pb.RecommendRequest(user_id="u1", surface="home")


class TestAccessLog:
    async def test_successes_are_sampled(
        self, start_server: StartServer, open_channel: OpenChannel, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "engine.rpc.access")
        server = await start_server(access_log_every=5, request_timeout_ms=10_000)
        stub = pb_grpc.RecommendationServiceStub(open_channel(server))
        for _ in range(10):
            await stub.Recommend(REQUEST, timeout=10)

        lines = [record for record in caplog.records if record.name == "engine.rpc.access"]
        assert len(lines) == 2
        assert lines[0].args["code"] == "OK"
        assert lines[0].args["method"] == "/engine.v1.RecommendationService/Recommend"
        assert lines[0].args["duration_ms"] > 0

    async def test_all_of_them_at_debug(
        self, stub: pb_grpc.RecommendationServiceStub, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG, "engine.rpc.access")
        await stub.Recommend(REQUEST, timeout=10)
        assert len([record for record in caplog.records if record.name == "engine.rpc.access"]) == 1

    async def test_bad_requests_are_logged_without_a_traceback(
        self, stub: pb_grpc.RecommendationServiceStub, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "engine.rpc.access")
        await refusal_of(stub.Recommend(pb.RecommendRequest(), timeout=10))
        (record,) = [record for record in caplog.records if record.name == "engine.rpc.access"]
        assert (record.levelno, record.exc_info) == (logging.INFO, None)
        assert "user_id: must not be empty" in record.getMessage()

    async def test_refusals_share_a_log_line(
        self,
        start_server: StartServer,
        open_channel: OpenChannel,
        recommender: SteeredRecommender,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        stub = pb_grpc.RecommendationServiceStub(
            open_channel(await start_server(max_concurrent_requests=1, request_timeout_ms=30_000))
        )
        recommender.gate = asyncio.Event()
        running = asyncio.ensure_future(answer_of(stub.Recommend(REQUEST, timeout=30)))
        await until(lambda: len(recommender.queries) == 1)
        started = time.monotonic()
        for _ in range(20):
            await refusal_of(stub.Recommend(REQUEST, timeout=30))
        seconds = time.monotonic() - started
        recommender.gate.set()
        await running
        lines = [record for record in caplog.records if "OVERLOADED" in record.getMessage()]
        assert 1 <= len(lines) <= 1 + seconds
