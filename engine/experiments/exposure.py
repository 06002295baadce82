"""What was served, logged beside the answers: a request hands over what it has, and everything else happens later."""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple, Protocol

from engine.contract.exposures import Exposure, Failure
from engine.errors import DeadlineExceeded, DependencyUnavailable, InvalidRequest, Overloaded
from engine.types import ExperimentAssignment, Recommendation, RecommendQuery

_ERRORS: Final[Mapping[type[BaseException], str]] = {
    DeadlineExceeded: "deadline_exceeded",
    Overloaded: "overloaded",
    DependencyUnavailable: "dependency_unavailable",
}
_INTERNAL: Final = "internal"
# The caller's clock ends the call, and a message on its way; this server's idea of the same instant is a little later.
DEADLINE_TOLERANCE_S: Final = 0.005


class ExposureCounts(NamedTuple):
    """What became of exposures since the start.

    logged: in the log. refused: dropped since too many waited. failed: dropped since the log did not take them in time.
    """

    logged: int
    refused: int
    failed: int


class ExposureLog(Protocol):
    """Where exposures go."""

    def offer(self, exposure: Exposure | Failure) -> None:
        """Take an exposure or a failure, or drop and count it. Never waits and never raises. Cost: a microsecond."""
        ...


class Recommender(Protocol):
    """What the service needs from the engine."""

    async def recommend(
        self, query: RecommendQuery, answer_by: float, deadline: float = float("inf")
    ) -> Recommendation:
        """The answer to one valid query.

        Args:
            query: every field checked.
            answer_by: a time.monotonic() instant, in seconds: what is not ready then is answered otherwise, at once.
            deadline: such an instant, too: the caller's own, after which nobody waits. The task is cancelled then, or
                when the caller leaves before.

        Raises:
            DeadlineExceeded: the deadline, not answer_by, has passed. EngineError: for the caller to see; anything
                else is shown as an internal error.
        """
        ...


class LoggedRecommender:
    """A recommender whose answers are logged as they are served. Implements Recommender.

    Requests that fail are logged, too, with the variants that they were assigned: a variant that fails for some users
    would otherwise only miss them. What the caller did wrong, or no longer waits for, is no failure.

    Args:
        assign: the variants of a request.
    """

    def __init__(
        self,
        recommender: Recommender,
        exposures: ExposureLog,
        assign: Callable[[RecommendQuery], tuple[ExperimentAssignment, ...]],
    ) -> None:
        self._recommender = recommender
        self._exposures = exposures
        self._assign = assign

    async def recommend(
        self, query: RecommendQuery, answer_by: float, deadline: float = float("inf")
    ) -> Recommendation:
        try:
            recommendation = await self._recommender.recommend(query, answer_by, deadline)
        except InvalidRequest:
            raise
        except asyncio.CancelledError:
            # gRPC cancels at the caller's deadline; before it, the caller has left.
            if time.monotonic() >= deadline - DEADLINE_TOLERANCE_S:
                self._fail(query, _ERRORS[DeadlineExceeded])
            raise
        except Exception as error:
            self._fail(query, _ERRORS.get(type(error), _INTERNAL))
            raise
        self._exposures.offer(Exposure(query, recommendation, time.time_ns() // 1_000_000))
        return recommendation

    def _fail(self, query: RecommendQuery, error: str) -> None:
        self._exposures.offer(Failure(query, self._assign(query), time.time_ns() // 1_000_000, error))
