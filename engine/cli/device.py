"""The process that searches and ranks for all workers of `engine serve`; started by engine.app.supervisor.

Its arguments are the path of its socket and, from the supervisor, the directory of engine.app.last_good and its place.
"""

import asyncio
import signal
import sys
from pathlib import Path

from engine.cli.supervised import Say, last_good, run_supervised, supervised
from engine.config.serving import EngineConfig


async def _serve(config: EngineConfig, say: Say) -> None:
    from engine.app.device_process import running_device
    from engine.runtime.stalls.collector import freeze_long_lived
    from engine.runtime.stalls.metrics import StallMetrics
    from engine.runtime.stalls.turns import start_helpers, take_short_turns
    from engine.runtime.stalls.watch import watching

    take_short_turns()
    start_helpers()
    sink = StallMetrics() if config.server.metrics_port is not None else None
    good = last_good(say, sys.argv[2:])
    async with running_device(config, Path(sys.argv[1]), freeze_long_lived, good), watching(config.stalls, sink):
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        async with supervised(say, config.server.heartbeat_s):
            await stop.wait()


if __name__ == "__main__":
    sys.exit(run_supervised("device process", _serve))
