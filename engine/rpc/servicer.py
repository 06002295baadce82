"""RecommendationService: validate, ask the recommender, convert. Everything else is the interceptor's."""

import time
from collections.abc import Iterable
from typing import Any

import grpc

from engine.contract.requests import add_debug, to_query, to_response
from engine.experiments.exposure import Recommender as Recommender
from engine.types import Recommendation, StageTiming
from engine_client.v1 import recommendation_pb2 as pb
from engine_client.v1 import recommendation_pb2_grpc as pb_grpc


class RecommendationServicer(pb_grpc.RecommendationServiceServicer):
    """The service over one recommender.

    Args:
        recommender: the engine.
        surfaces: those that it answers for; any other is refused.
        request_timeout_ms: the longest that one request may take; a client's shorter deadline wins.
        reserve_ms: of that time, what is kept for the answer that the recommender gives when it is late; of little
            time, half at most.
    """

    def __init__(
        self, recommender: Recommender, surfaces: Iterable[str], request_timeout_ms: float, reserve_ms: float
    ) -> None:
        self._recommender = recommender
        self._surfaces = frozenset(surfaces)
        self._timeout_s = request_timeout_ms / 1000
        self._reserve_s = reserve_ms / 1000

    async def Recommend(  # noqa: N802
        self, request: pb.RecommendRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.RecommendResponse:
        received = time.perf_counter()
        query = to_query(request, self._surfaces)
        # gRPC itself cancels this call at the client's deadline.
        remaining_s, now = context.time_remaining(), time.monotonic()
        deadline = float("inf") if remaining_s is None else now + remaining_s
        asked = time.perf_counter()
        recommendation = await self._recommender.recommend(query, now + self._working_s(remaining_s), deadline)
        answered = time.perf_counter()
        response = to_response(recommendation, request_id=query.request_id)
        if query.debug:
            converted = time.perf_counter()
            add_debug(response, recommendation, _with_own(recommendation, received, asked, answered, converted))
        return response

    def _working_s(self, client_remaining_s: float | None) -> float:
        """How long the recommender may work before it must answer with what it has."""
        budget_s = self._timeout_s if client_remaining_s is None else min(client_remaining_s, self._timeout_s)
        return budget_s - min(self._reserve_s, budget_s / 2)


def _with_own(
    recommendation: Recommendation, received: float, asked: float, answered: float, converted: float
) -> tuple[StageTiming, ...]:
    """The engine's stages between the service's own: "receive" checks the request, "return" is the way back from the
    thread that computed the answer, "convert" makes the message. All instants are of time.perf_counter()."""
    inside_ms = sum(timing.duration_ms for timing in recommendation.timings if timing.stage == "total")
    return (
        StageTiming("receive", (asked - received) * 1000.0),
        *recommendation.timings,
        StageTiming("return", max(0.0, (answered - asked) * 1000.0 - inside_ms)),
        StageTiming("convert", (converted - answered) * 1000.0),
    )
