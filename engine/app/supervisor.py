"""The supervisor of several serving processes: starts them, replaces those that end, drains them.

Each worker is a fresh interpreter (`engine.cli.worker`), not a fork: neither gRPC nor threads survive one. The
supervisor loads none of what serves, answers no request, and so has little in it that could fail. With
`device.process` there is one process more, in place 0, which searches and ranks for all workers (`engine.cli.device`):
it is the first to start and the last to end.

What the two say to each other, through the worker's standard streams:

    stdin    one line, the settings as JSON; then nothing, and its end tells the worker that the supervisor is gone
    stdout   SERVING once it serves, FAILED and a sentence where an error ends it; a line each
"""

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from engine.errors import EngineError

log = logging.getLogger(__name__)

SERVING: Final = "serving"
FAILED: Final = "failed"
WORKER_COMMAND: Final = (sys.executable, "-m", "engine.cli.worker")
DEVICE_COMMAND: Final = (sys.executable, "-m", "engine.cli.device")
_DEVICE_PLACE: Final = 0
# Beyond the drain: closing Redis and Kafka, and leaving the interpreter.
_END_TIMEOUT_S: Final = 15.0
# It has nothing to finish by then, and nothing to lose.
_DEVICE_END_TIMEOUT_S: Final = 3.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How ends that nobody asked for are borne.

    failed_starts: this many of one worker in a row, without having served in between, end everything.
    first_pause_s, longest_pause_s: before a worker is started again; doubled with each early end.
    steady_s: an end after having served for so long is not an early one, and the worker is replaced at once.
    """

    failed_starts: int = 3
    first_pause_s: float = 0.5
    longest_pause_s: float = 30.0
    steady_s: float = 30.0

    def pause_s(self, early_ends: int) -> float:
        """The wait before the next start, after this many early ends in a row."""
        if early_ends == 0:
            return 0.0
        return float(min(self.first_pause_s * 2.0 ** min(early_ends - 1, 32), self.longest_pause_s))


class WorkerMetrics(Protocol):
    """Who keeps the workers' figures; implemented by engine.rpc.metrics_endpoint.MetricsEndpoint."""

    @property
    def environment(self) -> dict[str, str]: ...

    def serving(self, workers: int) -> None: ...

    def ended(self, process_id: int, *, unexpected: bool) -> None: ...


@dataclass(frozen=True, slots=True)
class Program:
    """What a process is. settings: one line, which it reads from its standard input. command: its place is added."""

    settings: str
    command: Sequence[str] = WORKER_COMMAND


class Supervisor:
    """Keeps `workers` processes running until told to stop.

    Args:
        workers: how many.
        settings: what each of them reads from its standard input; one line.
        drain_s: how long a worker that was told to end may take for its requests.
        metrics: who is told of their ends; none where nobody measures.
        command: what a worker is; its place among the workers, from 1, becomes the last argument.
        patience: see there.
        device: the process that all of them need, if any.
    """

    def __init__(
        self,
        workers: int,
        settings: str,
        drain_s: float,
        metrics: WorkerMetrics | None = None,
        command: Sequence[str] = WORKER_COMMAND,
        patience: Patience | None = None,
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
        self._patience = patience or Patience()
        self._stopping = asyncio.Event()
        self._running: dict[int, asyncio.subprocess.Process] = {}
        self._serving: set[int] = set()
        self._ready = False

    async def run(self) -> None:
        """Start all workers side by side and keep them until `stop`, or until one of them cannot be kept.

        Raises:
            EngineError: a worker ended too often before it served; the text has its last words.
        """
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
        self._signal_running([place for place in self._running if place != _DEVICE_PLACE])

    def _signal_running(self, places: Sequence[int]) -> None:
        for place in places:
            if place in self._running:
                _signal(self._running[place], signal.SIGTERM)

    def _told_to_end(self, place: int) -> asyncio.Event:
        return self._drained if place == _DEVICE_PLACE else self._stopping

    async def _keep(self, place: int) -> None:
        """One process after the other in this place."""
        failed_starts = early_ends = 0
        told_to_end, name = self._told_to_end(place), _name(place)
        while not told_to_end.is_set():
            started = await self._live(place)
            if told_to_end.is_set():
                return
            failed_starts = 0 if started.served else failed_starts + 1
            early_ends = 0 if started.served_s >= self._patience.steady_s else early_ends + 1
            if failed_starts == self._patience.failed_starts:
                kind = name if place == _DEVICE_PLACE else "a worker"
                raise EngineError(
                    f"{kind} ended {failed_starts} times in a row before it served, lastly {started.last_words}"
                )
            pause_s = self._patience.pause_s(early_ends)
            log.error("%s ended %s; another one in %.1f s", name, started.last_words, pause_s)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await told_to_end.wait()

    async def _live(self, place: int) -> "_Life":
        """One process from start to end."""
        program = self._device if place == _DEVICE_PLACE else self._worker
        assert program is not None
        told_to_end = self._told_to_end(place)
        process = await asyncio.create_subprocess_exec(
            *program.command,
            str(place),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            # Ctrl-C in a terminal reaches the whole group; to a worker the supervisor alone says when to end, once.
            start_new_session=True,
            env=os.environ | (self._metrics.environment if self._metrics else {}),
        )
        self._running[place] = process
        if told_to_end.is_set():
            _signal(process, signal.SIGTERM)
        served_since = None
        try:
            await self._instruct(process, program.settings)
            words = await self._hear(process)
            if words == SERVING:
                served_since = time.monotonic()
                self._serves(place, process.pid)
            code = await self._end(process, told_to_end)
            words = await self._hear(process) or words
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
            del self._running[place]
            self._serving.discard(place)
            if self._metrics is not None:
                self._metrics.serving(len(self._serving))
                self._metrics.ended(process.pid, unexpected=not told_to_end.is_set())
        said_why = words.startswith(FAILED)
        last_words = f"saying: {words.removeprefix(FAILED).strip()}" if said_why else _describe(code)
        served_s = 0.0 if served_since is None else time.monotonic() - served_since
        return _Life(served_since is not None, served_s, last_words)

    @staticmethod
    async def _instruct(process: asyncio.subprocess.Process, settings: str) -> None:
        assert process.stdin is not None
        # It can have ended already; how, its exit status tells.
        with contextlib.suppress(ConnectionError):
            process.stdin.write(settings.encode() + b"\n")
            await process.stdin.drain()

    @staticmethod
    async def _hear(process: asyncio.subprocess.Process) -> str:
        """The next line that it says; empty once it will say nothing more."""
        assert process.stdout is not None
        return (await process.stdout.readline()).decode(errors="replace").strip()

    async def _end(self, process: asyncio.subprocess.Process, told_to_end: asyncio.Event) -> int:
        """Wait for its end; once told to stop, for a bounded time."""
        ended = asyncio.ensure_future(process.wait())
        stopping = asyncio.ensure_future(told_to_end.wait())
        await asyncio.wait((ended, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        try:
            patience_s = self._drain_s + _END_TIMEOUT_S if told_to_end is self._stopping else _DEVICE_END_TIMEOUT_S
            return await asyncio.wait_for(ended, None if ended.done() else patience_s)
        except TimeoutError:
            log.error("process %d does not end, and is killed", process.pid)
            process.kill()
            return await process.wait()

    def _serves(self, place: int, process_id: int) -> None:
        log.info("%s serves (process %d)", _name(place), process_id)
        if place == _DEVICE_PLACE:
            self._device_served.set()
            return
        self._serving.add(place)
        if self._metrics is not None:
            self._metrics.serving(len(self._serving))
        if not self._ready and len(self._serving) == self._workers:
            self._ready = True
            log.info("ready: %d workers serve", self._workers)


@dataclass(frozen=True, slots=True)
class _Life:
    """How one worker fared. served_s: seconds. last_words: what it said of its end, or how its process ended."""

    served: bool
    served_s: float
    last_words: str


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)


def _name(place: int) -> str:
    return "the device process" if place == _DEVICE_PLACE else f"worker {place}"


async def _first_of(*events: asyncio.Event) -> None:
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()


def _describe(code: int) -> str:
    """Follows "ended"."""
    return f"by {signal.Signals(-code).name}" if code < 0 else f"with exit status {code}"
