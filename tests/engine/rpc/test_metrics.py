"""What a server counts: in memory over real calls, and in files over several processes."""

import asyncio
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable

import grpc
import pytest
from prometheus_client import CollectorRegistry

from engine.errors import ConfigError
from engine.experiments.exposure import ExposureCounts
from engine.rpc.metrics import STAGE_SAMPLE_EVERY, MeasuredRecommender, ServerMetrics
from engine.rpc.metrics_endpoint import MetricsEndpoint
from engine.rpc.server import Server, create_server
from engine_client.v1 import recommendation_pb2 as pb
from engine_client.v1 import recommendation_pb2_grpc as pb_grpc
from tests.engine.rpc.config import server_config
from tests.engine.rpc.conftest import OpenChannel, answer_of, refusal_of, until
from tests.engine.rpc.recommender import SteeredRecommender

REQUEST = pb.RecommendRequest(user_id="u1", surface="home", item_count=3)
StartMeasured = Callable[..., Awaitable[Server]]


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
async def start_measured(recommender: SteeredRecommender, registry: CollectorRegistry) -> AsyncIterator[StartMeasured]:
    servers: list[Server] = []

    async def start(**settings: int) -> Server:
        metrics = ServerMetrics(registry)
        server = create_server(
            MeasuredRecommender(recommender, metrics),
            server_config(request_timeout_ms=10_000, **settings),
            metrics=metrics,
        )
        servers.append(server)
        await server.start()
        server.set_serving()
        return server

    yield start
    for server in servers:
        await server.stop(0)


async def test_calls_are_counted_by_method_and_status(
    start_measured: StartMeasured, open_channel: OpenChannel, registry: CollectorRegistry
) -> None:
    stub = pb_grpc.RecommendationServiceStub(open_channel(await start_measured()))
    for _ in range(STAGE_SAMPLE_EVERY + 1):
        await stub.Recommend(REQUEST)
    await refusal_of(stub.Recommend(pb.RecommendRequest(user_id="u1", surface="nowhere")))

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(name, labels)

    answers = STAGE_SAMPLE_EVERY + 1
    assert value("engine_requests_total", method="Recommend", code="OK") == answers
    assert value("engine_requests_total", method="Recommend", code="INVALID_ARGUMENT") == 1
    assert value("engine_request_seconds_count", method="Recommend") == answers + 1
    assert value("engine_recommendations_total", strategy="personalized") == answers
    assert value("engine_degraded_total", reason="ranking_skipped") == answers
    assert value("engine_degraded_total", reason="ranking_failed") == 0
    # The first and the ninth; each says 1.25 ms for retrieving.
    assert value("engine_stage_seconds_count", stage="retrieve") == 2
    assert value("engine_stage_seconds_sum", stage="retrieve") == pytest.approx(2 * 0.00125)


async def test_refusals_for_overload_are_counted_and_do_not_make_it_look_fast(
    start_measured: StartMeasured,
    open_channel: OpenChannel,
    recommender: SteeredRecommender,
    registry: CollectorRegistry,
) -> None:
    stub = pb_grpc.RecommendationServiceStub(open_channel(await start_measured(max_concurrent_requests=1)))
    recommender.gate = asyncio.Event()
    held = asyncio.create_task(answer_of(stub.Recommend(REQUEST)))
    await until(lambda: bool(recommender.queries))
    for _ in range(3):
        assert (await refusal_of(stub.Recommend(REQUEST))).code is grpc.StatusCode.RESOURCE_EXHAUSTED
    recommender.gate.set()
    await held
    assert registry.get_sample_value("engine_overload_refusals_total", {"method": "Recommend"}) == 3
    assert registry.get_sample_value("engine_request_seconds_count", {"method": "Recommend"}) == 1


async def test_a_caller_who_goes_away_is_counted_as_cancelled(
    start_measured: StartMeasured,
    open_channel: OpenChannel,
    recommender: SteeredRecommender,
    registry: CollectorRegistry,
) -> None:
    stub = pb_grpc.RecommendationServiceStub(open_channel(await start_measured()))
    recommender.gate = asyncio.Event()
    call = stub.Recommend(REQUEST)
    waiting = asyncio.create_task(answer_of(call))
    await until(lambda: bool(recommender.queries))
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    labels = {"method": "Recommend", "code": "CANCELLED"}
    await until(lambda: registry.get_sample_value("engine_requests_total", labels) == 1)


def test_a_bundle_that_no_longer_serves_counts_as_nought(registry: CollectorRegistry) -> None:
    metrics = ServerMetrics(registry)
    metrics.set_gauges(3, "one")
    metrics.set_gauges(5, "two")
    assert registry.get_sample_value("engine_requests_in_flight") == 5
    assert registry.get_sample_value("engine_bundle_info", {"version": "one"}) == 0
    assert registry.get_sample_value("engine_bundle_info", {"version": "two"}) == 1


def test_what_became_of_exposures_counts_up(registry: CollectorRegistry) -> None:
    metrics = ServerMetrics(registry)
    for counts in (ExposureCounts(5, 0, 0), ExposureCounts(7, 3, 1), ExposureCounts(7, 3, 1)):
        metrics.set_gauges(0, "one", counts)
    assert registry.get_sample_value("engine_exposures_total") == 7
    assert registry.get_sample_value("engine_exposure_drops_total", {"reason": "queue_full"}) == 3
    assert registry.get_sample_value("engine_exposure_drops_total", {"reason": "undelivered"}) == 1


WORKER = """
import os, sys
import grpc
from engine.rpc.metrics import ServerMetrics
metrics = ServerMetrics()
calls, in_flight = int(sys.argv[1]), int(sys.argv[2])
for number in range(calls):
    metrics.ended("/engine.v1.RecommendationService/Recommend", grpc.StatusCode.OK, 0.004)
metrics.set_gauges(in_flight, "seven")
print("counted", flush=True)
sys.stdin.read()
"""


def scrape(endpoint: MetricsEndpoint) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{endpoint.port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}


def test_the_endpoint_adds_up_processes_and_forgets_the_state_of_the_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    with MetricsEndpoint("127.0.0.1", 0) as endpoint:
        for name, value in endpoint.environment.items():
            monkeypatch.setenv(name, value)
        workers = [
            subprocess.Popen([sys.executable, "-c", WORKER, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            for arguments in (("3", "2"), ("5", "4"))
        ]
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline() == b"counted\n"
        endpoint.serving(2)
        figures = scrape(endpoint)
        assert figures['engine_requests_total{code="OK",method="Recommend"}'] == 8
        assert figures['engine_request_seconds_bucket{le="0.005",method="Recommend"}'] == 8
        assert figures['engine_request_seconds_bucket{le="0.0025",method="Recommend"}'] == 0
        assert figures["engine_requests_in_flight"] == 6
        assert figures['engine_bundle_info{version="seven"}'] == 2
        assert figures["engine_workers_serving"] == 2
        workers[0].kill()
        workers[0].wait()
        endpoint.ended(workers[0].pid, unexpected=True)
        workers[1].communicate(timeout=30)
        figures = scrape(endpoint)
        assert figures['engine_requests_total{code="OK",method="Recommend"}'] == 8
        assert figures["engine_requests_in_flight"] == 4
        assert figures['engine_bundle_info{version="seven"}'] == 1
        assert figures["engine_worker_ends_total"] == 1


def test_a_metrics_port_in_use_is_a_config_error() -> None:
    with (
        MetricsEndpoint("127.0.0.1", 0) as endpoint,
        pytest.raises(ConfigError, match=f"metrics_port: cannot listen on 127.0.0.1:{endpoint.port}: .*in use"),
    ):
        MetricsEndpoint("127.0.0.1", endpoint.port)
