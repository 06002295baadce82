"""Which outcomes of a request are logged, and as what."""

import asyncio
import time
from collections.abc import Callable

import pytest

from engine.contract.exposures import Exposure, Failure
from engine.errors import DependencyUnavailable, EngineError, InvalidRequest
from engine.experiments.exposure import LoggedRecommender
from engine.types import ExperimentAssignment, RecommendQuery
from tests.engine.rpc.recommender import SteeredRecommender

ASSIGNED = (ExperimentAssignment("worth", "engine"),)
QUERY = RecommendQuery("u", "home", 3, 0, request_id="r")


class Logged:
    def __init__(self) -> None:
        self.inner = SteeredRecommender()
        self.offered: list[Exposure | Failure] = []
        self.recommender = LoggedRecommender(self.inner, self, lambda query: ASSIGNED)

    def offer(self, exposure: Exposure | Failure) -> None:
        self.offered.append(exposure)

    async def cut_off(self, deadline: float) -> None:
        """Cancel a request that is under way, as gRPC does at the deadline and when the caller leaves."""
        self.inner.gate = asyncio.Event()
        task = asyncio.create_task(self.recommender.recommend(QUERY, deadline, deadline))
        await self.inner.started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


def assert_now(found_ms: int) -> None:
    """Milliseconds since 1970, within a minute: a machine may be slow, and another unit is far off."""
    assert abs(found_ms - time.time() * 1000) < 60_000


def failing(make: Callable[[], BaseException]) -> Logged:
    logged = Logged()
    logged.inner.error = make
    return logged


@pytest.mark.parametrize(
    ("error", "said"),
    [(DependencyUnavailable("away"), "dependency_unavailable"), (ValueError("a bug"), "internal")],
)
async def test_what_fails_is_logged_and_raised(error: Exception, said: str) -> None:
    logged = failing(lambda: error)
    with pytest.raises(type(error)):
        await logged.recommender.recommend(QUERY, time.monotonic() + 1)
    [failure] = logged.offered
    assert isinstance(failure, Failure)
    assert (failure.query, failure.experiments, failure.error) == (QUERY, ASSIGNED, said)
    assert_now(failure.failed_ms)


async def test_the_callers_mistakes_are_not() -> None:
    logged = failing(lambda: InvalidRequest("surface", "is none"))
    with pytest.raises(EngineError):
        await logged.recommender.recommend(QUERY, time.monotonic() + 1)
    assert logged.offered == []


async def test_a_caller_who_leaves_is_no_failure_and_a_deadline_is_one() -> None:
    early, late, just_over = Logged(), Logged(), Logged()
    await early.cut_off(time.monotonic() + 60)
    await late.cut_off(time.monotonic() - 1)
    await just_over.cut_off(time.monotonic())
    assert early.offered == []
    for logged in (late, just_over):
        [failure] = logged.offered
        assert isinstance(failure, Failure)
        assert failure.error == "deadline_exceeded"


async def test_answers_are_logged_as_before() -> None:
    logged = Logged()
    answer = await logged.recommender.recommend(QUERY, time.monotonic() + 1)
    [exposure] = logged.offered
    assert isinstance(exposure, Exposure)
    assert exposure.recommendation is answer
    assert_now(exposure.served_ms)
