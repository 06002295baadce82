"""Nothing lost, nothing twice, in order, in time: whatever comes together while the device is busy."""

import random
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.batching.micro_batcher import BatchGroup, MicroBatcher
from engine.errors import DeadlineExceeded, EngineError, Overloaded

NEVER = float("inf")
PATIENCE_S = 30.0


class Device:
    """Notes its batches, and can be held: what is submitted meanwhile must wait."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.busy, self.free = threading.Event(), threading.Event()
        self.free.set()

    def run(self, requests: Sequence[int]) -> list[int]:
        self.batches.append(list(requests))
        self.busy.set()
        assert self.free.wait(PATIENCE_S)
        return [-request for request in requests]

    def hold(self, group: BatchGroup[int, int]) -> "Future[int]":
        """Occupy the device with request 0."""
        self.free.clear()
        self.busy.clear()
        future = group.submit(0, NEVER)
        assert self.busy.wait(PATIENCE_S)
        return future


@pytest.fixture
def device() -> Device:
    return Device()


@pytest.fixture
def batcher(device: Device) -> Iterator[MicroBatcher]:
    with MicroBatcher(max_batch=4, max_queued=100) as batcher:
        yield batcher
        device.free.set()


def test_an_idle_device_serves_at_once_and_alone(device: Device, batcher: MicroBatcher) -> None:
    group = batcher.group(device.run)
    assert [group(request, NEVER) for request in (5, 6, 7)] == [-5, -6, -7]
    assert device.batches == [[5], [6], [7]]


def test_what_comes_while_it_is_busy_is_served_together_in_order_up_to_the_cap(
    device: Device, batcher: MicroBatcher
) -> None:
    group = batcher.group(device.run)
    held = device.hold(group)
    futures = [group.submit(request, NEVER) for request in range(1, 11)]
    device.free.set()
    assert [future.result(PATIENCE_S) for future in (held, *futures)] == [-request for request in range(11)]
    assert device.batches == [[0], [1, 2, 3, 4], [5, 6, 7, 8], [9, 10]]


def test_lanes_do_not_mix_and_the_oldest_goes_first(device: Device, batcher: MicroBatcher) -> None:
    one, other = batcher.group(device.run), batcher.group(device.run)
    held = device.hold(one)
    futures = [(one if request % 2 else other).submit(request, NEVER) for request in (2, 1, 4, 3, 6)]
    device.free.set()
    assert [future.result(PATIENCE_S) for future in (held, *futures)] == [0, -2, -1, -4, -3, -6]
    assert device.batches == [[0], [2, 4, 6], [1, 3]]


def test_what_is_past_its_deadline_never_reaches_the_device(device: Device, batcher: MicroBatcher) -> None:
    group = batcher.group(device.run)
    device.hold(group)
    late = group.submit(1, time.monotonic() + 0.01)
    early = group.submit(2, time.monotonic() + PATIENCE_S)
    time.sleep(0.02)
    device.free.set()
    assert early.result(PATIENCE_S) == -2
    with pytest.raises(DeadlineExceeded):
        late.result(PATIENCE_S)
    assert device.batches == [[0], [2]]


def test_a_caller_waits_no_longer_than_its_deadline_though_the_device_does_not_come_back(
    device: Device, batcher: MicroBatcher
) -> None:
    group = batcher.group(device.run)
    device.hold(group)
    with pytest.raises(DeadlineExceeded):
        group(1, time.monotonic() + 0.02)
    device.free.set()
    assert group(2, NEVER) == -2
    assert device.batches == [[0], [2]]


def test_what_was_cancelled_in_time_is_not_served(device: Device, batcher: MicroBatcher) -> None:
    group = batcher.group(device.run)
    held = device.hold(group)
    futures = [group.submit(request, NEVER) for request in (1, 2, 3)]
    assert futures[1].cancel()
    assert not held.cancel()
    device.free.set()
    assert futures[2].result(PATIENCE_S) == -3
    with pytest.raises(CancelledError):
        futures[1].result(PATIENCE_S)
    assert device.batches == [[0], [1, 3]]


def test_the_error_of_a_batch_reaches_each_of_its_requests_and_no_others(batcher: MicroBatcher) -> None:
    device = Device()

    def run(requests: Sequence[int]) -> list[int]:
        answers = device.run(requests)
        if 2 in requests:
            raise RuntimeError("the device fell over")
        return answers

    group = batcher.group(run)
    held = device.hold(group)
    futures = [group.submit(request, NEVER) for request in range(1, 7)]
    device.free.set()
    for future in futures[:4]:
        with pytest.raises(RuntimeError, match="fell over"):
            future.result(PATIENCE_S)
    assert [future.result(PATIENCE_S) for future in (held, *futures[4:])] == [0, -5, -6]


def test_an_answer_that_is_an_error_is_for_its_request_alone(batcher: MicroBatcher) -> None:
    device = Device()
    group = batcher.group(lambda requests: [EngineError("bad") if one == 2 else one for one in device.run(requests)])
    device.hold(group)
    futures = [group.submit(request, NEVER) for request in (-1, -2, -3)]
    device.free.set()
    assert [futures[0].result(PATIENCE_S), futures[2].result(PATIENCE_S)] == [1, 3]
    with pytest.raises(EngineError, match="bad"):
        futures[1].result(PATIENCE_S)


def test_a_wrong_number_of_answers_is_an_error_not_a_mix_up(batcher: MicroBatcher) -> None:
    with pytest.raises(EngineError, match="1 requests got 2 answers"):
        batcher.group(lambda requests: [*requests, *requests])(1, NEVER)


def test_a_full_queue_refuses_at_once(device: Device) -> None:
    with MicroBatcher(max_batch=4, max_queued=3) as batcher:
        group = batcher.group(device.run)
        device.hold(group)
        futures = [group.submit(request, NEVER) for request in (1, 2, 3)]
        with pytest.raises(Overloaded):
            group.submit(4, NEVER)
        device.free.set()
        assert [future.result(PATIENCE_S) for future in futures] == [-1, -2, -3]


def test_closing_serves_what_is_queued_and_refuses_what_comes(device: Device) -> None:
    batcher = MicroBatcher(max_batch=2, max_queued=10)
    group = batcher.group(device.run)
    device.hold(group)
    futures = [group.submit(request, NEVER) for request in (1, 2, 3)]
    closer = threading.Thread(target=batcher.close)
    closer.start()
    device.free.set()
    closer.join(PATIENCE_S)
    assert [future.result(0) for future in futures] == [-1, -2, -3]
    with pytest.raises(EngineError, match="given up"):
        group.submit(4, NEVER)
    batcher.close()


@settings(deadline=None, max_examples=25)
@given(max_batch=st.integers(1, 8), threads=st.integers(1, 8), each=st.integers(1, 25), seed=st.integers(0, 2**32 - 1))
def test_many_threads_lose_nothing_and_get_nothing_twice(max_batch: int, threads: int, each: int, seed: int) -> None:
    served: list[tuple[int, list[int]]] = []

    def make_run(which: int):  # type: ignore[no-untyped-def]
        def run(requests: Sequence[int]) -> list[tuple[int, int]]:
            served.append((which, list(requests)))
            return [(which, request) for request in requests]

        return run

    def ask(caller: int) -> list[tuple[int, tuple[int, int] | None]]:
        draw, found = random.Random(seed + caller), []
        for position in range(each):
            request, which = caller * 1000 + position, draw.randrange(2)
            kind = draw.randrange(10)
            if kind == 0:  # already late
                with pytest.raises(DeadlineExceeded):
                    groups[which](request, time.monotonic() - 1)
            elif kind == 1:
                future = groups[which].submit(request, NEVER)
                found.append((which, None if future.cancel() else future.result(PATIENCE_S)))
            else:
                found.append((which, groups[which](request, NEVER)))
                assert found[-1][1] == (which, request)
        return found

    with MicroBatcher(max_batch, max_queued=1000) as batcher, ThreadPoolExecutor(threads) as pool:
        groups = [batcher.group(make_run(which)) for which in range(2)]
        answers = [answer for answers in pool.map(ask, range(threads)) for _, answer in answers if answer is not None]
    assert all(1 <= len(batch) <= max_batch for _, batch in served)
    flat = [(which, request) for which, batch in served for request in batch]
    assert len(flat) == len(set(flat))
    assert sorted(flat) == sorted(answers)
    for caller in range(threads):
        own = [request for _, request in flat if request // 1000 == caller]
        assert own == sorted(own)


def test_no_batcher_can_serve_nobody() -> None:
    for sizes in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match="can serve nobody"):
            MicroBatcher(*sizes)
