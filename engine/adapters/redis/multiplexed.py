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

# A server that owes a reply for longer than this hangs, or the way to it does: another connection may fare better.
_STALL_S: Final = 1.0
# Most replies that a stalled connection may owe, so that its queue stays short.
_MAX_PENDING: Final = 4096


class PendingReply(NamedTuple):
    reply: asyncio.Future[Any]
    since: float


class _Connection(asyncio.Protocol):
    """One connection, from its first byte to its last."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader()
        self._owed: deque[PendingReply] = deque()
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
                # Whoever gave up waiting has cancelled theirs; it takes up its place all the same.
                owed = self._owed.popleft().reply
                if not owed.done():
                    owed.set_result(reply)
        except (hiredis.ProtocolError, IndexError) as error:
            self.close(f"what came is no answer: {described(error)}")

    def connection_lost(self, exc: Exception | None) -> None:
        self.close(str(exc) if exc else "the server closed the connection")

    def send(self, command: tuple[bytes | str | int, ...]) -> asyncio.Future[Any]:
        """The future reply. Raises DependencyUnavailable where nothing more can be sent."""
        now = self._loop.time()
        if self._is_overdue(now) and not self._suspected:
            # The loop itself may have been held up meanwhile: what has come since is read before anybody judges.
            self._suspected = True
            self._loop.call_soon(self._loop.call_soon, self._judge)
        if not self.is_open or self._transport is None:
            raise DependencyUnavailable("the connection to Redis is lost")
        if len(self._owed) >= _MAX_PENDING:
            raise DependencyUnavailable(f"Redis owes {_MAX_PENDING} replies")
        reply: asyncio.Future[Any] = self._loop.create_future()
        self._owed.append(PendingReply(reply, now))
        self._transport.write(hiredis.pack_command(command))  # type: ignore[arg-type]  # the stub knows pairs of one
        return reply

    def _is_overdue(self, now: float) -> bool:
        return bool(self._owed) and now - self._owed[0].since > _STALL_S

    def _judge(self) -> None:
        self._suspected = False
        if self._is_overdue(self._loop.time()):
            self.close(f"no reply for {_STALL_S:g} s")

    def close(self, reason: str) -> None:
        """Fail everything that is owed. Safe to call twice."""
        self.is_open = False
        if self._transport is not None:
            self._transport.abort()
        while self._owed:
            owed = self._owed.popleft().reply
            if not owed.done():
                owed.set_exception(DependencyUnavailable(f"Redis: {reason}"))


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
        self._link: _Connection | None = None
        self._connecting: asyncio.Task[_Connection] | None = None

    async def call(self, *command: bytes | str | int) -> Any:
        """The reply to one command, bytes undecoded. Raises DependencyUnavailable, also for a reply that is an error.

        Whoever is cancelled meanwhile disturbs nobody else.
        """
        link = self._link
        if link is None or not link.is_open:
            link = await self._connected()
        reply = await link.send(command)
        if isinstance(reply, hiredis.ReplyError):
            raise DependencyUnavailable(f"Redis refuses: {reply}")
        return reply

    async def aclose(self) -> None:
        if self._connecting is not None:
            self._connecting.cancel()
        if self._link is not None:
            self._link.close("the client is closed")

    async def _connected(self) -> _Connection:
        if self._connecting is None or self._connecting.done():
            self._connecting = asyncio.create_task(self._connect())
            # Everybody may have given up by the time that it fails.
            self._connecting.add_done_callback(lambda task: task.cancelled() or task.exception())
        # Whoever gives up must not take the connection from those who still wait for it.
        return await asyncio.shield(self._connecting)

    async def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        link: _Connection | None = None
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                if self._path is not None:
                    _, link = await loop.create_unix_connection(_Connection, self._path)
                else:
                    _, link = await loop.create_connection(_Connection, self._host, self._port, ssl=self._ssl)
                for command in self._greeting():
                    reply = await link.send(command)
                    if isinstance(reply, hiredis.ReplyError):
                        raise DependencyUnavailable(f"Redis refuses: {reply}")
            self._link = link
        except (OSError, TimeoutError) as error:
            raise DependencyUnavailable(f"Redis cannot be reached: {error or 'timeout'}") from error
        finally:
            # Also where the client is closed meanwhile.
            if link is not None and self._link is not link:
                link.close("it did not come about")
        return link

    def _greeting(self) -> list[tuple[bytes | str | int, ...]]:
        greeting: list[tuple[bytes | str | int, ...]] = []
        if self._password:
            greeting.append(("AUTH", *([self._username] if self._username else []), self._password))
        if self._db:
            greeting.append(("SELECT", self._db))
        return greeting
