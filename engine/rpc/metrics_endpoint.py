"""Prometheus over HTTP for several processes: each keeps its figures in files, one process adds them up and answers.

The files are those of `prometheus_client`'s multiprocess mode; who answers keeps figures of its own in memory.
"""

import logging
import tempfile
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from engine.errors import ConfigError, described

log = logging.getLogger(__name__)

FILES_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"


class MetricsEndpoint:
    """The figures of all workers under one address; a context manager. Owns the directory of their files.

    Args:
        host, port: where it answers; port 0 takes a free one.
        workers: how many there are to be.

    Raises:
        ConfigError: the address cannot be bound.
    """

    def __init__(self, host: str, port: int, workers: int = 1) -> None:
        self._files = tempfile.TemporaryDirectory(prefix="engine-metrics-")
        registry = CollectorRegistry()
        MultiProcessCollector(registry, self._files.name)  # type: ignore[no-untyped-call]
        self._wanted = Gauge("engine_workers_wanted", "Workers that there are to be.", registry=registry)
        self._wanted.set(workers)
        self._serving = Gauge("engine_workers_serving", "Workers that serve and answer now.", registry=registry)
        self._silent = Counter(
            "engine_worker_silences", "Workers killed since their event loop did not answer.", registry=registry
        )
        self._ended = Counter("engine_worker_ends", "Workers that ended without being told to.", registry=registry)
        try:
            self._server, self._thread = start_http_server(port, host.strip("[]"), registry)
        except OSError as error:
            self._files.cleanup()
            raise ConfigError(f"metrics_port: cannot listen on {host}:{port}: {error.strerror}") from error
        self.port: int = self._server.server_port

    @property
    def environment(self) -> dict[str, str]:
        """What a worker's environment must say from its start, before it imports `prometheus_client`."""
        return {FILES_VARIABLE: self._files.name}

    def serving(self, workers: int) -> None:
        self._serving.set(workers)

    def silent(self) -> None:
        """A worker's event loop did not answer, and the worker is killed."""
        self._silent.inc()

    def ended(self, process_id: int, *, unexpected: bool) -> None:
        """Forget what was true of a worker while it lived; what it has counted stays counted."""
        try:
            mark_process_dead(process_id, self._files.name)  # type: ignore[no-untyped-call]
        except OSError as error:  # no reason to leave its place empty
            log.warning("the figures of process %d are not removed: %s", process_id, described(error))
        if unexpected:
            self._ended.inc()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._files.cleanup()

    def __enter__(self) -> "MetricsEndpoint":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
