"""One of the processes of `engine serve --workers N`; started by engine.app.supervisor.

Its arguments are the directory of engine.app.last_good, which may be missing, and its place.
"""

import sys

from engine.cli.supervised import Say, last_good, run_supervised, supervised
from engine.config.serving import EngineConfig


async def _serve(config: EngineConfig, say: Say) -> None:
    # Heavy; a library that is missing is a failed start like any other.
    from engine.app.serve import running_server
    from engine.rpc.metrics import ServerMetrics
    from engine.rpc.server import serve_until_signal
    from engine.runtime.stalls.collector import freeze_long_lived
    from engine.runtime.stalls.metrics import StallMetrics
    from engine.runtime.stalls.turns import start_helpers, take_short_turns
    from engine.runtime.stalls.watch import watching

    take_short_turns()
    start_helpers()
    good = last_good(say, sys.argv[1:])
    measured = config.server.metrics_port is not None
    metrics = ServerMetrics() if measured else None
    async with (
        running_server(config, shares_port=True, metrics=metrics, freeze=freeze_long_lived, last_good=good) as server,
        watching(config.stalls, StallMetrics() if measured else None),
        supervised(say, config.server.heartbeat_s),
    ):
        await serve_until_signal(server, config.server.drain_s)


if __name__ == "__main__":
    sys.exit(run_supervised(f"worker {sys.argv[-1]}", _serve))
