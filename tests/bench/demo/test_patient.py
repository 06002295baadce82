"""The demonstration's calls against a real server that is late, away or faulty."""

import asyncio
import threading
from collections.abc import Callable, Iterator

import pytest

from engine.errors import DependencyUnavailable, EngineError
from engine.rpc.server import create_server
from engine.types import DegradedReason, Recommendation, RecommendQuery
from engine_bench.demo.patient import PatientClient
from engine_client import RecommendationClient
from engine_client.v1 import recommendation_pb2 as pb
from tests.engine.rpc.config import server_config
from tests.engine.rpc.recommender import answer


class Moody:
    """Raises what it is told to, one after the other, then answers, hurried for a while."""

    def __init__(self) -> None:
        self.errors: list[Exception] = []
        self.hurried = 0
        self.calls = 0

    async def recommend(
        self, query: RecommendQuery, answer_by: float, deadline: float = float("inf")
    ) -> Recommendation:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        found = answer(query)
        if self.hurried:
            self.hurried -= 1
            object.__setattr__(found, "degraded_reasons", (DegradedReason.BUDGET_EXHAUSTED,))
        return found


@pytest.fixture
def moody() -> Moody:
    return Moody()


@pytest.fixture
def port(moody: Moody) -> Iterator[int]:
    """A server in a thread of its own."""
    found: list[int] = []
    stop: Callable[[], None] = lambda: None  # noqa: E731
    ready = threading.Event()

    async def serve() -> None:
        nonlocal stop
        server = create_server(moody, server_config())
        await server.start()
        server.set_serving()
        ended, loop = asyncio.Event(), asyncio.get_running_loop()
        stop = lambda: loop.call_soon_threadsafe(ended.set)  # noqa: E731
        found.append(server.port)
        ready.set()
        await ended.wait()
        await server.stop(0)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    ready.wait(60)
    yield found[0]
    stop()
    thread.join()


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def client(port: int, said: list[str]) -> Iterator[PatientClient]:
    # No retries of the channel's own: what passes unseen is not under test here.
    with RecommendationClient(f"127.0.0.1:{port}", timeout_s=20, retries=0) as inner:
        inner.wait_until_serving()
        yield PatientClient(inner, said.append)


def test_one_call_that_fails_is_said_in_one_line_and_made_again(
    client: PatientClient, moody: Moody, said: list[str]
) -> None:
    moody.errors = [DependencyUnavailable("Redis is away")]
    assert len(client.recommend("u", "home", item_count=3).items) == 3
    [line] = said
    assert "made again" in line
    assert "Redis is away" in line
    assert "\n" not in line


def test_a_hurried_answer_is_asked_for_again(client: PatientClient, moody: Moody, said: list[str]) -> None:
    moody.hurried = 2
    response = client.recommend("u", "home")
    assert pb.DEGRADED_REASON_BUDGET_EXHAUSTED not in response.degraded_reasons
    assert moody.calls == 3
    assert said == []


def test_where_all_answers_are_hurried_the_last_one_counts_and_it_is_said(
    client: PatientClient, moody: Moody, said: list[str]
) -> None:
    moody.hurried = 1_000
    response = client.recommend("u", "home")
    assert pb.DEGRADED_REASON_BUDGET_EXHAUSTED in response.degraded_reasons
    [line] = said
    assert "too busy" in line


def test_a_fault_is_not_talked_away(client: PatientClient, moody: Moody, said: list[str]) -> None:
    moody.errors = [RuntimeError("a bug")]
    with pytest.raises(EngineError, match="internal error"):
        client.recommend("u", "home")
    assert moody.calls == 1
    assert said == []


def test_what_stays_away_is_raised_after_some_attempts(client: PatientClient, moody: Moody, said: list[str]) -> None:
    moody.errors = [DependencyUnavailable("away")] * 10
    with pytest.raises(DependencyUnavailable):
        client.recommend("u", "home")
    assert moody.calls == len(said) + 1
