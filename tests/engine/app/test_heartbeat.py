"""Whether a process is dead or starved, on real ones."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from engine.app.heartbeat import BEAT, BUSY, FREE, SERVING, Pulse, Verdict, states, waited_s

SPINNING = "while True: pass"


@contextmanager
def process_of(script: str, *wrapper: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([*wrapper, sys.executable, "-c", script]) as process:
        try:
            yield process
        finally:
            process.kill()


def verdicts(process_id: int, limit_s: float = 1.0, looks: int = 10, pause_s: float = 0.0) -> list[Verdict]:
    """Of a process that served and is silent from then on; a look every eighth of the limit."""
    pulse = Pulse(600.0, limit_s)
    pulse.beat(SERVING)
    found = []
    for _ in range(looks):
        time.sleep(pause_s)
        found.append(pulse.look(process_id, limit_s / 8))
    return found


def test_a_silence_up_to_the_limit_is_none() -> None:
    with process_of("import time; time.sleep(60)") as process:
        assert verdicts(process.pid) == [Verdict.ALIVE] * 6 + [Verdict.DEAD] * 4


def test_every_beat_starts_anew_and_limits_are_longer_for_a_start_and_while_busy() -> None:
    pulse = Pulse(start_s=100.0, limit_s=1.0)
    me = os.getpid()
    assert pulse.look(me, 30.0) is Verdict.ALIVE
    pulse.beat(BUSY)
    pulse.beat(FREE)
    assert pulse.limit_s == 100.0
    assert pulse.look(me, 30.0) is Verdict.ALIVE
    pulse.beat(SERVING)
    for _ in range(20):
        assert pulse.look(me, 0.4) is Verdict.ALIVE
        pulse.beat(BEAT)
    pulse.beat(BUSY)
    pulse.beat(BUSY)
    pulse.beat(FREE)
    assert pulse.look(me, 4.0) is Verdict.ALIVE
    pulse.beat(FREE)
    assert pulse.look(me, 4.0) is not Verdict.ALIVE


def test_a_stopped_process_is_dead_and_said_to_be_stopped() -> None:
    with process_of(SPINNING) as process:
        os.kill(process.pid, signal.SIGSTOP)
        while "T" not in states(process.pid):
            time.sleep(0.01)
        assert verdicts(process.pid, pause_s=0.02)[-1] is Verdict.DEAD
    assert states(process.pid) == set()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="binds processes to one processor")
def test_a_process_that_gets_no_processor_is_silent_and_not_dead_for_a_while() -> None:
    processor = next(iter(os.sched_getaffinity(0)))

    # Those beside it have all of the processor, as neighbours on a machine that is too small have.
    with (
        process_of(SPINNING, "nice", "-n", "19") as starved,
        process_of(SPINNING) as one,
        process_of(SPINNING) as other,
    ):
        for process in (starved, one, other):
            os.sched_setaffinity(process.pid, {processor})
        # Until it has started, whatever there is to wait for.
        while not waited_s(starved.pid):
            time.sleep(0.01)
        time.sleep(0.5)
        found = verdicts(starved.pid, looks=48, pause_s=0.1)
    assert found[:6] == [Verdict.ALIVE] * 6
    assert Verdict.SILENT in found
    # However starved, it does not serve: by five limits another one is tried.
    assert found[-1] is Verdict.DEAD
