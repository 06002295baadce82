"""What the loop of the processor reads and writes: messages, the log that they are from, and where they go."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar

from engine.stream.log_identity import LogNow, Place

# What one message of the log says, once decoded.
T_co = TypeVar("T_co", covariant=True)
B_contra = TypeVar("B_contra", contravariant=True)


class Message(NamedTuple):
    """One message of the log as it came."""

    partition: int
    offset: int
    key: bytes | None
    payload: bytes


class LogRecord(NamedTuple, Generic[T_co]):
    """One place of the log; event is None for a poison message, which takes up its offset and nothing else."""

    partition: int
    offset: int
    event: T_co | None


class Source(Protocol):
    """The partitions of a log that are this consumer's, read from where it is told to. Raises DependencyUnavailable."""

    def subscribe(self, on_revoked: Callable[[], None], on_lost: Callable[[], None]) -> None:
        """Join the group. The callbacks run inside `poll`, before the partitions are given up."""
        ...

    @property
    def assigned(self) -> tuple[int, ...]:
        """The partitions that are ours. Nothing of a new assignment is read before `start`."""
        ...

    def log(self, partitions: Iterable[int]) -> LogNow:
        """Which log this is at this moment, and what these partitions hold; `poll` raises once it is another one."""
        ...

    def start(self, positions: Mapping[int, int]) -> None:
        """Read these partitions, and only these, from these offsets."""
        ...

    def poll(self, timeout_s: float) -> Sequence[Message]:
        """What is there, in log order within a partition; waits for the first message alone."""
        ...

    def commit(self, positions: Mapping[int, int]) -> None:
        """Tell the group where each partition goes on."""
        ...

    def lag(self) -> int:
        """Messages not yet read of the assigned partitions, as far as this is known locally."""
        ...

    def close(self) -> None:
        """Leave the group."""
        ...


class Sink(Protocol[B_contra]):
    """What is kept true to the log; it knows itself how far it got. Raises DependencyUnavailable.

    Called from two threads, and never by both at once.
    """

    def positions(self, partitions: Iterable[int], log: LogNow) -> dict[int, Place | None]:
        """Drop what is not durable, and say how far each partition got, and in which log; None: nothing of it is there.

        What is written from now on is of `log`.
        """
        ...

    def write(self, batch: B_contra) -> dict[int, int]:
        """Take a batch (an empty one: just an occasion); returns where partitions go on whose all is durable."""
        ...

    def flush(self) -> dict[int, int]:
        """Make durable what is held back; returns as `write` does."""
        ...

    def forget(self) -> None:
        """Drop what is not durable, and what is remembered of what is."""
        ...


class DeadLetters(Protocol):
    """Where poison messages go."""

    def send(self, letters: Sequence[tuple[Message, str]]) -> None:
        """Deliver messages with their reasons; returns once they are safe. Raises DependencyUnavailable."""
        ...
