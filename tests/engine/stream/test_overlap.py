"""The loop by itself, over a log and a sink in memory: what overlaps, what waits, and what failures do to both."""

import random
import threading
import time
from collections.abc import Iterable, Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from engine.errors import DependencyUnavailable, LogMismatch, LogShorter
from engine.stream.log_identity import LogNow
from engine.stream.metrics import ProcessorMetrics
from engine.stream.processor import Processor
from engine.stream.protocols import LogRecord
from tests.engine.stream.in_memory import PAYLOAD, POISON, READ, Letters, Log, Store, run_until
from tests.engine.stream.logs import IDENTITY, OTHER_CLUSTER, OTHER_TOPIC


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
    started = time.perf_counter()
    _, registry = run_until(log, store, lambda: len(store.stored[0]) == 6, letters)
    assert letters.sent == [(2, 1), (4, 2)]
    figures = {
        name: registry.get_sample_value(f"engine_processor_{name}", {"sink": "live"}) or 0
        for name in ("events_total", "poison_total", "batch_seconds_count", "batch_seconds_sum")
    }
    assert 0 < figures.pop("batch_seconds_sum") < 3 * (time.perf_counter() - started)
    assert figures == {"events_total": 4, "poison_total": 2, "batch_seconds_count": 3}


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


def test_the_lag_is_told_once_a_second() -> None:
    log, store = Log(300, 1), Store()
    _, registry = run_until(log, store, lambda: len(store.stored[1]) == 300)
    assert registry.get_sample_value("engine_processor_lag", {"sink": "live"}) == 7
    assert all(after - before > 0.9 for before, after in pairwise(log.lag_asked))


def test_what_retention_removed_unread_is_counted_once_whatever_fails_before_it_is_stored() -> None:
    failures = iter([12, 15, 15])

    def before_write(records: Sequence[LogRecord]) -> None:
        if records and (removed := next(failures, None)) is not None:
            log.first = removed
            raise DependencyUnavailable("away")

    log, store = Log(20, 3), Store(before_write)
    log.first = 10
    _, registry = run_until(log, store, lambda: len(store.stored[1]) == 5)
    assert store.stored == {0: list(range(15, 20)), 1: list(range(15, 20))}
    assert registry.get_sample_value("engine_processor_expired_total", {"sink": "live"}) == 30


def test_another_log_is_read_from_its_beginning_where_that_is_accepted() -> None:
    log, store = Log(10, 3), Store(of=OTHER_TOPIC, ahead=5)
    _, registry = run_until(log, store, lambda: len(store.stored[1]) == 10)
    assert store.stored == {0: list(range(10)), 1: list(range(10))}
    assert registry.get_sample_value("engine_processor_new_logs_total", {"sink": "live"}) == 2
    assert registry.get_sample_value("engine_processor_log_mismatch", {"sink": "live"}) == 0
    registry, store = CollectorRegistry(), Store(of=OTHER_CLUSTER, ahead=5)
    with pytest.raises(LogMismatch):
        Processor(Log(10, 3), READ, store, ProcessorMetrics("live", registry), threading.Event()).run()
    assert registry.get_sample_value("engine_processor_log_mismatch", {"sink": "live"}) == 1
    assert store.writes == 0


def test_a_log_that_is_too_short_is_looked_at_again_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.stream.processor._SHORT_S", 1.0)
    looks = iter([True, False, True, False])

    class Returning(Log):
        """Shorter than what is stored, at every other look."""

        def log(self, partitions: Iterable[int]) -> LogNow:
            self.end = 2 if partitions and next(looks, False) else 20
            return super().log(partitions)

    def before_write(records: Sequence[LogRecord]) -> None:
        if records and not waited:
            waited.append(True)
            time.sleep(1.1)
            raise DependencyUnavailable("away")

    waited: list[bool] = []
    log, store = Returning(20, 3), Store(before_write, IDENTITY)
    store.stored = {0: [0, 1, 2], 1: [0, 1, 2]}
    run_until(log, store, lambda: len(store.stored[1]) == 20)

    registry, log, started = CollectorRegistry(), Log(20, 3), time.monotonic()
    log.end = 2
    store = Store(of=IDENTITY, ahead=3)
    with pytest.raises(LogShorter):
        Processor(log, READ, store, ProcessorMetrics("live", registry), threading.Event()).run()
    assert time.monotonic() - started >= 1.0
    assert registry.get_sample_value("engine_processor_log_mismatch", {"sink": "live"}) == 1


def test_nothing_is_read_while_a_failure_is_waited_out() -> None:
    """What is read then is dropped; of a large log that would be much, and again at every try."""
    failures = iter([True])

    def before_write(records: Sequence[LogRecord]) -> None:
        if records and next(failures, False):
            raise DependencyUnavailable("away")

    log, store, stop = Log(100, 1), Store(before_write), threading.Event()
    processor = Processor(log, READ, store, ProcessorMetrics("live", CollectorRegistry()), stop, retry_max_s=10.0)
    thread = threading.Thread(target=processor.run)
    thread.start()
    while len(store.stored[1]) < 100 and thread.is_alive():
        time.sleep(0.001)
    stop.set()
    thread.join(20)
    # Two messages in each batch: the one that failed, and the one behind it.
    assert 200 < log.handed_out <= 204


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
