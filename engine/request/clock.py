"""A request's time: what each stage took, what is left, and which fallback to take when it would not do."""

import logging
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Final, TypeVar

from engine.errors import DeadlineExceeded
from engine.logs import OncePerInterval
from engine.types import DegradedReason, StageTiming

log = logging.getLogger(__name__)
log.addFilter(OncePerInterval())

T = TypeVar("T")

# A time.monotonic() instant: the deadline of the request that the current thread works for. It is for
# implementations of a stage's Protocol that have to wait: the Protocol passes no deadline.
request_deadline: Final[ContextVar[float]] = ContextVar("request_deadline", default=float("inf"))


class StageEstimates:
    """How long each stage has lately taken, in seconds: a moving average, shared by all requests.

    Races between threads lose an update at worst, which an average forgives.
    """

    SMOOTHING = 0.05
    # A stage that is skipped is not measured: without this one slow moment would be remembered forever.
    FORGETTING = 0.95

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    def record(self, stage: str, seconds: float) -> None:
        known = self._seconds.get(stage, seconds)
        self._seconds[stage] = known + self.SMOOTHING * (seconds - known)

    def forget(self, stage: str) -> None:
        self._seconds[stage] = self._seconds.get(stage, 0.0) * self.FORGETTING

    def of(self, stage: str) -> float:
        return self._seconds.get(stage, 0.0)


class RequestClock:
    """One request's deadline (a time.monotonic() instant), its stage timings and its fallbacks.

    The deadline is that of the work: when it has passed, no further stage is started, whoever answers meanwhile.
    """

    def __init__(self, deadline: float, estimates: StageEstimates) -> None:
        self.deadline = deadline
        self.timings: list[StageTiming] = []
        self.degraded: list[DegradedReason] = []
        self._estimates = estimates
        self._started = self._mark = time.perf_counter()

    def remaining_s(self) -> float:
        return self.deadline - time.monotonic()

    def abandon(self) -> None:
        """Nobody waits for the work any more: it ends before its next stage. Any thread may call this."""
        self.deadline = float("-inf")

    def instead(self, keep: frozenset[DegradedReason]) -> "RequestClock":
        """The clock of a cheaper answer to the same request, given in place of this work.

        It began when this one did, has no deadline, and knows those of the degraded reasons that are in `keep`. Its
        stages are no evidence of what the ordinary ones take.
        """
        clock = RequestClock(float("inf"), StageEstimates())
        clock._started = self._started
        clock.degraded = [reason for reason in self.degraded if reason in keep]
        return clock

    def check(self) -> None:
        """Raises DeadlineExceeded once the deadline has passed, or the work was abandoned."""
        if self.remaining_s() <= 0:
            raise DeadlineExceeded("the deadline passed before an answer was ready")

    def mark(self) -> None:
        """Note this moment, for `since_mark`."""
        self._mark = time.perf_counter()

    def since_mark(self, stage: str) -> None:
        """Time what lies between the mark and now, e.g. the wait for a thread."""
        self.finish(stage, time.perf_counter() - self._mark)

    def total(self) -> None:
        """Time the whole request so far."""
        self.finish("total", time.perf_counter() - self._started)

    def measure(self, stage: str) -> "_Measured":
        """Time a stage that has no fallback: the body of a with statement.

        Entering it raises DeadlineExceeded as `check` does.
        """
        return _Measured(self, stage)

    def attempt(
        self,
        stage: str,
        run: Callable[[], T],
        otherwise: Callable[[], T],
        *,
        failed: DegradedReason,
        skipped: DegradedReason,
    ) -> T:
        """Run a stage, or its fallback: where the stage fails, or where it would overrun the deadline.

        Raises DeadlineExceeded when the deadline has passed: before anything is started, or while the stage waited.
        """
        self.check()
        if self.remaining_s() < self._estimates.of(stage):
            self._estimates.forget(stage)
            self.degraded.append(skipped)
            return otherwise()
        try:
            with self.measure(stage):
                return run()
        except DeadlineExceeded:
            raise  # no fallback is in time either
        except Exception:
            log.exception("stage %s failed; its fallback answers", stage)
            self.degraded.append(failed)
            return otherwise()

    def finish(self, stage: str, seconds: float) -> None:
        """A stage has taken this long."""
        self.timings.append(StageTiming(stage, seconds * 1000.0))
        self._estimates.record(stage, seconds)


class _Measured:
    """One stage while it runs. A generator's context manager would cost three times as much, ten times a request."""

    __slots__ = ("_clock", "_stage", "_started")

    def __init__(self, clock: RequestClock, stage: str) -> None:
        self._clock = clock
        self._stage = stage

    def __enter__(self) -> None:
        self._clock.check()
        self._started = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._clock.finish(self._stage, time.perf_counter() - self._started)
