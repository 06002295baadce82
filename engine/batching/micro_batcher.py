"""Requests that wait for a busy device are served together; one that finds it idle is served at once."""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from engine.errors import DeadlineExceeded, EngineError, Overloaded


class Queued(Protocol):
    """A request in the queue.

    group: requests of the same object can share a call. deadline: a time.monotonic() instant.
    """

    @property
    def group(self) -> Any: ...

    @property
    def deadline(self) -> float: ...


J = TypeVar("J", bound=Queued)


def take_batch(queue: deque[J], max_batch: int, now: float, claim: Callable[[J], bool]) -> tuple[list[J], list[J]]:
    """Take out of the queue (one at least is in it) the oldest request and those of its group, up to a cap.

    Args:
        claim: whether anybody still waits for a request; one without is taken out and dropped.

    Returns:
        The batch, which may be empty, and those that are past their deadline.
    """
    group = queue[0].group
    batch: list[J] = []
    late: list[J] = []
    left: list[J] = []
    while queue:
        job = queue.popleft()
        if job.deadline <= now:
            if claim(job):
                late.append(job)
        elif job.group is not group or len(batch) == max_batch:
            left.append(job)
        elif claim(job):
            batch.append(job)
    queue.extend(left)
    return batch, late


Q = TypeVar("Q")
R = TypeVar("R")


@dataclass(slots=True, eq=False)
class _Job:
    group: "BatchGroup[Any, Any]"
    request: Any
    deadline: float
    answer: "Future[Any]" = field(default_factory=Future)


class BatchGroup(Generic[Q, R]):
    """One kind of call, such as a search, whose requests can share a batch; made by MicroBatcher.group."""

    def __init__(self, batcher: "MicroBatcher", run: Callable[[Sequence[Q]], Sequence[R | EngineError]]) -> None:
        self._batcher = batcher
        self.run = run

    def submit(self, request: Q, deadline: float) -> "Future[R]":
        """Queue a request; its future can be cancelled until its batch begins.

        Args:
            deadline: a time.monotonic() instant; a request that is still queued then is dropped unserved.

        Raises:
            Overloaded: the queue is full. EngineError: the batcher has been closed.
        """
        job = _Job(self, request, deadline)
        self._batcher.enqueue(job)
        return job.answer

    def __call__(self, request: Q, deadline: float) -> R:
        """Queue a request and wait for its answer, at most until the deadline.

        Raises:
            DeadlineExceeded: it passed before the answer was there. Otherwise what submit raises, and what the batch
                did.
        """
        answer = self.submit(request, deadline)
        try:
            return answer.result(None if deadline == float("inf") else max(0.0, deadline - time.monotonic()))
        except TimeoutError:
            if answer.cancel() or not answer.done():
                raise DeadlineExceeded("the deadline passed before the device had an answer") from None
            return answer.result()  # it came at the last moment, or the batch itself timed out


class MicroBatcher:
    """One thread that makes all calls to a device. Safe for any number of threads that ask.

    A batch is the oldest request and the queued ones of its group, in their order, up to a cap. The thread never waits
    for more requests: while it is busy others arrive, and when it is idle the first one goes alone.
    """

    def __init__(self, max_batch: int, max_queued: int, name: str = "engine-device") -> None:
        """max_batch: of one call. max_queued: requests that wait, of all groups; past it: Overloaded."""
        if max_batch < 1 or max_queued < 1:
            raise ValueError(f"a batch of {max_batch} and a queue of {max_queued} can serve nobody")
        self.max_batch = max_batch
        self._max_queued = max_queued
        self._queue: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def __enter__(self) -> "MicroBatcher":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def group(self, run: Callable[[Sequence[Q]], Sequence[R | EngineError]]) -> BatchGroup[Q, R]:
        """A group whose batches `run` serves: from up to max_batch requests to as many answers, in step.

        An answer that is an EngineError is raised for its request; what `run` itself raises, for the whole batch.
        """
        return BatchGroup(self, run)

    def enqueue(self, job: _Job) -> None:
        with self._changed:
            if self._closed:
                raise EngineError("the device is being given up")
            if len(self._queue) >= self._max_queued:
                raise Overloaded(f"{len(self._queue)} requests wait for the device")
            self._queue.append(job)
            self._changed.notify()

    def close(self) -> None:
        """Serve what is queued, refuse what comes, and end the thread. May be called twice."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._queue and not self._closed:
                    self._changed.wait()
                if not self._queue:
                    return
                batch = self._take()
            if batch:
                _serve(batch)
            del batch  # what it refers to may be a whole model that another one has replaced

    def _take(self) -> list[_Job]:
        """The next batch, out of the queue. What nobody waits for any more goes with it and is not served."""
        batch, late = take_batch(self._queue, self.max_batch, time.monotonic(), _claim)
        for job in late:
            job.answer.set_exception(DeadlineExceeded("the deadline passed in the queue for the device"))
        return batch


def _claim(job: _Job) -> bool:
    """False for one that was cancelled; the others cannot be any more."""
    return job.answer.set_running_or_notify_cancel()


def _serve(batch: list[_Job]) -> None:
    try:
        answers = batch[0].group.run([job.request for job in batch])
        if len(answers) != len(batch):
            raise EngineError(f"a batch of {len(batch)} requests got {len(answers)} answers")
    except Exception as error:
        for job in batch:
            job.answer.set_exception(error)
        return
    for job, answer in zip(batch, answers, strict=True):
        if isinstance(answer, EngineError):
            job.answer.set_exception(answer)
        else:
            job.answer.set_result(answer)
