"""Garbage instead of a message."""

import grpc
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from engine.rpc.server import Server
from engine_client.v1 import recommendation_pb2 as pb
from tests.engine.rpc.conftest import OpenChannel, Refusal

REQUEST = pb.RecommendRequest(user_id="u1", surface="home")


@pytest.fixture
def fuzzed(server: Server, open_channel: OpenChannel) -> grpc.aio.UnaryUnaryMultiCallable:
    """Recommend with raw bytes on both ends."""
    return open_channel(server).unary_unary("/engine.v1.RecommendationService/Recommend")


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
@given(raw=st.binary(max_size=400))
@example(raw=b"")
@example(raw=b"\x0a\x02\xff\xff")  # user_id that is not UTF-8
@example(raw=b"\x0a\xff\xff\xff\xff\x0f")  # a length beyond the end
@example(raw=REQUEST.SerializeToString() + b"\x0b" * 300)  # groups nested without end
async def test_random_bytes_never_break_the_server(raw: bytes, fuzzed: grpc.aio.UnaryUnaryMultiCallable) -> None:
    try:
        await fuzzed(raw, timeout=10)
    except grpc.aio.AioRpcError as error:
        refusal = Refusal(error)
        assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
        assert refusal.info.reason == "INVALID_REQUEST"
        assert "Traceback" not in refusal.text
        assert "Error" not in refusal.text
    await fuzzed(REQUEST.SerializeToString(), timeout=10)
