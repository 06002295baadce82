"""ExperimentService over a real socket and a real archive."""

import asyncio
import datetime
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.json_format import ParseDict

from engine.cli.main import app
from engine.errors import DependencyUnavailable, InvalidRequest, Overloaded
from engine.experiments.analysis.files import Archive
from engine.experiments.analysis.report_query import ReportQuery
from engine.experiments.analysis.report_service import ReportService
from engine.rpc.server import Server
from engine_client import AsyncRecommendationClient, RecommendationClient
from engine_client.v1 import experiment_pb2 as pb
from engine_client.v1 import experiment_pb2_grpc as pb_grpc
from tests.engine.experiments.analysis.shop import Shop, open_shop
from tests.engine.rpc.conftest import OpenChannel, StartServer, refusal_of, until

GetReport = Callable[..., Awaitable[pb.ExperimentReport]]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return open_shop(tmp_path_factory.mktemp("rpc-shop"), seed=10, shop=Shop(users=600, surfaces=("home",)))


def desk_of(archive: Path) -> ReportService:
    limits = {"cache_s": 60, "max_concurrent": 1, "max_waiting": 2, "memory_mb": 512}
    return ReportService(Archive.within(archive), lambda: None, lambda question: question, **limits)


@pytest.fixture
def desk(archive: Path) -> "ReportService":
    return desk_of(archive)


@pytest.fixture
async def server(start_server: StartServer, desk: ReportService) -> AsyncIterator[Server]:
    yield await start_server(reporter=desk)
    desk.close()


@pytest.fixture(params=["async", "blocking"])
def get_report(request: pytest.FixtureRequest, server: Server) -> GetReport:
    """get_report of either client."""
    target = f"127.0.0.1:{server.port}"

    async def asynchronous(*arguments: Any, **fields: Any) -> pb.ExperimentReport:
        async with AsyncRecommendationClient(target) as client:
            return await client.get_report(*arguments, **fields)

    def blocking(*arguments: Any, **fields: Any) -> pb.ExperimentReport:
        with RecommendationClient(target) as client:
            return client.get_report(*arguments, **fields)

    if request.param == "async":
        return asynchronous
    return lambda *arguments, **fields: asyncio.to_thread(blocking, *arguments, **fields)


async def test_it_is_the_report_of_the_command_line(
    get_report: GetReport, archive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = await get_report("worth", shares={"control": 1, "engine": 1})
    command = ["experiment", "report", "worth", "--archive", str(archive), "--shares", "control=1,engine=1"]
    await asyncio.to_thread(app, [*command, "--json", "-"], standalone_mode=False)
    assert report == ParseDict(json.loads(capsys.readouterr().out), pb.ExperimentReport())
    assert len(report.comparisons) == 5


async def test_a_period(get_report: GetReport) -> None:
    begin = datetime.datetime(2026, 3, 3, tzinfo=datetime.UTC)
    report = await get_report("worth", served_from=begin, served_to=begin + datetime.timedelta(days=2))
    assert begin.timestamp() * 1000 <= report.first_ms < report.last_ms < (begin.timestamp() + 2 * 86_400) * 1000
    with pytest.raises(InvalidRequest, match="zone"):
        await get_report("worth", served_from=begin.replace(tzinfo=None))


async def test_refusals(get_report: GetReport, server: Server, open_channel: OpenChannel) -> None:
    with pytest.raises(InvalidRequest, match="no exposures of 'other'"):
        await get_report("other")
    with pytest.raises(InvalidRequest, match="experiment: must not be empty"):
        await get_report("")
    with pytest.raises(InvalidRequest, match="shares: must be above 0"):
        await get_report("worth", shares={"control": 0})
    moment = datetime.datetime(2026, 3, 3, tzinfo=datetime.UTC)
    with pytest.raises(InvalidRequest, match="served_to: must be later"):
        await get_report("worth", served_from=moment, served_to=moment)
    stub = pb_grpc.ExperimentServiceStub(open_channel(server))
    refusal = await refusal_of(stub.GetReport(pb.GetReportRequest(experiment="worth", control="x"), timeout=60))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.fields == ["control"]


async def test_without_an_archive_there_is_no_such_service(
    start_server: StartServer, open_channel: OpenChannel
) -> None:
    stub = pb_grpc.ExperimentServiceStub(open_channel(await start_server()))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.GetReport(pb.GetReportRequest(experiment="worth"), timeout=10)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_one_question_is_one_report(desk: ReportService) -> None:
    question = ReportQuery("worth")
    first, second = await asyncio.gather(desk.report(question), desk.report(question))
    assert first is second
    assert await desk.report(ReportQuery("worth")) is first
    assert await desk.report(ReportQuery("worth", surface="home")) is not first
    desk.close()


async def test_too_many_at_once(desk: ReportService) -> None:
    running = [asyncio.ensure_future(desk.report(ReportQuery("worth", from_ms=n))) for n in range(1, 3)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await desk.report(ReportQuery("worth", from_ms=3))
    # Who leaves takes nothing from the others.
    running[0].cancel()
    assert (await running[1])["experiment"] == "worth"
    await until(lambda: not desk.making)
    assert await desk.report(ReportQuery("worth", from_ms=1)) is not None
    desk.close()


async def test_an_archive_that_is_away(tmp_path: Path) -> None:
    desk = desk_of(tmp_path)
    with pytest.raises(DependencyUnavailable, match="the archive cannot be read"):
        await desk.report(ReportQuery("worth"))
    # What failed is tried again.
    open_shop(tmp_path, seed=1, shop=Shop(users=300, days=3))
    assert (await desk.report(ReportQuery("worth")))["control"] == "control"
    desk.close()
