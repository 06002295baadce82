"""Requests leave on time whatever becomes of others, and latencies count from when they were due."""

import asyncio
import time

import numpy as np
import pytest

from engine_bench.load_driver import Answer, Record, Status, drive, plan


async def test_a_stall_is_seen_by_everybody_who_was_due_meanwhile() -> None:
    """The server stands still once. A closed loop would see one slow request; here all who were due wait."""
    schedule = plan("constant", 100.0, 1.0, 1, 0)
    resumed = asyncio.Event()
    waited = []

    async def stalls(place: int) -> Answer:
        if place == 20:
            asyncio.get_running_loop().call_later(0.5, resumed.set)
        if place >= 20 and not resumed.is_set():
            waited.append(place)
            await resumed.wait()
        return Answer(Status.OK)

    record = await drive(stalls, schedule)
    # Nobody had been answered since the 20th, and the others were sent all the same: about 50, fewer where the
    # machine itself stood still.
    assert len(waited) > 25
    # All were answered at one moment, so that who was due 10 ms later has waited 10 ms less: 500, 490, 480, …
    assert record.latency_ms[20] >= 499.0
    np.testing.assert_allclose(np.median(-np.diff(record.latency_ms[waited])), 10.0, atol=2.0)
    assert (record.latency_ms >= record.lateness_ms).all()


async def test_a_server_slower_than_the_rate_builds_a_queue() -> None:
    """20 ms each, one at a time, due every 10 ms: the n-th has waited for n others. A closed loop would say 20 ms."""
    schedule = plan("constant", 100.0, 0.8, 1, 0)
    one_at_a_time = asyncio.Lock()

    async def slow(_: int) -> Answer:
        async with one_at_a_time:
            await asyncio.sleep(0.02)
        return Answer(Status.OK)

    record = await drive(slow, schedule)
    assert record.latency_ms[-1] >= 80 * 20.0 - 79 * 10.0
    assert (record.latency_ms >= 20.0 + 10.0 * np.arange(80) - 1.0).all()
    assert record.answered_per_s() <= 50.0
    assert record.share_within(100.0) < 0.2


async def test_lateness_of_the_generator_itself_is_told_and_counted() -> None:
    """The event loop is blocked for 200 ms: who was due meanwhile was sent late, and the latency says so."""
    schedule = plan("constant", 100.0, 0.5, 1, 0)

    async def blocks(place: int) -> Answer:
        if place == 10:
            time.sleep(0.2)
        return Answer(Status.OK)

    record = await drive(blocks, schedule)
    assert record.lateness_ms.max() > 150.0
    assert (record.latency_ms >= record.lateness_ms).all()


async def test_past_the_limit_in_flight_requests_count_as_failed() -> None:
    schedule = plan("constant", 200.0, 0.5, 1, 0)
    release = asyncio.Event()

    async def never(_: int) -> Answer:
        await release.wait()
        return Answer(Status.OK)

    asyncio.get_running_loop().call_later(1.0, release.set)
    record = await drive(never, schedule, in_flight_limit=10)
    assert (record.status[:10] == Status.OK).all()
    assert (record.status[10:] == Status.OVERFLOW).all()
    assert np.isinf(record.latency_ms[10:]).all()
    assert record.share_within(10_000.0) == pytest.approx(10 / 95)


async def test_statuses_stages_and_progress_arrive() -> None:
    schedule = plan("constant", 100.0, 0.6, 1, 0, debug_every=30)
    told: list[float] = []

    async def varied(place: int) -> Answer:
        if place % 3 == 1:
            return Answer(Status.EXHAUSTED)
        return Answer(Status.OK, degraded=place == 0, stages_ms={"rank": 1.0} if schedule.debug[place] else None)

    record = await drive(varied, schedule, told.append)
    assert (record.status == Status.EXHAUSTED).sum() == 20
    assert np.isinf(record.latency_ms[record.status == Status.EXHAUSTED]).all()
    assert record.degraded.tolist() == [True] + [False] * 59
    assert sorted(record.stages_ms) == [29, 59]
    assert told == sorted(told)
    assert 0.0 <= told[0] < told[-1] <= schedule.seconds


async def test_a_target_that_raises_ends_the_run() -> None:
    async def broken(_: int) -> Answer:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await drive(broken, plan("constant", 100.0, 0.05, 1, 0))


def test_only_requests_without_debug_are_judged() -> None:
    schedule = plan("constant", 100.0, 0.1, 1, 0, debug_every=2)
    record = Record.empty(schedule)
    record.status[:] = Status.OK
    record.latency_ms[:] = np.where(schedule.debug, 500.0, [5, 5, 5, 5, 5, 5, 5, 5, 200, 5])
    assert record.share_within(100.0) == 0.8
    record.degraded[0] = True
    assert record.share_within(100.0) == 0.6
    record.status[2] = Status.DEADLINE
    assert record.share_within(100.0) == 0.4
