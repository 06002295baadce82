"""One connection to Redis that every task of an event loop shares: commands go out as they come, replies come in order.

A pool takes a connection out, locks and puts it back for each command, and wakes a reader for each; here a command is
one write, and one read brings the replies of many. For commands that neither block nor change the connection's state.
"""

import asyncio
from collections import deque
from typing import Any, Final, NamedTuple, cast

import hiredis
import redis.asyncio
from redis.asyncio.connection import SSLConnection

from engine.errors import DependencyUnavailable, described

# A reply that takes longer than this means a hung server or network: a new connection may work.
_STALL_S: Final = 1.0
# Most pending replies of a stalled connection, so that its queue stays short.
_MAX_PENDING: Final = 4096


class PendingReply(NamedTuple):
    reply: asyncio.Future[Any]
    since: float


class _Connection(asyncio.Protocol):
    """One connection, from its first byte to its last."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader()
        self._pending: deque[PendingReply] = deque()
        self._transport: asyncio.Transport | None = None
        self._suspected = False
        self.is_open = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's own are no subclass.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not False:
                # A caller that gave up has cancelled its future; the reply still takes its turn.
                pending = self._pending.popleft().reply
                if not pending.done():
                    pending.set_result(reply)
        except (hiredis.ProtocolError, IndexError) as error:
            self.close(f"what came is no answer: {described(error)}")

    def connection_lost(self, exc: Exception | None) -> None:
        self.close(str(exc) if exc else "the server closed the connection")

    def send(self, command: tuple[bytes | str | int, ...]) -> asyncio.Future[Any]:
        """The future reply. Raises DependencyUnavailable where nothing more can be sent."""
        now = self._loop.time()
        if self._is_overdue(now) and not self._suspected:
            # The event loop itself may have been late: replies that have arrived are read before the judgement.
            self._suspected = True
            self._loop.call_soon(self._loop.call_soon, self._judge)
        if not self.is_open or self._transport is None:
            raise DependencyUnavailable("the connection to Redis is lost")
        if len(self._pending) >= _MAX_PENDING:
            raise DependencyUnavailable(f"{_MAX_PENDING} replies from Redis are pending")
        reply: asyncio.Future[Any] = self._loop.create_future()
        self._pending.append(PendingReply(reply, now))
        self._transport.write(hiredis.pack_command(command))  # type: ignore[arg-type]  # the stub knows pairs of one
        return reply

    def _is_overdue(self, now: float) -> bool:
        return bool(self._pending) and now - self._pending[0].since > _STALL_S

    def _judge(self) -> None:
        self._suspected = False
        if self._is_overdue(self._loop.time()):
            self.close(f"no reply for {_STALL_S:g} s")

    def close(self, reason: str) -> None:
        """Fail every pending reply. Safe to call twice."""
        self.is_open = False
        if self._transport is not None:
            self._transport.abort()
        while self._pending:
            pending = self._pending.popleft().reply
            if not pending.done():
                pending.set_exception(DependencyUnavailable(f"Redis: {reason}"))


class MultiplexedRedis:
    """A client of one server; belongs to one event loop. Connects when it is first used, and again after a loss."""

    def __init__(self, url: str, connect_timeout_s: float) -> None:
        """Args: url: as redis-py reads it (redis://, rediss:// or unix://). Raises ValueError for another one."""
        # Read by the library, so that one URL means the same to every part of the engine.
        connection = redis.asyncio.ConnectionPool.from_url(url).make_connection()  # type: ignore[no-untyped-call]
        self._ssl = connection.ssl_context.get() if isinstance(connection, SSLConnection) else None
        self._path: str | None = getattr(connection, "path", None)
        self._host: str = getattr(connection, "host", "")
        self._port: int = getattr(connection, "port", 0)
        self._username, self._password, self._db = connection.username, connection.password, connection.db
        self._connect_timeout_s = connect_timeout_s
        self._connection: _Connection | None = None
        self._connecting: asyncio.Task[_Connection] | None = None

    async def call(self, *command: bytes | str | int) -> Any:
        """The reply to one command, bytes undecoded. Raises DependencyUnavailable, also for a reply that is an error.

        Cancelling one call does not disturb the others.
        """
        connection = self._connection
        if connection is None or not connection.is_open:
            connection = await self._connected()
        reply = await connection.send(command)
        if isinstance(reply, hiredis.ReplyError):
            raise DependencyUnavailable(f"Redis refuses: {reply}")
        return reply

    async def aclose(self) -> None:
        if self._connecting is not None:
            self._connecting.cancel()
        if self._connection is not None:
            self._connection.close("the client is closed")

    async def _connected(self) -> _Connection:
        if self._connecting is None or self._connecting.done():
            self._connecting = asyncio.create_task(self._connect())
            # Every caller may have given up by the time that it fails.
            self._connecting.add_done_callback(lambda task: task.cancelled() or task.exception())
        # One caller that gives up must not cancel the connection for the others.
        return await asyncio.shield(self._connecting)

    async def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        connection: _Connection | None = None
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                if self._path is not None:
                    _, connection = await loop.create_unix_connection(_Connection, self._path)
                else:
                    _, connection = await loop.create_connection(_Connection, self._host, self._port, ssl=self._ssl)
                for command in self._greeting():
                    reply = await connection.send(command)
                    if isinstance(reply, hiredis.ReplyError):
                        raise DependencyUnavailable(f"Redis refuses: {reply}")
            self._connection = connection
        except (OSError, TimeoutError) as error:
            raise DependencyUnavailable(f"Redis cannot be reached: {error or 'timeout'}") from error
        finally:
            # Also where the client is closed meanwhile.
            if connection is not None and self._connection is not connection:
                connection.close("it did not come about")
        return connection

    def _greeting(self) -> list[tuple[bytes | str | int, ...]]:
        greeting: list[tuple[bytes | str | int, ...]] = []
        if self._password:
            greeting.append(("AUTH", *([self._username] if self._username else []), self._password))
        if self._db:
            greeting.append(("SELECT", self._db))
        return greeting
