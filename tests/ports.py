"""Ports for servers that are started by their number."""

import random
import socket
from contextlib import ExitStack

# Below those that the kernel gives to outgoing connections, which could take one before the server has it.
_FIRST, _LAST = 10_000, 30_000


def free_port(count: int = 1) -> int:
    """The first of so many ports in a row that nobody listens on.

    It is chosen at random, so that test processes, also of another checkout, are unlikely to choose the same.
    """
    for port in random.SystemRandom().sample(range(_FIRST, _LAST), 100):
        with ExitStack() as attempt:
            try:
                for number in range(port, port + count):
                    attempt.enter_context(socket.socket()).bind(("", number))
            except OSError:
                continue
            return port
    raise OSError(f"found no {count} free ports in a row from {_FIRST} to {_LAST}")
