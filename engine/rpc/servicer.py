"""RecommendationService: validate, ask the recommender, convert. Everything else is the interceptor's."""

import asyncio
import time
from collections.abc import Iterable
from typing import Any, Protocol

import grpc

from engine.errors import DeadlineExceeded
from engine.rpc.convert import to_response
from engine.rpc.validate import to_query
from engine.types import Recommendation, RecommendQuery
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
        query = to_query(request, self._surfaces)
        budget_s = self._budget_s(context.time_remaining())
        deadline = time.monotonic() + budget_s
        try:
            # Relative, because an event loop's clock need not be time.monotonic (uvloop's is not).
            async with asyncio.timeout(budget_s) as cutoff:
                recommendation = await self._recommender.recommend(query, deadline)
        except TimeoutError as error:
            if cutoff.expired():
                raise DeadlineExceeded(f"no answer within {budget_s * 1000:.0f} ms") from error
            raise
        return to_response(recommendation, request_id=query.request_id, debug=query.debug)

    def _budget_s(self, client_remaining_s: float | None) -> float:
        return self._timeout_s if client_remaining_s is None else min(client_remaining_s, self._timeout_s)
