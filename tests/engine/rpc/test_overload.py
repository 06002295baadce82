"""More requests than are answered in time: which are let in, at what effort, and what the others are told."""

import asyncio
import time
from dataclasses import replace

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import Overloaded
from engine.rpc.overload import ConcurrencyLimit, EffortControl, LimitedRecommender
from engine.rpc.status import to_wire
from engine.types import DegradedReason, Priority, Recommendation, RecommendQuery, StageTiming
from engine_client.status import STATUS_DETAILS_KEY, from_wire
from tests.engine.rpc.recommender import answer

QUERY = RecommendQuery("u1", "home", 3, 0)
SOON_S = 0.085


class Machine:
    """Answers after `work_s` a request on each of so many threads; further requests wait, and say how long."""

    def __init__(self, threads: int, work_s: float) -> None:
        self._threads = asyncio.Semaphore(threads)
        self._work_s = work_s
        self.queries: list[RecommendQuery] = []

    async def recommend(
        self, query: RecommendQuery, answer_by: float, deadline: float = float("inf")
    ) -> Recommendation:
        began = time.monotonic()
        self.queries.append(query)
        if query.effort == 0:
            return replace(answer(query), degraded_reasons=(DegradedReason.EFFORT_REDUCED,))
        async with self._threads:
            waited = time.monotonic() - began
            await asyncio.sleep(self._work_s * query.effort)
        total = time.monotonic() - began
        late = (DegradedReason.BUDGET_EXHAUSTED,) if time.monotonic() > answer_by else ()
        timings = (StageTiming("queue", waited * 1000), StageTiming("total", total * 1000))
        return replace(answer(query), degraded_reasons=late, timings=timings)


async def offer(limited: LimitedRecommender, rate: float, seconds: float, query: RecommendQuery = QUERY) -> list[str]:
    """What came of each request, one every 1 / rate seconds whatever became of those before."""

    async def ask() -> str:
        began = time.monotonic()
        try:
            answered = await limited.recommend(query, began + SOON_S)
        except Overloaded:
            return "refused"
        return "late" if DegradedReason.BUDGET_EXHAUSTED in answered.degraded_reasons else "good"

    tasks = []
    for _ in range(int(rate * seconds)):
        tasks.append(asyncio.ensure_future(ask()))
        await asyncio.sleep(1 / rate)
    return list(await asyncio.gather(*tasks))


class TestConcurrencyLimit:
    def test_it_shrinks_while_answers_take_most_of_their_time_and_grows_back(self) -> None:
        limit = ConcurrencyLimit(threads=2, most=64, allowed_s=SOON_S)
        for _ in range(200):
            limit.ended(latency_s=0.07, waited_s=0.06)
        assert limit.value == 2
        for _ in range(500):
            limit.ended(latency_s=0.01, waited_s=0.0)
        assert limit.value == 64

    def test_a_queue_that_is_answered_in_time_is_no_overload(self) -> None:
        limit = ConcurrencyLimit(threads=2, most=64, allowed_s=SOON_S)
        for _ in range(200):
            limit.ended(latency_s=0.033, waited_s=0.03)
        assert limit.value == 64

    @given(
        st.integers(1, 64),
        st.integers(1, 64),
        st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.booleans()), max_size=50),
    )
    def test_it_stays_between_its_bounds(self, threads: int, most: int, ended: list[tuple[float, float, bool]]) -> None:
        limit = ConcurrencyLimit(threads, most, SOON_S)
        for waited_s, more_s, late in ended:
            limit.ended(waited_s + more_s, None if late else waited_s)
            assert min(threads, most) <= limit.value <= most
        limit.ended(1.0, None)
        assert min(threads, most) <= limit.value <= most


class TestEffort:
    def test_it_falls_while_requests_are_refused_and_rises_when_there_is_room(self) -> None:
        effort = EffortControl()
        seen = []
        for tick in range(40):
            effort.note(refused=tick % 4 == 0, used=1.0, now_s=tick / 10)
            seen.append(effort.value)
        assert seen[0] == 1.0
        assert seen[-1] == 0.25
        for tick in range(40, 80):
            effort.note(refused=False, used=0.2, now_s=tick / 10)
        assert effort.value == 1.0

    def test_it_stays_where_the_limit_is_still_needed(self) -> None:
        effort = EffortControl()
        for tick in range(10):
            effort.note(refused=True, used=1.0, now_s=tick / 10)
        for tick in range(10, 80):
            effort.note(refused=False, used=0.9, now_s=tick / 10)
        assert effort.value < 1.0


class TestLimitedRecommender:
    async def test_with_four_times_the_requests_most_of_the_capacity_is_good_answers(self) -> None:
        """Capacity: two threads, 20 ms a request. Without a limit, hardly any answer would be in time."""
        limited = LimitedRecommender(Machine(2, 0.02), threads=2, most=64, allowed_s=SOON_S)
        await offer(limited, 400, 1.0)
        came = await offer(limited, 400, 2.0)
        assert came.count("good") >= 0.6 * 100 * 2
        assert came.count("late") <= 0.05 * len(came)

    async def test_a_load_that_it_can_take_is_answered_in_full(self) -> None:
        machine = Machine(2, 0.002)
        came = await offer(LimitedRecommender(machine, threads=2, most=64, allowed_s=SOON_S), 50, 1.0)
        assert came.count("good") == len(came)
        assert all(query.effort == 1.0 for query in machine.queries)

    async def test_a_burst_that_can_be_answered_in_time_is_let_in(self) -> None:
        limited = LimitedRecommender(Machine(2, 0.004), threads=2, most=64, allowed_s=SOON_S)
        await offer(limited, 50, 0.5)
        came = await offer(limited, 100_000, 16 / 100_000)
        assert came == ["good"] * 16

    async def test_clients_that_allow_little_time_take_no_places_from_others(self) -> None:
        """Half of a millisecond is too little for an answer of ten; that is no overload."""
        limited = LimitedRecommender(Machine(1, 0.01), threads=1, most=32, allowed_s=SOON_S)
        for _ in range(100):
            answered = await limited.recommend(QUERY, time.monotonic() + 0.0005)
            assert DegradedReason.BUDGET_EXHAUSTED in answered.degraded_reasons
        assert limited.limit.value == 32

    async def test_priorities(self) -> None:
        machine = Machine(1, 10.0)
        limited = LimitedRecommender(
            machine, threads=1, most=4, allowed_s=SOON_S, priorities={"email": Priority.SHEDDABLE}
        )
        asked: list[asyncio.Task[Recommendation]] = []

        async def taken(query: RecommendQuery) -> bool:
            task = asyncio.ensure_future(limited.recommend(query, float("inf")))
            asked.append(task)
            await asyncio.sleep(0)
            if task.done():
                with pytest.raises(Overloaded):
                    task.result()
                return False
            return True

        sheddable, critical = replace(QUERY, priority=Priority.SHEDDABLE), replace(QUERY, priority=Priority.CRITICAL)
        assert [await taken(sheddable) for _ in range(3)] == [True, True, False]
        assert not await taken(replace(QUERY, surface="email"))
        assert [await taken(QUERY) for _ in range(3)] == [True, True, False]
        assert await taken(critical)
        for task in asked:
            task.cancel()

    async def test_a_critical_request_is_answered_by_popularity_rather_than_refused(self) -> None:
        machine = Machine(1, 10.0)
        limited = LimitedRecommender(machine, threads=1, most=8, allowed_s=SOON_S)
        for _ in range(50):
            limited.limit.ended(1.0, None)
        critical = replace(QUERY, priority=Priority.CRITICAL)
        waiting = [asyncio.ensure_future(limited.recommend(each, float("inf"))) for each in (QUERY, critical)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await limited.recommend(QUERY, float("inf"))
        answered = await limited.recommend(critical, float("inf"))
        assert answered.degraded_reasons == (DegradedReason.EFFORT_REDUCED,)
        for task in waiting:
            task.cancel()

    async def test_what_would_come_too_late_is_refused_at_once(self) -> None:
        limited = LimitedRecommender(Machine(1, 0.05), threads=1, most=8, allowed_s=SOON_S)
        for _ in range(30):
            await limited.recommend(QUERY, time.monotonic() + 1.0)
        waiting = asyncio.ensure_future(limited.recommend(QUERY, time.monotonic() + 1.0))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await limited.recommend(QUERY, time.monotonic() + 0.06)
        await waiting

    async def test_every_way_to_end_gives_the_place_back(self) -> None:
        class Broken:
            async def recommend(self, *_: object) -> Recommendation:
                raise RuntimeError("bug")

        limited = LimitedRecommender(Broken(), threads=1, most=1, allowed_s=SOON_S)
        for _ in range(3):
            with pytest.raises(RuntimeError):
                await limited.recommend(QUERY, float("inf"))


def test_what_grpc_refuses_by_itself_is_overload_to_the_client() -> None:
    assert isinstance(from_wire(grpc.StatusCode.CANCELLED, "CANCELLED", ()), Overloaded)


def test_a_refusal_says_when_to_come_back() -> None:
    wire = to_wire(Overloaded("full", 0.25), "r")
    assert wire.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    status = status_pb2.Status.FromString(dict(wire.metadata)[STATUS_DETAILS_KEY])
    hint = error_details_pb2.RetryInfo()
    assert any(detail.Unpack(hint) for detail in status.details)
    assert hint.retry_delay.nanos == 250_000_000
    refused = from_wire(wire.code, wire.text, wire.metadata)
    assert isinstance(refused, Overloaded)
    assert refused.retry_after_s == 0.25
