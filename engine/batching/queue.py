"""The order in which requests that wait for a device are served; who waits, and where, is for others to say."""

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol, TypeVar


class Queued(Protocol):
    """A request in the queue. lane: those of the same object can share a call. deadline: a time.monotonic() instant."""

    @property
    def lane(self) -> Any: ...

    @property
    def deadline(self) -> float: ...


J = TypeVar("J", bound=Queued)


def take_batch(queue: deque[J], max_batch: int, now: float, claim: Callable[[J], bool]) -> tuple[list[J], list[J]]:
    """Take out of the queue (one at least is in it) the oldest request and those of its lane, up to a cap.

    Args:
        claim: whether anybody still waits for a request; one without is taken out and dropped.

    Returns:
        The batch, which may be empty, and those that are past their deadline.
    """
    lane = queue[0].lane
    batch: list[J] = []
    late: list[J] = []
    left: list[J] = []
    while queue:
        job = queue.popleft()
        if job.deadline <= now:
            if claim(job):
                late.append(job)
        elif job.lane is not lane or len(batch) == max_batch:
            left.append(job)
        elif claim(job):
            batch.append(job)
    queue.extend(left)
    return batch, late
