"""One of the processes of `engine serve --workers N`; started by engine.workers, which says how the two talk."""

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Callable

from engine.config import EngineConfig
from engine.errors import EngineError
from engine.workers import FAILED, SERVING

log = logging.getLogger(__name__)


def main() -> int:
    """Serve with the settings of standard input until told to stop, or until the supervisor is gone."""
    place = sys.argv[-1]
    logging.basicConfig(
        level=logging.WARNING, format=f"%(asctime)s %(levelname)s [worker {place}] %(name)s: %(message)s"
    )
    logging.getLogger("engine").setLevel(logging.INFO)
    say = _reports()
    try:
        config = EngineConfig(**json.loads(sys.stdin.readline()))
        import uvloop

        uvloop.run(_serve(config, say))
    except EngineError as error:
        say(f"{FAILED} {error}")
        return 2
    except Exception as error:
        log.exception("this worker ends")
        say(f"{FAILED} {type(error).__name__}: {error}")
        return 1
    return 0


async def _serve(config: EngineConfig, say: Callable[[str], None]) -> None:
    # Heavy; a library that is missing is a failed start like any other.
    from engine.assemble import running_server
    from engine.rpc.metrics import ServerMetrics
    from engine.rpc.server import serve_until_signal

    metrics = ServerMetrics() if config.server.metrics_port is not None else None
    async with running_server(config, shares_port=True, metrics=metrics) as server:
        _end_with_supervisor()
        say(SERVING)
        await serve_until_signal(server, config.server.drain_s)


def _reports() -> Callable[[str], None]:
    """Says a line to the supervisor, on what was standard output; whatever prints from here on goes to the log."""
    channel = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def say(sentence: str) -> None:
        try:
            channel.write(" ".join(sentence.split()) + "\n")
        except BrokenPipeError:
            log.warning("the supervisor is gone")

    return say


def _end_with_supervisor() -> None:
    """Drain when standard input ends: nobody would replace this worker, forward a signal, or keep Redis for it."""
    loop = asyncio.get_running_loop()
    source = sys.stdin.fileno()

    def readable() -> None:
        if not os.read(source, 1024):
            loop.remove_reader(source)
            log.warning("the supervisor is gone")
            os.kill(os.getpid(), signal.SIGTERM)

    loop.add_reader(source, readable)


if __name__ == "__main__":
    sys.exit(main())
