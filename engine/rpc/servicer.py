"""RecommendationService: validate, ask the recommender, convert. Everything else is the interceptor's."""

import asyncio
import time
from collections.abc import Iterable
from typing import Any, Protocol

import grpc

from engine.errors import DeadlineExceeded
from engine.rpc.convert import add_debug, to_response
from engine.rpc.validate import to_query
from engine.types import Recommendation, RecommendQuery, StageTiming
from engine.v1 import recommendation_pb2 as pb
from engine.v1 import recommendation_pb2_grpc as pb_grpc


class Recommender(Protocol):
    """What the service needs from the engine."""

    async def recommend(self, query: RecommendQuery, deadline: float) -> Recommendation:
        """The answer to one valid query.

        Args:
            query: every field checked.
            deadline: a time.monotonic() instant, in seconds. The task is cancelled when it passes.

        Raises:
            EngineError: for the caller to see; anything else is shown as an internal error.
        """
        ...


class RecommendationServicer(pb_grpc.RecommendationServiceServicer):
    """The service over one recommender.

    Args:
        recommender: the engine.
        surfaces: those that it answers for; any other is refused.
        request_timeout_ms: the longest that one request may take; a client's shorter deadline wins.
    """

    def __init__(self, recommender: Recommender, surfaces: Iterable[str], request_timeout_ms: float) -> None:
        self._recommender = recommender
        self._surfaces = frozenset(surfaces)
        self._timeout_s = request_timeout_ms / 1000

    async def Recommend(  # noqa: N802
        self, request: pb.RecommendRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.RecommendResponse:
        received = time.perf_counter()
        query = to_query(request, self._surfaces)
        budget_s = self._budget_s(context.time_remaining())
        deadline = time.monotonic() + budget_s
        asked = time.perf_counter()
        try:
            # Relative, because an event loop's clock need not be time.monotonic (uvloop's is not).
            async with asyncio.timeout(budget_s) as cutoff:
                recommendation = await self._recommender.recommend(query, deadline)
        except TimeoutError as error:
            if cutoff.expired():
                raise DeadlineExceeded(f"no answer within {budget_s * 1000:.0f} ms") from error
            raise
        answered = time.perf_counter()
        response = to_response(recommendation, request_id=query.request_id)
        if query.debug:
            converted = time.perf_counter()
            add_debug(response, recommendation, _with_own(recommendation, received, asked, answered, converted))
        return response

    def _budget_s(self, client_remaining_s: float | None) -> float:
        return self._timeout_s if client_remaining_s is None else min(client_remaining_s, self._timeout_s)


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
