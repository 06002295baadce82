"""The loop that keeps a sink true to a log: poll, decode, write, and only then commit.

While one batch is written, the next is polled and decoded: a write waits for its store for much of its time.

One way back from every failure: drop what is in hand, ask the sink how far it got, go on from there. A crash takes the
same path as an outage of Redis, so that this path runs often. Knows no client library.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

from engine.errors import DependencyUnavailable, LogMismatch, LogShorter, PoisonMessage, described
from engine.logs import OncePerInterval, Outage
from engine.stream.log_identity import AcceptNewLog, start_of
from engine.stream.metrics import ProcessorMetrics
from engine.stream.protocols import DeadLetters, LogRecord, Message, Sink, Source

log = logging.getLogger(__name__)
log.addFilter(OncePerInterval(interval_s=60.0))

# What one message of the log says, once decoded.
T = TypeVar("T")
# What a sink is given of many messages: a sequence of LogRecord, or columns.
B = TypeVar("B")

_POLL_S = 0.2
# While a batch is being written: long enough to be no busy loop, short enough for its commit not to wait.
_OVERLAP_POLL_S = 0.02
_FIRST_PAUSE_S = 0.05
_LAG_EVERY_S = 1.0
# A broker that has just come back may show less than it holds: for so long a log that is too short is looked at again.
_SHORT_S = 5.0


# The batch of some messages, and those of them that are poison with the reasons.
Read = Callable[[Sequence[Message]], tuple[B, list[tuple[Message, str]]]]


class Processor(Generic[B]):
    """Runs one source into one sink until `stop` is set. `run` belongs to one thread, and is called once.

    The sink writes in a thread of its own, one batch at most. Whatever else touches the sink, or depends on how far it
    got, waits for that batch first: so batches stay in order, and the sink is one thread's at any moment.

    Args:
        read: makes a batch of messages.
        accept_new_log: which other log than the stored one is read from its beginning; see start_of.
        outage: says what fails; one for all processors that fail together.

    Raises:
        LogMismatch: the log is not the one that the sink's positions are of. From `run`.
    """

    def __init__(
        self,
        source: Source,
        read: Read[B],
        sink: Sink[B],
        metrics: ProcessorMetrics,
        stop: threading.Event,
        dead_letters: DeadLetters | None = None,
        retry_max_s: float = 5.0,
        accept_new_log: AcceptNewLog = "topic",
        outage: Outage | None = None,
    ) -> None:
        self._source = source
        self._read = read
        self._sink = sink
        self._metrics = metrics
        self._stop = stop
        self._dead_letters = dead_letters
        self._retry_max_s = retry_max_s
        self._accept_new_log = accept_new_log
        self._outage = outage or Outage(log)
        self._begun = False
        self._short_since: float | None = None
        # By partition, up to where what retention removed unread has been counted.
        self._counted_expired: dict[int, int] = {}
        self._writer = ThreadPoolExecutor(1, "engine-sink")
        self._in_flight: Future[dict[int, int]] | None = None
        self._placed: tuple[int, ...] | None = None
        self._pause_s = 0.0
        self._lag_at = 0.0

    def run(self) -> None:
        """Process until stopped; then finish what is in hand, commit, and leave the group."""
        with self._writer:
            self._source.subscribe(self._revoked, self._lost)
            try:
                while not self._stop.is_set():
                    try:
                        self._step()
                    except DependencyUnavailable as error:
                        pause_s = self._pause_s = min(self._retry_max_s, max(_FIRST_PAUSE_S, 2 * self._pause_s))
                        self._failed(error)
                        self._metrics.interruptions.inc()
                        self._wait(pause_s)
                self._give_up()
            finally:
                self._source.close()

    def _step(self) -> None:
        if self._placed != self._source.assigned:
            self._await_write()
            self._place(self._source.assigned)
        writing = self._in_flight is not None
        messages = self._source.poll(_OVERLAP_POLL_S if writing else _POLL_S)
        if self._placed != self._source.assigned:
            return  # the group has changed meanwhile; whatever came is read again by whom it belongs to
        started = time.perf_counter()
        batch, poison = self._read(messages)
        # If that write has failed, this batch is dropped with it, and read again.
        self._await_write()
        if messages or not writing:
            if poison and self._dead_letters is not None:
                self._dead_letters.send(poison)
            self._in_flight = self._writer.submit(self._write, batch, len(messages), len(poison), started)
        if time.monotonic() - self._lag_at > _LAG_EVERY_S:
            self._lag_at = time.monotonic()
            self._metrics.lag.set(self._source.lag())

    def _place(self, partitions: tuple[int, ...]) -> None:
        """Go on from what is stored, where that is of the log that is there."""
        now = self._source.log(partitions)
        places = self._sink.positions(partitions, now)
        try:
            start = start_of(places, now, self._accept_new_log)
        except LogShorter as error:
            self._short_since = self._short_since or time.monotonic()
            if time.monotonic() - self._short_since < _SHORT_S:
                raise DependencyUnavailable(str(error)) from error
            self._metrics.log_mismatch.set(1)
            raise
        except LogMismatch:
            self._metrics.log_mismatch.set(1)
            raise
        self._short_since = None
        self._metrics.log_mismatch.set(0)
        name = self._metrics.sink
        if not self._begun:
            self._begun = True
            log.info("%s: processing %s from %s", name, now.name, now.brokers)
        if start.renewed:
            self._metrics.new_logs.inc(len(start.renewed))
            self._counted_expired = {}
            log.error(
                "%s: %s at %s is another log than the stored one (now %s): reading partitions %s from their beginning, "
                "by processor.accept_new_log; what nobody had read of the old log is lost",
                name, now.name, now.brokers, now.identity, ", ".join(map(str, start.renewed)),
            )  # fmt: skip
        for partition, (first, end) in start.expired.items():
            lost = end - max(first, self._counted_expired.get(partition, 0))
            self._counted_expired[partition] = end
            if lost > 0:
                self._metrics.expired.inc(lost)
                log.error(
                    "%s: %d messages of partition %d of %s (offsets %d to %d) were removed by retention before they "
                    "were read: they are lost to this sink. Keep messages for longer, or process faster",
                    name, lost, partition, now.name, first, end - 1,
                )  # fmt: skip
        self._source.start(start.offsets)
        self._placed = partitions

    def _failed(self, error: Exception) -> None:
        self._outage.failed(self._metrics.sink, described(error))

    def _write(self, batch: B, messages: int, poison: int, started: float) -> dict[int, int]:
        """One batch, in the sink's thread."""
        done = self._sink.write(batch)
        if messages:
            self._metrics.applied(messages, poison, time.perf_counter() - started)
        return done

    def _await_write(self) -> None:
        """Wait for the batch in flight, if any, and commit it; raises what its write has raised."""
        written, self._in_flight = self._in_flight, None
        if written is not None:
            done = written.result()
            self._pause_s = 0.0
            if self._placed is not None:  # otherwise something has failed since, and is not over
                self._outage.over(self._metrics.sink)
            self._commit(done)

    def _wait(self, pause_s: float) -> None:
        """Read nothing for a while, but stay in the group."""
        self._placed = None
        give_up = time.monotonic() + pause_s
        try:
            self._await_write()
        except DependencyUnavailable as error:
            self._failed(error)
        try:
            self._source.start({})
            while not self._stop.is_set() and (left_s := give_up - time.monotonic()) > 0:
                self._source.poll(min(left_s, _POLL_S))
        except DependencyUnavailable as error:
            self._failed(error)
            self._stop.wait(give_up - time.monotonic())

    def _commit(self, positions: Mapping[int, int]) -> None:
        if not positions:
            return
        try:
            self._source.commit(positions)
        except DependencyUnavailable as error:
            # Harmless: the sink knows how far it got. The next commit says the same and more.
            log.warning("offsets are not committed: %s", error)

    def _give_up(self) -> None:
        """Finish what is in flight or held back, and say so; whatever fails is read again by the next owner."""
        try:
            self._await_write()
            self._commit(self._sink.flush())
        except DependencyUnavailable as error:
            log.warning("what was not written is left to the next owner: %s", error)
        self._sink.forget()
        self._placed = None

    def _revoked(self) -> None:
        self._give_up()

    def _lost(self) -> None:
        # Others may own these partitions already: what is held back is theirs to write, and what is in flight theirs
        # to commit. A sink refuses to write over what they have written.
        written, self._in_flight = self._in_flight, None
        if written is not None:
            try:
                written.result()
            except DependencyUnavailable as error:
                log.warning("what was not written is left to the next owner: %s", error)
        self._sink.forget()
        self._placed = None


def reading(decode: Callable[[bytes], T]) -> Read[Sequence[LogRecord[T]]]:
    """Makes a record of every message. decode: what a payload says; raises PoisonMessage."""

    def read(messages: Sequence[Message]) -> tuple[Sequence[LogRecord[T]], list[tuple[Message, str]]]:
        records: list[LogRecord[T]] = []
        poison = []
        for message in messages:
            try:
                event: T | None = decode(message.payload)
            except PoisonMessage as error:
                event = None
                poison.append((message, str(error)))
            records.append(LogRecord(message.partition, message.offset, event))
        return records, poison

    return read
