"""A log, a sink and dead letters in memory, for the loop by itself."""

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from prometheus_client import CollectorRegistry

from engine.contract.events import decode, encode
from engine.errors import PositionLost
from engine.stream.log_identity import LogIdentity, LogNow, Place
from engine.stream.metrics import ProcessorMetrics
from engine.stream.processor import Processor, reading
from engine.stream.protocols import LogRecord, Message
from tests.engine.stream.conftest import NOW_MS, make_event
from tests.engine.stream.logs import log_now

PAYLOAD = encode(make_event(name="one"), NOW_MS)
READ = reading(decode)
POISON = b"\xff not a message"


class Log:
    """Partitions that hold `length` messages each; a consumer group of one, to which anything may happen in `poll`.

    disturb: called at every poll with this object; may call `lose`, `revoke`, or raise.
    """

    def __init__(self, length: int, batch: int, disturb: Callable[["Log"], None] = lambda log: None) -> None:
        self.payloads = {partition: [PAYLOAD] * length for partition in range(2)}
        self.committed: dict[int, int] = {}
        self.assigned: tuple[int, ...] = ()
        # What retention has left, and where the broker says that it ends.
        self.first, self.end = 0, length
        self.lag_asked: list[float] = []
        self.handed_out = 0
        self._positions: dict[int, int] = {}
        self._batch = batch
        self._disturb = disturb

    def subscribe(self, on_revoked: Callable[[], None], on_lost: Callable[[], None]) -> None:
        self._on_revoked, self._on_lost = on_revoked, on_lost

    def log(self, partitions: Iterable[int]) -> LogNow:
        return log_now(first=self.first, end=self.end)

    def start(self, positions: Mapping[int, int]) -> None:
        self._positions = dict(positions)

    def poll(self, timeout_s: float) -> Sequence[Message]:
        self._disturb(self)
        if not self.assigned:
            self.assigned, self._positions = tuple(self.payloads), {}
            return ()
        found = [
            Message(partition, offset, b"u", self.payloads[partition][offset])
            for partition, start in self._positions.items()
            for offset in range(start, min(start + self._batch, len(self.payloads[partition])))
        ]
        for message in found:
            self._positions[message.partition] = message.offset + 1
        self.handed_out += len(found)
        if not found:
            time.sleep(min(timeout_s, 0.001))
        return found

    def revoke(self) -> None:
        self._on_revoked()
        self.assigned = ()

    def lose(self) -> None:
        self._on_lost()
        self.assigned = ()

    def commit(self, positions: Mapping[int, int]) -> None:
        self.committed |= positions

    def lag(self) -> int:
        self.lag_asked.append(time.monotonic())
        return 7

    def close(self) -> None:
        if self.assigned:
            self.revoke()


class Store:
    """A sink that keeps offsets, refuses what does not follow, and notices two threads in it at once.

    before_write: called inside every write, before anything is stored; may raise. of: the log that its positions are
    of, which are `ahead` of what it holds.
    """

    def __init__(
        self,
        before_write: Callable[[Sequence[LogRecord]], None] = lambda records: None,
        of: LogIdentity | None = None,
        ahead: int = 0,
    ) -> None:
        self._of, self._ahead = of, ahead
        self.stored: dict[int, list[int]] = {0: [], 1: []}
        self.writes = 0
        self._before_write = before_write
        self._expected: dict[int, int] | None = None
        self._entered = threading.Lock()

    def positions(self, partitions: Iterable[int], log: LogNow) -> dict[int, Place | None]:
        with Alone(self._entered):
            held = {partition: len(self.stored[partition]) for partition in partitions}
            self._expected = {
                partition: max(offset, log.extents[partition].first) for partition, offset in held.items()
            }
            return {partition: Place(offset + self._ahead, self._of) for partition, offset in held.items()}

    def write(self, records: Sequence[LogRecord]) -> dict[int, int]:
        with Alone(self._entered):
            assert self._expected is not None, "a write after the partitions were given up"
            self._before_write(records)
            ends = {}
            for record in records:
                if record.offset != self._expected[record.partition]:
                    raise PositionLost("a gap")
                self._expected[record.partition] += 1
                ends[record.partition] = record.offset + 1
            for record in records:
                self.stored[record.partition].append(record.offset)
            self.writes += bool(records)
            return ends

    def flush(self) -> dict[int, int]:
        with Alone(self._entered):
            return {}

    def forget(self) -> None:
        with Alone(self._entered):
            self._expected = None


class Alone:
    """Fails where somebody is in already."""

    def __init__(self, entered: threading.Lock) -> None:
        self._entered = entered

    def __enter__(self) -> None:
        assert self._entered.acquire(blocking=False), "two threads in one sink"

    def __exit__(self, *_: object) -> None:
        self._entered.release()


class Letters:
    """Remembers which offsets were sent, and how many batches had been written by then."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.sent: list[tuple[int, int]] = []

    def send(self, letters: Sequence[tuple[Message, str]]) -> None:
        self.sent += [(message.offset, self._store.writes) for message, _ in letters]


def run_until(
    log: Log, store: Store, done: Callable[[], bool], letters: Letters | None = None
) -> tuple[ProcessorMetrics, CollectorRegistry]:
    """Run a processor until the condition holds, then stop it in order; what it raises is raised."""
    stop, registry = threading.Event(), CollectorRegistry()
    metrics = ProcessorMetrics("live", registry)
    processor = Processor(log, READ, store, metrics, stop, letters, retry_max_s=0.002)  # type: ignore[arg-type]
    raised: list[BaseException] = []

    def body() -> None:
        try:
            processor.run()
        except BaseException as error:  # whatever it is, the test must hear of it
            raised.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    give_up = time.monotonic() + 20
    while not done() and thread.is_alive() and time.monotonic() < give_up:
        time.sleep(0.001)
    stop.set()
    thread.join(20)
    assert not thread.is_alive()
    if raised:
        raise raised[0]
    assert done()
    return metrics, registry
