"""The life of a server: ports, health, reflection, drain, signals."""

import asyncio
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from engine.errors import ConfigError
from engine.rpc.port import address_of
from engine.rpc.server import SERVICE_NAME, Server, create_server
from engine_client import AsyncRecommendationClient
from engine_client.v1 import recommendation_pb2 as pb
from engine_client.v1 import recommendation_pb2_grpc as pb_grpc
from tests.engine.rpc.config import server_config
from tests.engine.rpc.conftest import OpenChannel, StartServer, answer_of, refusal_of, until
from tests.engine.rpc.recommender import SteeredRecommender

REQUEST = pb.RecommendRequest(user_id="u1", surface="home")
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def health_of(channel: grpc.aio.Channel, service: str) -> int:
    response = await health_pb2_grpc.HealthStub(channel).Check(
        health_pb2.HealthCheckRequest(service=service), timeout=10
    )
    return response.status


class TestHealth:
    @pytest.mark.parametrize("service", ["", SERVICE_NAME])
    async def test_not_serving_until_told(
        self, service: str, start_server: StartServer, open_channel: OpenChannel
    ) -> None:
        server = await start_server(serving=False)
        channel = open_channel(server)
        assert await health_of(channel, service) == NOT_SERVING
        server.set_serving()
        assert await health_of(channel, service) == SERVING

    async def test_an_unknown_service_is_not_found(self, server: Server, open_channel: OpenChannel) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await health_of(open_channel(server), "no.such.Service")
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND

    async def test_watch_tells_each_change_and_ends_with_the_drain(
        self, start_server: StartServer, open_channel: OpenChannel
    ) -> None:
        server = await start_server(serving=False)
        watch = health_pb2_grpc.HealthStub(open_channel(server)).Watch(health_pb2.HealthCheckRequest(), timeout=30)
        statuses = [(await watch.read()).status]
        server.set_serving()
        statuses.append((await watch.read()).status)
        started = time.monotonic()
        stop = asyncio.ensure_future(server.stop(20))
        statuses.append((await watch.read()).status)

        assert statuses == [NOT_SERVING, SERVING, NOT_SERVING]
        assert await watch.read() is grpc.aio.EOF
        await stop
        assert time.monotonic() - started < 10, "a watcher held the drain"

    async def test_requests_before_serving_are_told_to_come_back(
        self, start_server: StartServer, open_channel: OpenChannel, recommender: SteeredRecommender
    ) -> None:
        server = await start_server(serving=False)
        refusal = await refusal_of(pb_grpc.RecommendationServiceStub(open_channel(server)).Recommend(REQUEST))
        assert refusal.code is grpc.StatusCode.UNAVAILABLE
        assert refusal.text == "the server is starting"
        assert recommender.queries == []


class TestReflection:
    def call(self, port: int) -> tuple[list[str], Any]:
        """What a stock client does: it knows the address and learns everything else from the server."""
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            database = ProtoReflectionDescriptorDatabase(channel)
            services = sorted(database.get_services())
            service = DescriptorPool(database).FindServiceByName("engine.v1.RecommendationService")
            method = service.methods_by_name["Recommend"]
            request = GetMessageClass(method.input_type)(user_id="u1", surface="home", item_count=3)
            call = channel.unary_unary(
                f"/{service.full_name}/{method.name}",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=GetMessageClass(method.output_type).FromString,
            )
            return services, call(request, timeout=10)

    async def test_a_client_with_nothing_else_can_call(self, server: Server) -> None:
        services, response = await asyncio.to_thread(self.call, server.port)
        assert services == [
            "engine.v1.RecommendationService",
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection",
            "grpc.reflection.v1alpha.ServerReflection",
        ]
        assert [item.item_id for item in response.items] == ["u1-0", "u1-1", "u1-2"]


class TestDrain:
    async def test_requests_in_flight_finish_and_new_ones_are_turned_away(
        self, server: Server, open_channel: OpenChannel, recommender: SteeredRecommender
    ) -> None:
        stub = pb_grpc.RecommendationServiceStub(open_channel(server))
        recommender.gate = asyncio.Event()
        running = [asyncio.ensure_future(answer_of(stub.Recommend(REQUEST, timeout=30))) for _ in range(5)]
        await until(lambda: len(recommender.queries) == 5)
        stop = asyncio.ensure_future(server.stop(20))
        await asyncio.sleep(0.05)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Recommend(REQUEST, timeout=10)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE

        recommender.gate.set()
        assert [len(response.items) for response in await asyncio.gather(*running)] == [50] * 5
        await asyncio.wait_for(stop, 10)
        await asyncio.wait_for(server.wait_stopped(), 10)
        assert (recommender.finished, recommender.cancelled) == (5, 0)

    async def test_what_outlasts_the_grace_is_cancelled(
        self, server: Server, open_channel: OpenChannel, recommender: SteeredRecommender
    ) -> None:
        recommender.gate = asyncio.Event()
        call = asyncio.ensure_future(
            answer_of(pb_grpc.RecommendationServiceStub(open_channel(server)).Recommend(REQUEST, timeout=30))
        )
        await recommender.started.wait()
        await asyncio.wait_for(server.stop(0.1), 10)
        with pytest.raises(grpc.aio.AioRpcError):
            await call
        assert recommender.finished == 0

    async def test_waiting_for_the_stop_can_be_given_up(self, server: Server) -> None:
        waiting = asyncio.ensure_future(server.wait_stopped())
        await asyncio.sleep(0.01)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await asyncio.wait_for(server.stop(1), 10)


SERVE = """
import asyncio, logging, sys

from engine.rpc.server import create_server, serve_until_signal
from tests.engine.rpc.config import server_config
from tests.engine.rpc.recommender import SteeredRecommender

async def tell_when_started(recommender):
    await recommender.started.wait()
    print("started", flush=True)

async def main():
    recommender = SteeredRecommender()
    recommender.sleep_s = float(sys.argv[1])
    server = create_server(recommender, server_config(request_timeout_ms=60_000))
    await server.start()
    server.set_serving()
    print(server.port, flush=True)
    tell = asyncio.ensure_future(tell_when_started(recommender))
    await serve_until_signal(server, grace_s=30)
    print(f"finished={recommender.finished} cancelled={recommender.cancelled}", flush=True)

logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(message)s")
if "uvloop" in sys.argv:
    import uvloop
    uvloop.run(main())
else:
    asyncio.run(main())
"""


@pytest.fixture
def serve() -> Iterator[Callable[..., tuple["subprocess.Popen[str]", int]]]:
    """Starts SERVE in a process of its own and gives it with its port; ends what is left of it."""
    processes = []

    def start(*arguments: str) -> tuple["subprocess.Popen[str]", int]:
        process = subprocess.Popen([sys.executable, "-c", SERVE, *arguments], stdout=subprocess.PIPE, text=True)
        processes.append(process)
        return process, int(line_of(process))

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def line_of(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().rstrip()


class TestSignals:
    @pytest.mark.parametrize(
        ("number", "loop"), [(signal.SIGTERM, "asyncio"), (signal.SIGINT, "asyncio"), (signal.SIGTERM, "uvloop")]
    )
    def test_a_signal_drains_and_ends_cleanly(
        self, number: signal.Signals, loop: str, serve: Callable[..., tuple["subprocess.Popen[str]", int]]
    ) -> None:
        process, port = serve("0.5", loop)
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = pb_grpc.RecommendationServiceStub(channel).Recommend.future(REQUEST, timeout=30)
            assert line_of(process) == "started"
            process.send_signal(number)
            assert len(call.result().items) == 50
        output, _ = process.communicate(timeout=20)
        assert process.returncode == 0
        assert output.splitlines() == [
            f"{number.name}: draining 1 requests, for at most 30 s",
            "finished=1 cancelled=0",
        ]

    def test_a_second_signal_ends_it_at_once(self, serve: Callable[..., tuple["subprocess.Popen[str]", int]]) -> None:
        process, port = serve("60")
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = pb_grpc.RecommendationServiceStub(channel).Recommend.future(REQUEST, timeout=60)
            assert line_of(process) == "started"
            process.send_signal(signal.SIGTERM)
            assert line_of(process) == "SIGTERM: draining 1 requests, for at most 30 s"
            process.send_signal(signal.SIGTERM)
            output, _ = process.communicate(timeout=20)
            assert call.exception(timeout=10) is not None
        assert process.returncode == 0
        assert output.splitlines() == ["SIGTERM: draining 1 requests, for at most 0 s", "finished=0 cancelled=1"]


class TestPorts:
    async def test_a_port_in_use_is_a_config_error(self, server: Server, recommender: SteeredRecommender) -> None:
        with pytest.raises(ConfigError, match=rf"^cannot listen on 127.0.0.1:{server.port}: the port is in use$"):
            create_server(recommender, server_config(port=server.port))

    async def test_nobody_joins_a_port_that_is_not_shared(
        self, server: Server, recommender: SteeredRecommender
    ) -> None:
        with pytest.raises(ConfigError, match="in use"):
            create_server(recommender, server_config(port=server.port), shares_port=True)

    async def test_a_name_is_in_use_when_one_of_its_addresses_is(
        self, server: Server, recommender: SteeredRecommender
    ) -> None:
        with pytest.raises(ConfigError, match="in use"):
            create_server(recommender, server_config(host="localhost", port=server.port))

    async def test_an_address_of_another_machine(self, recommender: SteeredRecommender) -> None:
        with pytest.raises(ConfigError, match=r"cannot listen on 192\.0\.2\.1:0: Cannot assign"):
            create_server(recommender, server_config(host="192.0.2.1"))

    async def test_a_host_that_does_not_resolve(self, recommender: SteeredRecommender) -> None:
        with pytest.raises(ConfigError, match=r"cannot listen on no\.such\.host\.invalid:0: "):
            create_server(recommender, server_config(host="no.such.host.invalid"))

    async def test_connections_are_renewed_at_their_age_and_no_call_is_lost(
        self, start_server: StartServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO", "engine.rpc.access")
        server = await start_server(
            shares_port=True, max_connection_age_s=0.4, access_log_every=1, request_timeout_ms=10_000
        )
        # The engine's own client: it watches health, and that stream must not hold the old connection.
        async with AsyncRecommendationClient(f"127.0.0.1:{server.port}", timeout_s=10, retries=0) as client:
            for _ in range(150):
                await client.recommend("u1", "home")
                await asyncio.sleep(0.01)
        assert len(set(re.findall(r"peer=(\S+)", caplog.text))) >= 3

    async def test_two_servers_share_a_port_when_asked_to(self, start_server: StartServer) -> None:
        first = await start_server(shares_port=True)
        second = await start_server(shares_port=True, port=first.port)
        assert second.port == first.port

    async def test_the_port_is_free_after_the_stop(self, start_server: StartServer) -> None:
        first = await start_server()
        await first.stop(1)
        assert (await start_server(port=first.port)).port == first.port

    @pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 on this machine")
    def test_ipv6_addresses_get_their_brackets(self) -> None:
        assert address_of("::1", 1) == "[::1]:1"
        assert address_of("[::1]", 1) == "[::1]:1"
