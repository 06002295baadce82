"""What every process under a supervisor does alike; engine.app.supervisor says how the two talk."""

import asyncio
import faulthandler
import json
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from engine.app.child import FAILED, STACKS_SIGNAL
from engine.app.heartbeat import BEAT, BEATS, BUSY, FREE, SERVING
from engine.config.serving import EngineConfig
from engine.errors import EngineError, described
from engine.runtime.log_writer import logs_in_background

if TYPE_CHECKING:
    from engine.app.last_good import LastGood

log = logging.getLogger(__name__)

Say = Callable[[str], None]
# A write of no more than this to a pipe is whole or not at all.
_LINE_BYTES: Final = 4096


def run_supervised(name: str, serve: Callable[[EngineConfig, Say], Coroutine[Any, Any, None]]) -> int:
    """Serve with the settings of standard input until told to stop; returns the exit status.

    Args:
        name: of this process, for its log.
        serve: is to be inside `supervised` while it serves.
    """
    logging.basicConfig(level=logging.WARNING, format=f"%(asctime)s %(levelname)s [{name}] %(name)s: %(message)s")
    logging.getLogger("engine").setLevel(logging.INFO)
    say = _reports()
    # Also where a native call holds the interpreter.
    faulthandler.register(STACKS_SIGNAL, all_threads=True)
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


@asynccontextmanager
async def supervised(say: Say, heartbeat_s: float) -> AsyncIterator[None]:
    """Say SERVING, then that the event loop answers, until the context ends. heartbeat_s: 0: not that."""
    _end_with_supervisor()
    say(SERVING)
    heart = asyncio.create_task(_beat(say, heartbeat_s / BEATS)) if heartbeat_s else None
    try:
        yield
    finally:
        if heart is not None:
            heart.cancel()
            say(BUSY)


def last_good(say: Say, arguments: Sequence[str]) -> "LastGood":
    """What workers of this supervisor served by. arguments: its directory, where it has one, and the place."""
    from engine.app.last_good import LastGood  # heavy: a library that is missing is a failed start like any other

    return LastGood(Path(arguments[0]) if len(arguments) > 1 else None, lambda busy: say(BUSY if busy else FREE))


async def _beat(say: Say, period_s: float) -> None:
    while True:
        await asyncio.sleep(period_s)
        say(BEAT)


def _end_with_supervisor() -> None:
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
    channel = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    # A supervisor that is stopped does not read, and must not stop its workers with it.
    os.set_blocking(channel, False)

    def say(sentence: str) -> None:
        with suppress(BlockingIOError):
            try:
                os.write(channel, " ".join(sentence.split()).encode()[: _LINE_BYTES - 1] + b"\n")
            except BrokenPipeError:
                if sentence != BEAT:
                    log.warning("the supervisor is gone")

    return say
