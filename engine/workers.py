"""Several serving processes on one port, and the supervisor that keeps them: starts, replaces, drains.

Each worker is a fresh interpreter (`engine.cli.worker`), not a fork: neither gRPC nor threads survive one. The
supervisor loads none of what serves, answers no request, and so has little in it that could fail.

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
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final, Protocol

from engine.adapters.embedded_kafka import EmbeddedKafka
from engine.adapters.embedded_redis import EmbeddedRedis
from engine.config import EngineConfig
from engine.errors import EngineError
from engine.rpc.port import ReservedPort, address_of

log = logging.getLogger(__name__)

SERVING: Final = "serving"
FAILED: Final = "failed"
WORKER_COMMAND: Final = (sys.executable, "-m", "engine.cli.worker")
# Beyond the drain: closing Redis and Kafka, and leaving the interpreter.
_END_TIMEOUT_S: Final = 15.0


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


class Supervisor:
    """Keeps `workers` processes running until told to stop.

    Args:
        workers: how many.
        settings: what each of them reads from its standard input; one line.
        drain_s: how long a worker that was told to end may take for its requests.
        metrics: who is told of their ends; none where nobody measures.
        command: what a worker is; its place among the workers, from 1, becomes the last argument.
        patience: see there.
    """

    def __init__(
        self,
        workers: int,
        settings: str,
        drain_s: float,
        metrics: WorkerMetrics | None = None,
        command: Sequence[str] = WORKER_COMMAND,
        patience: Patience | None = None,
    ) -> None:
        self._workers = workers
        self._settings = settings.encode() + b"\n"
        self._drain_s = drain_s
        self._metrics = metrics
        self._command = tuple(command)
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
        keepers = [asyncio.create_task(self._keep(place)) for place in range(1, self._workers + 1)]
        try:
            await asyncio.wait(keepers, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            self.stop()
            ends = await asyncio.gather(*keepers, return_exceptions=True)
        for end in ends:
            if end is not None:
                raise end

    def stop(self) -> None:
        """Have every worker drain and end; called again, have them end at once."""
        self._stopping.set()
        for process in self._running.values():
            _signal(process, signal.SIGTERM)

    async def _keep(self, place: int) -> None:
        """One worker after the other in this place."""
        failed_starts = early_ends = 0
        while not self._stopping.is_set():
            started = await self._live(place)
            if self._stopping.is_set():
                return
            failed_starts = 0 if started.served else failed_starts + 1
            early_ends = 0 if started.served_s >= self._patience.steady_s else early_ends + 1
            if failed_starts == self._patience.failed_starts:
                raise EngineError(
                    f"a worker ended {failed_starts} times in a row before it served, lastly {started.last_words}"
                )
            pause_s = self._patience.pause_s(early_ends)
            log.error("worker %d ended %s; another one in %.1f s", place, started.last_words, pause_s)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._stopping.wait()

    async def _live(self, place: int) -> "_Life":
        """One worker from start to end."""
        process = await asyncio.create_subprocess_exec(
            *self._command,
            str(place),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            # Ctrl-C in a terminal reaches the whole group; to a worker the supervisor alone says when to end, once.
            start_new_session=True,
            env=os.environ | (self._metrics.environment if self._metrics else {}),
        )
        self._running[place] = process
        if self._stopping.is_set():
            _signal(process, signal.SIGTERM)
        served_since = None
        try:
            await self._instruct(process)
            words = await self._hear(process)
            if words == SERVING:
                served_since = time.monotonic()
                self._serves(place, process.pid)
            code = await self._end(process)
            words = await self._hear(process) or words
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
            del self._running[place]
            self._serving.discard(place)
            if self._metrics is not None:
                self._metrics.serving(len(self._serving))
                self._metrics.ended(process.pid, unexpected=not self._stopping.is_set())
        said_why = words.startswith(FAILED)
        last_words = f"saying: {words.removeprefix(FAILED).strip()}" if said_why else _describe(code)
        served_s = 0.0 if served_since is None else time.monotonic() - served_since
        return _Life(served_since is not None, served_s, last_words)

    async def _instruct(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        # It can have ended already; how, its exit status tells.
        with contextlib.suppress(ConnectionError):
            process.stdin.write(self._settings)
            await process.stdin.drain()

    @staticmethod
    async def _hear(process: asyncio.subprocess.Process) -> str:
        """The next line that it says; empty once it will say nothing more."""
        assert process.stdout is not None
        return (await process.stdout.readline()).decode(errors="replace").strip()

    async def _end(self, process: asyncio.subprocess.Process) -> int:
        """Wait for its end; once told to stop, for a bounded time."""
        ended = asyncio.ensure_future(process.wait())
        stopping = asyncio.ensure_future(self._stopping.wait())
        await asyncio.wait((ended, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        try:
            return await asyncio.wait_for(ended, None if ended.done() else self._drain_s + _END_TIMEOUT_S)
        except TimeoutError:
            log.error("worker process %d does not end, and is killed", process.pid)
            process.kill()
            return await process.wait()

    def _serves(self, place: int, process_id: int) -> None:
        self._serving.add(place)
        if self._metrics is not None:
            self._metrics.serving(len(self._serving))
        log.info("worker %d serves (process %d)", place, process_id)
        if not self._ready and len(self._serving) == self._workers:
            self._ready = True
            log.info("ready: %d workers serve", self._workers)


@dataclass(frozen=True, slots=True)
class _Life:
    """How one worker fared. served_s: seconds. last_words: what it said of its end, or how its process ended."""

    served: bool
    served_s: float
    last_words: str


async def supervise(config: EngineConfig) -> None:
    """Serve with `server.workers` processes until SIGTERM or SIGINT, then drain them; a second signal cuts that short.

    The development servers of Redis and Kafka, where the settings name none, belong to this process: a worker that
    ends takes neither away from the others.

    Raises:
        ConfigError: the port is another's. EngineError: the workers cannot serve, and why.
    """
    server = config.server
    with ExitStack() as resources:
        port = resources.enter_context(ReservedPort(server.host, server.port)).port
        metrics: WorkerMetrics | None = None
        if server.metrics_port is not None:
            from engine.rpc.metrics_endpoint import MetricsEndpoint

            endpoint = resources.enter_context(MetricsEndpoint(server.host, server.metrics_port))
            log.info("metrics on http://%s/metrics", address_of(server.host, endpoint.port))
            metrics = endpoint
        if not config.redis.url:
            resources.enter_context(EmbeddedRedis(config.redis.directory))
        if not config.kafka.brokers:
            resources.enter_context(EmbeddedKafka(config.kafka.directory))
        log.info("starting %d workers on %s", server.workers, address_of(server.host, port))
        supervisor = Supervisor(server.workers, worker_settings(config, port), server.drain_s, metrics)
        with _signals_to(supervisor):
            await supervisor.run()


def worker_settings(config: EngineConfig, port: int) -> str:
    """The settings of one worker, one line of JSON: those of all, on this port, with its share of the cores."""
    threads = config.compute_threads((os.cpu_count() or 1) // config.server.workers)
    server = config.server.model_copy(update={"port": port, "compute_threads": threads})
    return config.model_copy(update={"server": server}).model_dump_json()


@contextmanager
def _signals_to(supervisor: Supervisor) -> Iterator[None]:
    loop = asyncio.get_running_loop()

    def stop(number: signal.Signals) -> None:
        log.info("%s: draining the workers", number.name)
        supervisor.stop()

    numbers = (signal.SIGTERM, signal.SIGINT)
    for number in numbers:
        loop.add_signal_handler(number, stop, number)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)


def _describe(code: int) -> str:
    """Follows "ended"."""
    return f"by {signal.Signals(-code).name}" if code < 0 else f"with exit status {code}"
