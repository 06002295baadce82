"""`engine serve`: answer Recommend over gRPC until told to stop."""

import asyncio
import logging
from typing import Annotated

import typer

from engine.cli.needs import needs
from engine.cli.options import BundlesOption, ConfigOption, RedisOption, announce_private, load_config
from engine.config.serving import EngineConfig
from engine.runtime.log_writer import logs_in_background

log = logging.getLogger(__name__)


@needs("cpu")
def serve(
    config: ConfigOption = None,
    bundles: BundlesOption = None,
    redis_url: RedisOption = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 picks a free one.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that share the port.")] = None,
    metrics_port: Annotated[int | None, typer.Option(help="Port for Prometheus metrics; 0 picks a free one.")] = None,
) -> None:
    """Serve recommendations over gRPC from the current bundle; a newer bundle is swapped in without a pause."""
    flags = {"host": host, "port": port, "workers": workers, "metrics_port": metrics_port}
    settings = load_config(config, bundles, redis_url, flags)
    announce_private(settings, kafka=True)
    if settings.server.workers > 1 or settings.server.metrics_port is not None or settings.device.process:
        from engine.app.workers import supervise

        # Metrics and the device process are for the supervisor to keep, also where it has one worker only.
        with logs_in_background():
            asyncio.run(supervise(settings))
    else:
        import uvloop

        with logs_in_background():
            uvloop.run(_serve(settings))


async def _serve(config: EngineConfig) -> None:
    from engine.app.serve import running_server
    from engine.rpc.server import serve_until_signal
    from engine.runtime.stalls.collector import freeze_long_lived
    from engine.runtime.stalls.turns import start_helpers, take_short_turns
    from engine.runtime.stalls.watch import watching

    take_short_turns()
    start_helpers()
    async with running_server(config, freeze=freeze_long_lived) as server, watching(config.stalls):
        log.info("serving on %s:%d", config.server.host, server.port)
        await serve_until_signal(server, config.server.drain_s)
