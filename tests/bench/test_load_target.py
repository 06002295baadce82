"""What answers over a real socket become."""

import asyncio
from typing import Any

import grpc
import pytest

from engine_bench.load_driver import Status, drive, plan
from engine_bench.load_target import ITEM_COUNT, SURFACE, GrpcTarget, null_server
from engine_client.v1 import recommendation_pb2 as pb
from engine_client.v1 import recommendation_pb2_grpc as pb_grpc

CODES = {
    "deadline": (grpc.StatusCode.DEADLINE_EXCEEDED, Status.DEADLINE),
    "full": (grpc.StatusCode.RESOURCE_EXHAUSTED, Status.EXHAUSTED),
    "away": (grpc.StatusCode.UNAVAILABLE, Status.UNAVAILABLE),
    "bug": (grpc.StatusCode.INTERNAL, Status.OTHER),
}


class Servicer(pb_grpc.RecommendationServiceServicer):
    """Fails for those whose id says so, and notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[pb.RecommendRequest] = []

    async def Recommend(self, request: pb.RecommendRequest, context: Any) -> pb.RecommendResponse:  # noqa: N802
        self.asked.append(request)
        if request.user_id in CODES:
            await context.abort(CODES[request.user_id][0], "as asked for")
        debug = pb.DebugInfo(stages=[pb.StageTiming(stage="rank", duration_ms=1.5)]) if request.debug else None
        degraded = [pb.DEGRADED_REASON_RANKING_SKIPPED] if request.user_id == "degraded" else []
        return pb.RecommendResponse(degraded_reasons=degraded, debug=debug)


async def test_answers_statuses_and_stages() -> None:
    servicer, server = Servicer(), grpc.aio.server()
    pb_grpc.add_RecommendationServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    target = GrpcTarget(f"127.0.0.1:{port}")
    users = [*CODES, "degraded", "well"]
    schedule = plan("constant", 200.0, 0.4, len(users), 1, debug_every=2)
    try:
        await target.connect()
        record = await drive(target.asked_by(schedule, users), schedule)
    finally:
        await target.close()
        await server.stop(None)
    expected = {name: status for name, (_, status) in CODES.items()} | {"degraded": Status.OK, "well": Status.OK}
    names = [users[user] for user in schedule.users]
    assert record.status.tolist() == [expected[name] for name in names]
    assert record.degraded.tolist() == [name == "degraded" for name in names]
    answered = [place for place, name in enumerate(names) if expected[name] is Status.OK]
    assert record.stages_ms == {place: {"rank": 1.5} for place in answered if schedule.debug[place]}
    assert sorted(request.user_id for request in servicer.asked) == sorted(names)
    assert {(request.surface, request.item_count) for request in servicer.asked} == {(SURFACE, ITEM_COUNT)}


async def test_nobody_there_is_unavailable() -> None:
    target = GrpcTarget("127.0.0.1:1")
    schedule = plan("constant", 100.0, 0.05, 1, 0)
    try:
        record = await drive(target.asked_by(schedule, ["u"]), schedule)
    finally:
        await target.close()
    assert set(record.status.tolist()) <= {Status.UNAVAILABLE, Status.DEADLINE}


async def test_the_null_server_answers_and_ends() -> None:
    with null_server() as address:
        target = GrpcTarget(address)
        schedule = plan("poisson", 50.0, 0.5, 1, 0)
        try:
            await target.connect()
            record = await drive(target.asked_by(schedule, ["u"]), schedule)
        finally:
            await target.close()
    assert (record.status == Status.OK).all()
    host, port = address.split(":")
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(host, int(port))
