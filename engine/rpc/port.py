"""Ports, before gRPC sees them: whether one can be bound, and holding one that several processes will share.

Plain sockets, because gRPC does not tell the system's reason, and a supervisor holds a port without loading gRPC.
"""

import errno
import os
import socket
from typing import Any

from engine.errors import ConfigError


def address_of(host: str, port: int) -> str:
    """host:port, with the brackets that an IPv6 address needs."""
    host = f"[{host}]" if ":" in host and not host.startswith("[") else host
    return f"{host}:{port}"


def check_bindable(host: str, port: int, *, reuse_port: bool = False) -> None:
    """Refuse an address that cannot be bound, with the system's reason, which grpc does not tell.

    grpc is also content when one address of a name is bound: with another server on 127.0.0.1, a second one on
    "localhost" would listen on ::1 alone, where few call it.

    Raises:
        ConfigError: the text says which address and why.
    """
    _close(_bind_all(host, port, socket.SO_REUSEADDR, *((socket.SO_REUSEPORT,) if reuse_port else ())))


class ReservedPort:
    """A port held for processes that will listen on it with SO_REUSEPORT; a context manager.

    It is bound and never listens, so that no connection comes to it: the port stays the same, and nobody else's, while
    the processes that share it come and go.

    Args:
        host: an address to listen on.
        port: 0 takes a free one.

    Raises:
        ConfigError: another server has the port, which would not be noticed later; or it cannot be bound.
    """

    def __init__(self, host: str, port: int) -> None:
        check_bindable(host, port)
        try:
            self._sockets = _bind_all(host, port, socket.SO_REUSEPORT)
        except ConfigError:
            # Connections of a server that has just ended linger there. SO_REUSEADDR ignores them. It is set only
            # where it is needed: with it, another program that sets it, too, could listen before the first worker does.
            self._sockets = _bind_all(host, port, socket.SO_REUSEADDR, socket.SO_REUSEPORT)
        self.port = _port_of(self._sockets)

    def close(self) -> None:
        _close(self._sockets)

    def __enter__(self) -> "ReservedPort":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _bind_all(host: str, port: int, *options: int) -> list[socket.socket]:
    """One bound socket for each address of the host, all on one port."""
    resolved = _resolve(host, port)
    bound: list[socket.socket] = []
    for family, kind, protocol, _, address in resolved:
        held = None
        try:
            held = socket.socket(family, kind, protocol)
            for option in options:
                held.setsockopt(socket.SOL_SOCKET, option, 1)
            # The free port that the first address got is the one for all.
            held.bind((address[0], _port_of(bound) if bound else port, *address[2:]))
            bound.append(held)
        except OSError as error:
            if held is not None:
                held.close()
            # One half of "localhost" on a machine without IPv6.
            if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT) and len(resolved) > 1:
                continue
            _close(bound)
            reason = "the port is in use" if error.errno == errno.EADDRINUSE else os.strerror(error.errno or 0)
            raise ConfigError(f"cannot listen on {address_of(host, port)}: {reason}") from error
    return bound


def _port_of(bound: list[socket.socket]) -> int:
    port: int = bound[0].getsockname()[1]
    return port


def _close(bound: list[socket.socket]) -> None:
    for held in bound:
        held.close()


def _resolve(host: str, port: int) -> list[tuple[Any, Any, int, str, Any]]:
    try:
        return socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise ConfigError(f"cannot listen on {address_of(host, port)}: {error.strerror}") from error
