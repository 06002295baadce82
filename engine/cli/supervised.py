"""What every process under a supervisor does alike; engine.app.supervisor says how the two talk."""

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from engine.app.supervisor import FAILED
from engine.config.serving import EngineConfig
from engine.errors import EngineError, described
from engine.runtime.log_writer import logs_in_background

log = logging.getLogger(__name__)

Say = Callable[[str], None]


def run_supervised(name: str, serve: Callable[[EngineConfig, Say], Coroutine[Any, Any, None]]) -> int:
    """Serve with the settings of standard input until told to stop; returns the exit status.

    Args:
        name: of this process, for its log.
        serve: is to say SERVING, and to call end_with_supervisor.
    """
    logging.basicConfig(level=logging.WARNING, format=f"%(asctime)s %(levelname)s [{name}] %(name)s: %(message)s")
    logging.getLogger("engine").setLevel(logging.INFO)
    say = _reports()
    with logs_in_background():
        try:
            config = EngineConfig(**json.loads(sys.stdin.readline()))
            import uvloop

            uvloop.run(serve(config, say))
        except EngineError as error:
            say(f"{FAILED} {error}")
            return 2
        except Exception as error:
            log.exception("this process ends")
            say(f"{FAILED} {type(error).__name__}: {described(error)}")
            return 1
        return 0


def end_with_supervisor() -> None:
    """Drain when standard input ends: nobody would replace this process, forward a signal, or keep Redis for it."""
    loop = asyncio.get_running_loop()
    source = sys.stdin.fileno()

    def readable() -> None:
        if not os.read(source, 1024):
            loop.remove_reader(source)
            log.warning("the supervisor is gone")
            os.kill(os.getpid(), signal.SIGTERM)

    loop.add_reader(source, readable)


def _reports() -> Say:
    """Says a line to the supervisor, on what was standard output; whatever prints from here on goes to the log."""
    channel = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def say(sentence: str) -> None:
        try:
            channel.write(" ".join(sentence.split()) + "\n")
        except BrokenPipeError:
            log.warning("the supervisor is gone")

    return say
