"""A real server on a real socket, and what calls it."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from engine.rpc.server import Server, create_server
from engine_client.v1 import recommendation_pb2_grpc as pb_grpc
from tests.engine.rpc.config import server_config
from tests.engine.rpc.recommender import SteeredRecommender

StartServer = Callable[..., Awaitable[Server]]
OpenChannel = Callable[[Server], grpc.aio.Channel]

# What `create_server` takes beside the settings.
_OPTIONS = {"event_log", "reporter", "shares_port", "access_log_every", "other_calls"}


@pytest.fixture
def recommender() -> SteeredRecommender:
    return SteeredRecommender()


@pytest.fixture
async def start_server(recommender: SteeredRecommender) -> AsyncIterator[StartServer]:
    """Starts servers on free ports, serving at once unless told otherwise; stops them all at the end."""
    servers: list[Server] = []

    async def start(*, serving: bool = True, **values: Any) -> Server:
        options = {name: values.pop(name) for name in _OPTIONS & values.keys()}
        server = create_server(recommender, server_config(("home", "cart"), **values), **options)
        servers.append(server)
        await server.start()
        if serving:
            server.set_serving()
        return server

    yield start
    for server in servers:
        await server.stop(0)


@pytest.fixture
async def server(start_server: StartServer) -> Server:
    # Wide enough that a busy machine does not decide a test that is not about time.
    return await start_server(request_timeout_ms=10_000)


@pytest.fixture
async def open_channel() -> AsyncIterator[OpenChannel]:
    channels: list[grpc.aio.Channel] = []

    def open_to(server: Server) -> grpc.aio.Channel:
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{server.port}")
        channels.append(channel)
        return channel

    yield open_to
    for channel in channels:
        await channel.close(None)


@pytest.fixture
def stub(server: Server, open_channel: OpenChannel) -> pb_grpc.RecommendationServiceStub:
    return pb_grpc.RecommendationServiceStub(open_channel(server))


class Refusal:
    """A failed call, its rich status taken apart."""

    def __init__(self, error: grpc.aio.AioRpcError) -> None:
        self.code = error.code()
        self.text = error.details()
        self.metadata = dict(error.trailing_metadata())
        self.info = error_details_pb2.ErrorInfo()
        self.bad_request = error_details_pb2.BadRequest()
        # A deadline of the client's own ends the call there: the server's word does not arrive.
        status = rpc_status.from_call(error)
        for detail in () if status is None else status.details:
            detail.Unpack(self.info)
            detail.Unpack(self.bad_request)

    @property
    def fields(self) -> list[str]:
        return [violation.field for violation in self.bad_request.field_violations]


async def refusal_of(call: Awaitable[Any]) -> Refusal:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return Refusal(caught.value)


async def answer_of(call: Awaitable[Any]) -> Any:
    """The call as a coroutine, which asyncio can make a task of."""
    return await call


async def until(condition: Callable[[], bool], timeout_s: float = 10) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.005)
