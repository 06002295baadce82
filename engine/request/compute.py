"""The threads that requests are computed in: how long a request waits for one, and what becomes of it after that."""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Generic, TypeVar

from engine.errors import DeadlineExceeded
from engine.request.clock import RequestClock

T = TypeVar("T")


class Compute(Generic[T]):
    """Runs the work of requests in threads, and gives the event loop back what is ready in time.

    Native calls leave the event loop free: they release the interpreter lock in these threads. One that has begun runs
    to its end, but work that nobody waits for stops before its next stage, and before its first one where it still
    waits for a thread.

    Args:
        limit: how many may wait for a thread, those that nobody waits for among them: threads that do not come back
            must not let a queue grow.
    """

    def __init__(self, executor: Executor, limit: int) -> None:
        self._executor = executor
        self._limit = limit
        # One for each piece of work that no thread has taken yet; a deque, whose ends any thread may change.
        self._waiting: deque[None] = deque()

    async def __call__(self, work: Callable[[], T], clock: RequestClock) -> T | None:
        """What the work returns; None where it is not ready by the clock's deadline, or could not be.

        Raises what the work raises, but for DeadlineExceeded, which is None as well.
        """
        remaining_s = clock.remaining_s()
        if remaining_s <= 0 or len(self._waiting) >= self._limit:
            return None
        self._waiting.append(None)
        running = self._executor.submit(self._run, work, clock)
        # Not cancelled: the queue would keep what it no longer counts. `_run` ends at once where it comes too late.
        future = asyncio.wrap_future(running)
        try:
            await asyncio.wait((future,), timeout=remaining_s)
        except asyncio.CancelledError:
            _give_up(future, clock)
            raise
        # A loop that was held up may hear of its timer before it hears of the work.
        if not running.done():
            _give_up(future, clock)
            return None
        try:
            return running.result()
        except DeadlineExceeded:
            return None
        finally:
            _forget(future)

    def _run(self, work: Callable[[], T], clock: RequestClock) -> T:
        self._waiting.popleft()
        clock.check()
        return work()


def _give_up(future: "asyncio.Future[T]", clock: RequestClock) -> None:
    clock.abandon()
    _forget(future)


def _forget(future: "asyncio.Future[T]") -> None:
    """Nobody will ask the future how it ended, which asyncio would complain of where it ended badly."""
    future.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
