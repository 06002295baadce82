import time

import pytest

from engine.errors import DeadlineExceeded
from engine.request.clock import RequestClock, StageEstimates
from engine.types import DegradedReason

REASONS = {"failed": DegradedReason.RANKING_FAILED, "skipped": DegradedReason.RANKING_SKIPPED}


def fails() -> str:
    raise RuntimeError("broken")


def clock_of(remaining_s: float, estimates: StageEstimates | None = None) -> RequestClock:
    return RequestClock(time.monotonic() + remaining_s, estimates or StageEstimates())


def test_a_stage_that_works_is_timed_and_nothing_is_degraded() -> None:
    clock = clock_of(10)
    assert clock.attempt("rank", lambda: "done", lambda: "fallback", **REASONS) == "done"
    assert [timing.stage for timing in clock.timings] == ["rank"]
    assert clock.degraded == []


def test_a_stage_that_fails_is_replaced_and_said_so() -> None:
    clock = clock_of(10)
    assert clock.attempt("rank", fails, lambda: "fallback", **REASONS) == "fallback"
    assert clock.degraded == [DegradedReason.RANKING_FAILED]


def test_a_stage_that_would_overrun_is_not_started() -> None:
    estimates = StageEstimates()
    estimates.record("rank", 5.0)
    clock = clock_of(1.0, estimates)
    assert clock.attempt("rank", fails, lambda: "fallback", **REASONS) == "fallback"
    assert clock.degraded == [DegradedReason.RANKING_SKIPPED]


def test_one_slow_moment_is_not_remembered_for_ever() -> None:
    estimates = StageEstimates()
    estimates.record("rank", 5.0)
    ran = [clock_of(0.1, estimates).attempt("rank", lambda: True, lambda: False, **REASONS) for _ in range(200)]
    assert not ran[0]
    assert ran[-1]


def test_nothing_is_started_after_the_deadline() -> None:
    started = []
    with pytest.raises(DeadlineExceeded):
        clock_of(-0.001).attempt("rank", lambda: started.append(1), lambda: None, **REASONS)
    assert not started
