"""The loop by itself, over a log and a sink in memory: what overlaps, what waits, and what failures do to both."""

import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from engine.contract.events import decode, encode
from engine.errors import DependencyUnavailable, PositionLost
from engine.stream.log_identity import LogNow, Place
from engine.stream.metrics import ProcessorMetrics
from engine.stream.processor import LogRecord, Message, Processor, reading
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
        self._positions: dict[int, int] = {}
        self._batch = batch
        self._disturb = disturb

    def subscribe(self, on_revoked: Callable[[], None], on_lost: Callable[[], None]) -> None:
        self._on_revoked, self._on_lost = on_revoked, on_lost

    def log(self, partitions: Iterable[int]) -> LogNow:
        return log_now()

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
        return 0

    def close(self) -> None:
        if self.assigned:
            self.revoke()


class Store:
    """A sink that keeps offsets, refuses what does not follow, and notices two threads in it at once.

    before_write: called inside every write, before anything is stored; may raise.
    """

    def __init__(self, before_write: Callable[[Sequence[LogRecord]], None] = lambda records: None) -> None:
        self.stored: dict[int, list[int]] = {0: [], 1: []}
        self.writes = 0
        self._before_write = before_write
        self._expected: dict[int, int] | None = None
        self._entered = threading.Lock()

    def positions(self, partitions: Iterable[int], log: LogNow) -> dict[int, Place | None]:
        with Alone(self._entered):
            self._expected = {partition: len(self.stored[partition]) for partition in partitions}
            return {partition: Place(offset, None) for partition, offset in self._expected.items()}

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


def test_the_next_batch_is_polled_while_one_is_written() -> None:
    polled_meanwhile = threading.Event()
    writing = threading.Event()

    def before_write(records: Sequence[LogRecord]) -> None:
        if records and not writing.is_set():
            writing.set()
            assert polled_meanwhile.wait(10), "nobody has polled while this was written"

    def disturb(log: Log) -> None:
        if writing.is_set():
            polled_meanwhile.set()

    store = Store(before_write)
    log = Log(20, 3, disturb)
    _, registry = run_until(log, store, lambda: len(store.stored[1]) == 20)
    assert store.stored == {0: list(range(20)), 1: list(range(20))}
    assert log.committed == {0: 20, 1: 20}
    assert registry.get_sample_value("engine_processor_events_total", {"sink": "live"}) == 40


def test_nothing_is_committed_that_is_not_stored() -> None:
    log = Log(30, 2)
    behind = []

    def before_write(_: Sequence[LogRecord]) -> None:
        behind.extend(log.committed.get(part, 0) <= len(store.stored[part]) for part in range(2))

    store = Store(before_write)
    run_until(log, store, lambda: len(store.stored[1]) == 30)
    assert len(behind) >= 30
    assert all(behind)


def test_dead_letters_are_sent_before_their_batch_is_written_and_after_the_one_before() -> None:
    store = Store()
    log = Log(6, 2)
    log.payloads = {0: [PAYLOAD, PAYLOAD, POISON, PAYLOAD, POISON, PAYLOAD]}
    letters = Letters(store)
    run_until(log, store, lambda: len(store.stored[0]) == 6, letters)
    assert letters.sent == [(2, 1), (4, 2)]


def test_a_failed_write_takes_the_decoded_batch_behind_it_along() -> None:
    failures = iter([False, True, True])

    def before_write(records: Sequence[LogRecord]) -> None:
        if records and next(failures, False):
            raise DependencyUnavailable("away")

    store = Store(before_write)
    log = Log(10, 2)
    _, registry = run_until(log, store, lambda: len(store.stored[1]) == 10)
    assert store.stored == {0: list(range(10)), 1: list(range(10))}
    # Each failure is one; a batch that followed a failed one would have been refused, and counted as another.
    assert registry.get_sample_value("engine_processor_interruptions_total", {"sink": "live"}) == 2


def test_pauses_grow_until_a_write_succeeds() -> None:
    started = []

    def before_write(records: Sequence[LogRecord]) -> None:
        if records:
            started.append(time.monotonic())
            if len(started) < 4:
                raise DependencyUnavailable("away")

    store, stop = Store(before_write), threading.Event()
    metrics = ProcessorMetrics("live", CollectorRegistry())
    processor = Processor(Log(2, 2), READ, store, metrics, stop, retry_max_s=10.0)
    thread = threading.Thread(target=processor.run)
    thread.start()
    while not store.writes and thread.is_alive():
        time.sleep(0.001)
    stop.set()
    thread.join(20)
    first, second, third = (after - before for before, after in pairwise(started))
    assert first >= 0.05
    assert second >= 0.1
    assert third >= 0.2


@pytest.mark.parametrize("how", ["revoke", "lose"])
def test_partitions_go_only_after_the_batch_in_flight(how: str) -> None:
    writing, given_up = threading.Event(), threading.Event()

    def before_write(records: Sequence[LogRecord]) -> None:
        if records and not writing.is_set():
            writing.set()
            time.sleep(0.1)
            assert not given_up.is_set()

    def disturb(log: Log) -> None:
        if writing.is_set() and not given_up.is_set():
            getattr(log, how)()
            given_up.set()
            assert len(store.stored[0]) == 2, "it is stored, or it was not waited for"
            # Of what is lost, the next owner says how far it is.
            assert log.committed == ({0: 2, 1: 2} if how == "revoke" else {})

    store = Store(before_write)
    run_until(Log(20, 2, disturb), store, lambda: len(store.stored[1]) == 20)
    assert given_up.is_set()
    assert store.stored == {0: list(range(20)), 1: list(range(20))}


def test_a_stop_finishes_and_commits_what_is_in_flight() -> None:
    writing, stop = threading.Event(), threading.Event()

    def before_write(records: Sequence[LogRecord]) -> None:
        if records:
            writing.set()
            assert stop.wait(10)
            time.sleep(0.05)

    store, log = Store(before_write), Log(4, 4)
    processor = Processor(log, READ, store, ProcessorMetrics("live", CollectorRegistry()), stop)
    thread = threading.Thread(target=processor.run)
    thread.start()
    assert writing.wait(10)
    stop.set()
    thread.join(20)
    assert not thread.is_alive()
    assert log.committed == {0: 4, 1: 4}
    assert store.stored == {0: [0, 1, 2, 3], 1: [0, 1, 2, 3]}


def test_a_bug_in_the_sink_ends_the_loop_and_is_heard_of() -> None:
    def before_write(records: Sequence[LogRecord]) -> None:
        if records:
            raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        run_until(Log(4, 2), Store(before_write), lambda: False)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.floats(0, 0.4), st.floats(0, 0.4))
def test_whatever_happens_every_message_is_stored_once_and_in_order(
    seed: int, batch: int, write_risk: float, poll_risk: float
) -> None:
    of_writes, of_polls = random.Random(seed), random.Random(seed + 1)

    def before_write(_: Sequence[LogRecord]) -> None:
        if of_writes.random() < 0.3:
            time.sleep(0.001)
        if of_writes.random() < write_risk:
            raise DependencyUnavailable("the store is away")

    def disturb(log: Log) -> None:
        if of_polls.random() < poll_risk:
            what = of_polls.choice(["revoke", "lose", "fail"])
            if what == "fail":
                raise DependencyUnavailable("the log is away")
            if log.assigned:
                getattr(log, what)()

    store = Store(before_write)
    log = Log(15, batch, disturb)
    run_until(log, store, lambda: all(len(offsets) == 15 for offsets in store.stored.values()))
    assert store.stored == {0: list(range(15)), 1: list(range(15))}
    assert all(offset <= 15 for offset in log.committed.values())
