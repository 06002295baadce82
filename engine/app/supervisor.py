"""The supervisor of several serving processes: starts them, replaces those that end, drains them.

Each worker is a new interpreter (`engine.cli.worker`), not a fork: neither gRPC nor threads survive a fork. The
supervisor loads none of what serves, answers no request, and so has little in it that could fail. With
`device.process` there is one process more, in place 0, which searches and ranks for all workers (`engine.cli.device`):
it is the first to start and the last to end.

What the two say to each other, through the worker's standard streams:

    stdin    one line, the settings as JSON; then nothing, and its end tells the worker that the supervisor is gone
    stdout   SERVING once it serves, FAILED and a sentence where an error ends it; from SERVING on what
             engine.app.heartbeat names; a line each
"""

import asyncio
import contextlib
import logging
import os
import random
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from engine.app.child import Child
from engine.app.heartbeat import LOOKS, SERVING, Pulse, Verdict
from engine.errors import EngineError, described

log = logging.getLogger(__name__)

WORKER_COMMAND: Final = (sys.executable, "-m", "engine.cli.worker")
DEVICE_COMMAND: Final = (sys.executable, "-m", "engine.cli.device")
_DEVICE_PLACE: Final = 0
# Beyond the drain: closing Redis and Kafka, and leaving the interpreter.
_END_TIMEOUT_S: Final = 15.0
# It has nothing to finish by then, and nothing to lose.
_DEVICE_END_TIMEOUT_S: Final = 3.0


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """When a process that ended unasked is started again, and when a silent one is killed.

    failed_starts: the supervisor gives up after so many starts of one process in a row that never served. Once any
        worker has served, it never gives up.
    first_pause_s, longest_pause_s: pause before the next start; each early end doubles it.
    jitter: share by which a pause is made longer or shorter, so that processes do not start in step.
    steady_s: an end after serving for so long is not early; the process is replaced at once.
    heartbeat_s: a process that has served and is silent for so long is killed; 0: never.
    start_s: the same for a process that has not served yet.
    """

    failed_starts: int = 3
    first_pause_s: float = 0.5
    longest_pause_s: float = 30.0
    jitter: float = 0.2
    steady_s: float = 30.0
    heartbeat_s: float = 0.0
    start_s: float = 600.0

    def pause_s(self, early_ends: int) -> float:
        """The wait before the next start, after this many early ends in a row."""
        if early_ends == 0:
            return 0.0
        pause_s = float(min(self.first_pause_s * 2.0 ** min(early_ends - 1, 32), self.longest_pause_s))
        return pause_s * random.uniform(1.0 - self.jitter, 1.0 + self.jitter)


class WorkerMetrics(Protocol):
    """Keeps the workers' figures; implemented by engine.rpc.metrics_endpoint.MetricsEndpoint."""

    @property
    def environment(self) -> dict[str, str]: ...

    def serving(self, workers: int) -> None: ...

    def silent(self) -> None: ...

    def ended(self, process_id: int, *, unexpected: bool) -> None: ...


@dataclass(frozen=True, slots=True)
class Program:
    """How to start a process. settings: the line for its standard input. command: the process's place is appended."""

    settings: str
    command: Sequence[str] = WORKER_COMMAND


class Supervisor:
    """Keeps `workers` processes running until told to stop.

    A worker that cannot start never ends those that serve: the supervisor keeps trying.

    Args:
        workers: how many.
        settings: one line, which each worker reads from its standard input.
        drain_s: how long a worker may take for its requests after it was told to end.
        metrics: counts the workers' ends; None: nothing is counted.
        command: starts a worker; the worker's place, from 1, becomes the last argument.
        policy: when a process that has ended is started again.
        device: the process that all workers need, if any.
    """

    def __init__(
        self,
        workers: int,
        settings: str,
        drain_s: float,
        metrics: WorkerMetrics | None = None,
        command: Sequence[str] = WORKER_COMMAND,
        policy: RestartPolicy | None = None,
        device: Program | None = None,
    ) -> None:
        self._workers = workers
        self._worker = Program(settings, command)
        self._device = device
        self._device_served = asyncio.Event()
        # All workers have ended.
        self._drained = asyncio.Event()
        self._drain_s = drain_s
        self._metrics = metrics
        self._policy = policy or RestartPolicy()
        self._stopping = asyncio.Event()
        self._children: dict[int, Child] = {}
        self._ever_served = False
        self._ready = False

    async def run(self) -> None:
        """Start all workers side by side and keep them until `stop`.

        Raises:
            EngineError: a worker ended too often before any had served; the text has its exit reason.
        """
        watch = asyncio.create_task(self._watch()) if self._policy.heartbeat_s else None
        device = None if self._device is None else asyncio.create_task(self._keep(_DEVICE_PLACE))
        keepers: list[asyncio.Task[None]] = []
        try:
            if device is not None:
                device.add_done_callback(lambda _: self.stop())
                await _first_of(self._device_served, self._stopping)
            if not self._stopping.is_set():
                keepers = [asyncio.create_task(self._keep(place)) for place in range(1, self._workers + 1)]
                await asyncio.wait(keepers, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            self.stop()
            if watch is not None:
                watch.cancel()
            ends = await asyncio.gather(*keepers, return_exceptions=True)
            if device is not None:
                # Only now: what the workers had begun they have finished with it.
                self._drained.set()
                self._signal_running([_DEVICE_PLACE])
                ends += await asyncio.gather(device, return_exceptions=True)
        for end in ends:
            if end is not None:
                raise end

    def stop(self) -> None:
        """Have every worker drain and end; called again, have them end at once."""
        self._stopping.set()
        self._signal_running([place for place in self._children if place != _DEVICE_PLACE])

    def _signal_running(self, places: Sequence[int]) -> None:
        for place in places:
            if place in self._children:
                self._children[place].signal(signal.SIGTERM)

    def _told_to_end(self, place: int) -> asyncio.Event:
        return self._drained if place == _DEVICE_PLACE else self._stopping

    async def _keep(self, place: int) -> None:
        """One process after the other in this place."""
        failed_starts = early_ends = 0
        told_to_end, name = self._told_to_end(place), _name(place)
        while not told_to_end.is_set():
            served_s, how = await self._live(place)
            if told_to_end.is_set():
                return
            failed_starts = failed_starts + 1 if served_s is None else 0
            early_ends = 0 if (served_s or 0.0) >= self._policy.steady_s else early_ends + 1
            if failed_starts >= self._policy.failed_starts and not self._ever_served:
                kind = name if place == _DEVICE_PLACE else "a worker"
                raise EngineError(f"{kind} ended {failed_starts} times in a row before it served, lastly {how}")
            pause_s = self._policy.pause_s(early_ends)
            log.error("%s ended %s; another one in %.1f s", name, how, pause_s)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await told_to_end.wait()

    async def _live(self, place: int) -> tuple[float | None, str]:
        """One process from start to end: for how many seconds it served, None if never, and how it ended."""
        program = self._device if place == _DEVICE_PLACE else self._worker
        assert program is not None
        told_to_end = self._told_to_end(place)
        timeout_s = _DEVICE_END_TIMEOUT_S if place == _DEVICE_PLACE else self._drain_s + _END_TIMEOUT_S
        environment = os.environ | (self._metrics.environment if self._metrics else {})
        pulse = Pulse(self._policy.start_s, self._policy.heartbeat_s)
        try:
            child = await Child.start((*program.command, str(place)), environment, pulse)
        except OSError as error:  # no memory, processes or files left for it, at this moment
            return None, f"before it began: {described(error)}"
        self._children[place] = child
        if told_to_end.is_set():
            child.signal(signal.SIGTERM)
        try:
            await child.live(program.settings, lambda words: self._heard(place, child, words), told_to_end, timeout_s)
        finally:
            del self._children[place]
            if self._metrics is not None:
                self._count_serving()
                self._metrics.ended(child.process_id, unexpected=not told_to_end.is_set())
        return child.served_s, child.how

    def _heard(self, place: int, child: Child, words: str) -> None:
        if words == SERVING:
            child.served_since = time.monotonic()
            self._serves(place, child.process_id)
        if child.silent:
            log.warning("%s answers again", _name(place))
            child.silent = False
            self._count_serving()

    async def _watch(self) -> None:
        """Kill processes whose event loop does not answer, forever."""
        period_s = self._policy.heartbeat_s / LOOKS
        looked_at = time.monotonic()
        while True:
            await asyncio.sleep(period_s)
            now = time.monotonic()
            # Where this loop is late, the machine was suspended or is starved, and the processes with it.
            elapsed_s, looked_at = min(now - looked_at, 2.0 * period_s), now
            for place, child in list(self._children.items()):
                if self._told_to_end(place).is_set() or child.dead:
                    continue
                verdict = child.pulse.look(child.process_id, elapsed_s)
                if verdict is not Verdict.ALIVE and not child.silent:
                    child.silent = True
                    self._count_serving()
                    if verdict is Verdict.SILENT:
                        log.warning("%s does not answer, and waits for a processor or the disk", _name(place))
                if verdict is Verdict.DEAD:
                    log.error("%s (process %d) does not answer, and is killed", _name(place), child.process_id)
                    child.give_up()
                    if self._metrics is not None:
                        self._metrics.silent()

    def _serves(self, place: int, process_id: int) -> None:
        log.info("%s serves (process %d)", _name(place), process_id)
        if place == _DEVICE_PLACE:
            self._device_served.set()
            return
        self._ever_served = True
        if self._count_serving() == self._workers and not self._ready:
            self._ready = True
            log.info("ready: %d workers serve", self._workers)

    def _count_serving(self) -> int:
        """The workers that serve and answer, for the metrics, too."""
        serving = sum(
            child.served_since is not None and not child.silent
            for place, child in self._children.items()
            if place != _DEVICE_PLACE
        )
        if self._metrics is not None:
            self._metrics.serving(serving)
        return serving


def _name(place: int) -> str:
    return "the device process" if place == _DEVICE_PLACE else f"worker {place}"


async def _first_of(*events: asyncio.Event) -> None:
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()
