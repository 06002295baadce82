"""Threads that share an interpreter with an event loop: short turns, started beforehand, and nothing done in one go."""

import asyncio
import sys
import threading
from collections.abc import MutableSequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

# A thread that wants the interpreter waits this long before it asks whoever computes in Python for it. By Python's
# default it is 5 ms: a request whose native calls let go of the interpreter ten times could wait 50 ms for a rules
# file that is parsed beside it.
TURN_S: Final = 0.0005
# What blocks and is not a request: files, bundles, and calls of Redis.
_HELPERS: Final = 6
_FREED_AT_ONCE: Final = 1_000


def take_short_turns() -> None:
    """Let no thread keep the interpreter from the others for long. Process-wide."""
    sys.setswitchinterval(TURN_S)


def start_helpers() -> None:
    """Give the running event loop the threads that asyncio.to_thread uses."""
    asyncio.get_running_loop().set_default_executor(started_pool(_HELPERS, "engine-helper"))


def started_pool(threads: int, name: str) -> ThreadPoolExecutor:
    """A pool whose threads run already. Starting one waits until it runs, and an event loop cannot wait."""
    pool = ThreadPoolExecutor(threads, name)
    together = threading.Barrier(threads + 1)
    for _ in range(threads):
        pool.submit(together.wait)
    together.wait()
    return pool


def free_in_turns(items: MutableSequence[Any] | dict[Any, Any]) -> None:
    """Empty a list or dict bit by bit: to free many objects at once holds the interpreter, 100 ns or more for each."""
    while items:
        if isinstance(items, dict):
            items.popitem()
        else:
            del items[-_FREED_AT_ONCE:]
