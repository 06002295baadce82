"""Call a function in a process of its own: what computes for long in Python would hold up an event loop here."""

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from threading import Lock
from typing import Any, Final, TypeVar

from engine.errors import EngineError

T = TypeVar("T")

# Requests go first wherever there are too few processors.
_NICENESS: Final = 10


class HelperProcess:
    """Starts a process for each call. Any number of threads may call; `close` ends what runs.

    Cost: a new interpreter and the imports of the function's module, half a second and more.
    """

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = Lock()
        self._closed = False

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """The result of a function at the top of a module; blocks.

        Raises what the function raised, where that is an EngineError; EngineError where its process ended without a
        result, or fell to an error of another kind: that one is on standard error.
        """
        asked = pickle.dumps((function.__module__, function.__qualname__, arguments))
        with self._lock:
            if self._closed:
                raise EngineError("the process is ending")
            command = [sys.executable, "-m", "engine.runtime.helper_process"]
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            self._running.add(process)
        try:
            answer, _ = process.communicate(asked)
        finally:
            self._running.discard(process)
            process.kill()
            process.wait()
        if process.returncode != 0:
            raise EngineError(f"{function.__qualname__} ended with exit status {process.returncode} in its process")
        kind, fields, result = pickle.loads(answer)
        if kind is not None:
            raise _rebuilt(kind, fields, result)
        found: T = result
        return found

    def close(self) -> None:
        """End what runs, and start nothing more."""
        with self._lock:
            self._closed = True
            running = list(self._running)
        for process in running:
            process.kill()


def _rebuilt(kind: type[EngineError], fields: dict[str, Any], arguments: tuple[Any, ...]) -> EngineError:
    # Not by its constructor, which may take something else than what became of it.
    error = kind.__new__(kind)
    error.args = arguments
    error.__dict__.update(fields)
    return error


def _main() -> None:
    # Whatever prints goes to the log: standard output is for the result.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    with suppress(OSError):
        os.nice(_NICENESS)
    module, name, arguments = pickle.load(sys.stdin.buffer)
    try:
        answer: Any = (None, {}, getattr(import_module(module), name)(*arguments))
    except EngineError as error:
        answer = (type(error), error.__dict__, error.args)
    with answers:
        pickle.dump(answer, answers)


if __name__ == "__main__":
    _main()
