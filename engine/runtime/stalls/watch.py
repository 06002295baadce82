"""Watch an event loop and the collector: figures of every pause, and the cause of the long ones."""

import asyncio
import json
import logging
import os
import sys
import sysconfig
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import FrameType
from typing import Final, Protocol

from engine.config.serving import StallsConfig
from engine.runtime.stalls.cause import Cause, Frames, PauseEvidence, Stack, Stall, explain
from engine.runtime.stalls.collector import Collection, CollectorClock
from engine.runtime.stalls.usage import Sample, ThreadUsage, used_between

log = logging.getLogger(__name__)

# Shorter pauses are in the histogram alone: explaining them would cost more than they do.
EXPLAINED_S: Final = 0.005
# Who wakes up later than this was held up.
_LATE_S: Final = 0.003
_DEEPEST: Final = 12
# Looks at one long pause; they get rarer as it goes on.
_MOST_LOOKS: Final = 16
# Lines about pauses of the process's own making, and about the machine's, are at least so far apart.
OWN_LINE_PERIOD_S: Final = 10.0
MACHINE_LINE_PERIOD_S: Final = 60.0
# Where code lies, the innermost directory first: what follows is said of a file.
_PLACES: Final = tuple(
    f"{path}{os.sep}"
    for path in (sysconfig.get_path("purelib"), Path(__file__).parents[3], sysconfig.get_path("stdlib"))
)
# Collections older than this explain no pause that is still to be explained.
_REMEMBERED_S: Final = 30.0


class PauseSink(Protocol):
    """Who counts; implemented by engine.runtime.stalls.metrics.StallMetrics."""

    def collected(self, collection: Collection) -> None: ...

    def lagged(self, seconds: float) -> None: ...

    def stalled(self, stall: Stall) -> None: ...


@asynccontextmanager
async def watching(settings: StallsConfig, sink: PauseSink | None = None) -> AsyncIterator[None]:
    """Watch the running event loop for as long as the context lasts.

    Args:
        sink: who is told of every pause and collection.

    Cost: two short wake-ups every `stalls.period_ms`, one of the loop and one of a thread: together under 1% of a core
    with the default of 10 ms.
    """
    watch = _Watch(settings, sink)
    thread = threading.Thread(target=watch.run, name="engine-stall-watch", daemon=True)
    heart = asyncio.create_task(watch.beat())
    thread.start()
    try:
        yield
    finally:
        heart.cancel()
        watch.stop.set()
        await asyncio.to_thread(thread.join)


@contextmanager
def timing_collections(sink: PauseSink, period_s: float = 1.0) -> Iterator[None]:
    """Tell a sink of every collection, for processes without an event loop."""
    clock, stop = CollectorClock(), threading.Event()

    def follow() -> None:
        while not stop.wait(period_s):
            for collection in clock.take():
                sink.collected(collection)

    thread = threading.Thread(target=follow, name="engine-collector-clock", daemon=True)
    clock.start()
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        clock.stop()


class _Watch:
    """One loop's. `beat` belongs to the loop, the rest to the watching thread."""

    def __init__(self, settings: StallsConfig, sink: PauseSink | None) -> None:
        self.stop = threading.Event()
        self._period_s = settings.period_ms / 1000.0
        self._log_s = settings.log_ms / 1000.0
        self._record = settings.record
        self._sink = sink
        self._loop_thread = threading.get_native_id()
        self._due = time.monotonic() + self._period_s
        # (due, ran) of pauses that are to be explained.
        self._pauses: deque[tuple[float, float]] = deque(maxlen=64)
        self._collector = CollectorClock()
        self._collections: deque[Collection] = deque(maxlen=1024)
        self._frames: deque[Frames] = deque(maxlen=2 * _MOST_LOOKS)
        self._lines = {True: _RecordLines(OWN_LINE_PERIOD_S), False: _RecordLines(MACHINE_LINE_PERIOD_S)}

    async def beat(self) -> None:
        while True:
            await asyncio.sleep(self._period_s)
            now = time.monotonic()
            late = now - self._due
            if self._sink is not None:
                self._sink.lagged(max(late, 0.0))
            if late >= EXPLAINED_S:
                self._pauses.append((self._due, now))
            self._due = now + self._period_s

    def run(self) -> None:
        """Look every period until told to stop."""
        usage = ThreadUsage()
        self._collector.start()
        try:
            self._follow(usage)
        except Exception:  # nobody waits for this thread: it would end without a word
            log.exception("stalls are not watched any more")
        finally:
            self._collector.stop()
            usage.close()

    def _follow(self, usage: ThreadUsage) -> None:
        own = threading.get_native_id()
        # From before any pause that is to be explained.
        samples: deque[Sample] = deque([usage.sample()], maxlen=4)
        looks, woken = 0, time.monotonic()
        while not self.stop.wait(self._period_s):
            now = time.monotonic()
            held_up = now - woken > self._period_s + _LATE_S
            late = now - self._due > _LATE_S
            looks = looks + 1 if late else 0
            # Ever rarer: 1, 2, 4, 8 periods into the pause.
            if held_up or (late and looks & (looks - 1) == 0 and looks < 1 << _MOST_LOOKS):
                self._frames.append(self._look(now, held_up))
            for collection in self._collector.take():
                self._collections.append(collection)
                if self._sink is not None:
                    self._sink.collected(collection)
            while self._pauses:
                due, ran = self._pauses.popleft()
                self._tell(self._explain(due, ran, own, samples, usage))
            if not late:
                samples.append(usage.sample())
            # The time that the work above took is no delay.
            woken = time.monotonic()

    def _explain(self, due: float, ran: float, own: int, samples: deque[Sample], usage: ThreadUsage) -> Stall:
        before = next((sample for sample in reversed(samples) if sample.at <= due), samples[0])
        used = used_between(before, usage.sample())
        while self._collections and self._collections[0].ended < ran - _REMEMBERED_S:
            self._collections.popleft()
        idents = {
            thread.ident: thread.native_id
            for thread in threading.enumerate()
            if thread.ident is not None and thread.native_id is not None
        }
        frames = [frames for frames in self._frames if due <= frames.at]
        evidence = PauseEvidence(
            due, ran, self._loop_thread, own, used, tuple(self._collections), frames, dict(usage.names), idents
        )
        return explain(evidence)

    def _look(self, now: float, held_up: bool) -> Frames:
        native = {thread.ident: thread.native_id for thread in threading.enumerate()}
        own = threading.get_ident()
        stacks = {
            thread: _stack(frame)
            for ident, frame in sys._current_frames().items()
            if ident != own and (thread := native.get(ident)) is not None
        }
        return Frames(now, stacks, held_up, _state(self._loop_thread))

    def _tell(self, stall: Stall) -> None:
        if self._record is not None:
            with self._record.open("a") as file:
                file.write(json.dumps({"pid": os.getpid(), **stall.to_dict()}) + "\n")
        if stall.pause_ms < self._log_s * 1000.0:
            return
        if self._sink is not None:
            self._sink.stalled(stall)
        own = stall.cause is not Cause.MACHINE
        line = self._lines[own].about(stall, time.monotonic())
        if line:
            log.log(logging.WARNING if own else logging.INFO, "the event loop stood still for %s", line)


class _RecordLines:
    """Writes of one pause in a while; the next line says how many it did not write of."""

    def __init__(self, period_s: float) -> None:
        self._period_s = period_s
        self._next = float("-inf")
        self._unwritten = 0

    def about(self, stall: Stall, now: float) -> str:
        """The line; empty while it is too early for one."""
        if now < self._next:
            self._unwritten += 1
            return ""
        more = f" ({self._unwritten} more since the last such line)" if self._unwritten else ""
        self._next, self._unwritten = now + self._period_s, 0
        return f"{stall}{more}"


def _stack(frame: FrameType | None) -> Stack:
    lines: list[str] = []
    while frame is not None and len(lines) < _DEEPEST:
        file = frame.f_code.co_filename
        for place in _PLACES:
            file = file.removeprefix(place)
        lines.append(f"{file}:{frame.f_lineno} {frame.f_code.co_name}")
        frame = frame.f_back
    return tuple(lines)


def _state(thread: int) -> str:
    """The letter that /proc has for what a thread does; "" where there is none."""
    try:
        text = Path(f"/proc/self/task/{thread}/stat").read_text()
    except OSError:
        return ""
    return text.rpartition(")")[2].split()[0]
