import socket

import pytest

from engine.errors import ConfigError
from engine.rpc.port import ReservedPort, check_bindable


def listener(port: int, *, reuse_port: bool) -> socket.socket:
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if reuse_port:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listening.bind(("127.0.0.1", port))
    listening.listen()
    return listening


def test_a_reserved_port_takes_no_connections_from_those_who_share_it() -> None:
    with ReservedPort("127.0.0.1", 0) as reserved:
        assert reserved.port > 0
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", reserved.port))
        with listener(reserved.port, reuse_port=True) as one, listener(reserved.port, reuse_port=True) as other:
            # Each connection goes to one of the two that listen; were the reservation among them, some would hang.
            for listening in (one, other):
                listening.settimeout(0)
            accepted = 0
            clients = [socket.create_connection(("127.0.0.1", reserved.port), timeout=5) for _ in range(64)]
            for listening in (one, other):
                while True:
                    try:
                        connection, _ = listening.accept()
                    except BlockingIOError:
                        break
                    connection.close()
                    accepted += 1
            for client in clients:
                client.close()
            assert accepted == 64


def test_a_port_outlives_those_who_share_it() -> None:
    with ReservedPort("127.0.0.1", 0) as reserved:
        for _ in range(2):
            with listener(reserved.port, reuse_port=True):
                pass
        with pytest.raises(OSError, match="in use"):
            listener(reserved.port, reuse_port=False)
    listener(reserved.port, reuse_port=False).close()


@pytest.mark.parametrize("reuse_port", [False, True])
def test_another_servers_port_is_refused(reuse_port: bool) -> None:
    with listener(0, reuse_port=reuse_port) as other:
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"127\.0\.0\.1:{port}: the port is in use"):
            ReservedPort("127.0.0.1", port)
        with pytest.raises(ConfigError, match="the port is in use"):
            ReservedPort("localhost", port)


def test_connections_that_linger_from_the_server_of_before_do_not_matter() -> None:
    with listener(0, reuse_port=False) as before:
        port = before.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        before.accept()[0].close()  # the side that closes first keeps the port in TIME_WAIT
        client.close()
    with ReservedPort("127.0.0.1", port) as reserved, listener(port, reuse_port=True):
        assert reserved.port == port


def test_two_reservations_of_one_port_are_one_too_many() -> None:
    with ReservedPort("127.0.0.1", 0) as reserved, pytest.raises(ConfigError, match="the port is in use"):
        ReservedPort("127.0.0.1", reserved.port)


def test_every_address_of_a_name_gets_the_same_port() -> None:
    with ReservedPort("localhost", 0) as reserved, pytest.raises(OSError, match="in use"):
        listener(reserved.port, reuse_port=False)


def test_an_address_that_is_not_ours_is_named() -> None:
    with pytest.raises(ConfigError, match=r"192\.0\.2\.1:1"):
        check_bindable("192.0.2.1", 1)
    with pytest.raises(ConfigError, match=r"\[::zz\]:1"):
        check_bindable("::zz", 1)
