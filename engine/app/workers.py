"""Several serving processes on one port: what they and their supervisor are told."""

import asyncio
import logging
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from engine.adapters.kafka.embedded import EmbeddedKafka
from engine.adapters.redis.connect import check_url
from engine.adapters.redis.embedded import EmbeddedRedis
from engine.app.supervisor import DEVICE_COMMAND, WORKER_COMMAND, Program, RestartPolicy, Supervisor, WorkerMetrics
from engine.config.serving import EngineConfig
from engine.errors import ConfigError
from engine.rpc.port import ReservedPort, address_of

log = logging.getLogger(__name__)


async def supervise(config: EngineConfig) -> None:
    """Serve with `server.workers` processes until SIGTERM or SIGINT, then drain them; a second signal cuts that short.

    The development servers of Redis and Kafka, where the settings name none, belong to this process: a worker that
    ends takes neither away from the others.

    Raises:
        ConfigError: the port is another's, or redis.url is no URL. EngineError: the workers cannot serve, and why.
    """
    server = config.server
    with ExitStack() as resources:
        if config.redis.url:
            check_url(config.redis.url)
        port = resources.enter_context(ReservedPort(server.host, server.port)).port
        metrics: WorkerMetrics | None = None
        if server.metrics_port is not None:
            from engine.rpc.metrics_endpoint import MetricsEndpoint

            endpoint = resources.enter_context(MetricsEndpoint(server.host, server.metrics_port, server.workers))
            log.info("metrics on http://%s/metrics", address_of(server.host, endpoint.port))
            metrics = endpoint
        if not config.redis.url:
            redis = resources.enter_context(EmbeddedRedis(config.redis.directory))
            # A worker must not start one of its own when this one does not answer.
            config = config.model_copy(update={"redis": config.redis.model_copy(update={"url": redis.url})})
        if not config.kafka.brokers:
            resources.enter_context(EmbeddedKafka(config.kafka.directory, config.kafka.topic_prefix))
        log.info("starting %d workers on %s", server.workers, address_of(server.host, port))
        device: Program | None = None
        if config.device.process and config.device.process_socket is None:
            directory = Path(resources.enter_context(TemporaryDirectory(prefix="engine-device-")))
            config, device = with_device_process(config, directory / "socket")
        settings = worker_settings(config, port)
        good = resources.enter_context(TemporaryDirectory(prefix="engine-good-"))
        command = (*WORKER_COMMAND, good)
        if device is not None:
            device = replace(device, command=(*device.command, good))
        policy = RestartPolicy(
            first_pause_s=server.restart_pause_s,
            longest_pause_s=max(server.restart_pause_s, server.restart_max_pause_s),
            heartbeat_s=server.heartbeat_s,
            start_s=server.start_timeout_s,
        )
        supervisor = Supervisor(server.workers, settings, server.drain_s, metrics, command, policy, device)
        with _signals_to(supervisor):
            await supervisor.run()


def with_device_process(config: EngineConfig, socket: Path) -> tuple[EngineConfig, Program]:
    """The settings of front ends whose device process is at this socket, and that process.

    Raises ConfigError where the system has no memory to share in this way.
    """
    if not hasattr(os, "memfd_create"):
        raise ConfigError("device.process needs Linux")
    # There, what is shared is decided once: by its settings it would be an ordinary process.
    own = config.device.model_copy(update={"process": False, "process_socket": None})
    shared = config.server.model_copy(update={"micro_batch": config.micro_batch})
    settings = config.model_copy(update={"device": own, "server": shared}).model_dump_json()
    front = config.device.model_copy(update={"process": True, "process_socket": socket})
    return config.model_copy(update={"device": front}), Program(settings, (*DEVICE_COMMAND, str(socket)))


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
