"""One connection for everybody: no reply reaches the wrong task, and no loss is forever."""

import asyncio
import contextlib
import os
import random
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import redis

from engine.adapters.redis import multiplexed as redis_multiplexed
from engine.adapters.redis.embedded import EmbeddedRedis
from engine.adapters.redis.multiplexed import MultiplexedRedis
from engine.errors import DependencyUnavailable


@pytest.fixture
async def client(redis_server: EmbeddedRedis) -> AsyncIterator[MultiplexedRedis]:
    client = MultiplexedRedis(redis_server.url, 2.0)
    yield client
    await client.aclose()


async def test_replies_reach_those_who_asked(client: MultiplexedRedis) -> None:
    values = {f"mux-{number}": os.urandom(number * 40) for number in range(300)}

    async def ask(key: str, value: bytes) -> None:
        await client.call("SET", key, value)
        assert await client.call("GET", key) == value
        assert await client.call("MGET", key, "nobody", key) == [value, None, value]

    await asyncio.gather(*(ask(key, value) for key, value in values.items()))


async def test_those_who_give_up_disturb_nobody(client: MultiplexedRedis) -> None:
    draw = random.Random(0)
    # Connected, so that whoever gives up at once is owed a reply by then.
    await client.call("PING")

    async def ask(number: int) -> bytes | None:
        try:
            async with asyncio.timeout(draw.choice([0.0, 0.0005, 30.0])):
                return bytes(await client.call("ECHO", str(number)))
        except TimeoutError:
            return None

    answers = await asyncio.gather(*(ask(number) for number in range(2_000)))
    assert all(answer in (None, str(number).encode()) for number, answer in enumerate(answers))
    assert sum(answer is not None for answer in answers) > 500
    assert await client.call("ECHO", "end") == b"end"


async def test_a_loop_that_was_held_up_reads_what_has_come_before_it_judges(client: MultiplexedRedis) -> None:
    await client.call("PING")
    first = asyncio.create_task(client.call("ECHO", "first"))
    await asyncio.sleep(0)
    time.sleep(redis_multiplexed._STALL_S + 0.2)
    others = [client.call("ECHO", str(number)) for number in range(50)]
    assert await asyncio.gather(first, *others) == [b"first", *(str(number).encode() for number in range(50))]


async def test_a_first_caller_that_gives_up_leaves_the_connection_to_the_others(redis_server: EmbeddedRedis) -> None:
    client = MultiplexedRedis(redis_server.url, 2.0)
    first = asyncio.create_task(client.call("PING"))
    others = [asyncio.create_task(client.call("PING")) for _ in range(5)]
    await asyncio.sleep(0)
    first.cancel()
    assert await asyncio.gather(*others) == [b"PONG"] * 5
    redis.Redis.from_url(redis_server.url).ping()
    await client.aclose()


async def test_an_error_is_raised_and_the_connection_goes_on(client: MultiplexedRedis) -> None:
    await client.call("SET", "mux-text", "text")
    with pytest.raises(DependencyUnavailable, match=r"Redis refuses: .*not an integer"):
        await client.call("INCR", "mux-text")
    assert await client.call("GET", "mux-text") == b"text"


async def test_a_server_that_dies_fails_what_it_owes_and_comes_back(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path)
    client = MultiplexedRedis(server.url, 2.0)
    await client.call("SET", "key", "value")
    assert server.pid is not None
    os.kill(server.pid, signal.SIGSTOP)
    owed = [asyncio.create_task(client.call("GET", "key")) for _ in range(10)]
    await asyncio.sleep(0.05)
    os.kill(server.pid, signal.SIGKILL)
    results = await asyncio.gather(*owed, return_exceptions=True)
    assert all(isinstance(result, DependencyUnavailable) for result in results)
    # Once it is quite gone: while it dies, its socket may still take a connection.
    server.close()
    with pytest.raises(DependencyUnavailable, match="cannot be reached"):
        await client.call("GET", "key")
    with EmbeddedRedis(tmp_path):
        assert await client.call("PING") == b"PONG"
    await client.aclose()


async def test_a_server_that_hangs_is_left_for_another_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_multiplexed, "_STALL_S", 0.2)
    with EmbeddedRedis(tmp_path) as server:
        client = MultiplexedRedis(server.url, 2.0)
        await client.call("SET", "key", "value")
        assert server.pid is not None
        os.kill(server.pid, signal.SIGSTOP)
        try:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.25):
                    await client.call("GET", "key")
            with pytest.raises(DependencyUnavailable, match=r"no reply for 0\.2 s"):
                await client.call("GET", "key")
        finally:
            os.kill(server.pid, signal.SIGCONT)
        assert await client.call("GET", "key") == b"value"
        await client.aclose()


async def test_pending_replies_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_multiplexed, "_MAX_PENDING", 10)
    with EmbeddedRedis(tmp_path) as server:
        client = MultiplexedRedis(server.url, 2.0)
        await client.call("PING")
        assert server.pid is not None
        os.kill(server.pid, signal.SIGSTOP)
        try:
            calls = [asyncio.create_task(client.call("PING")) for _ in range(12)]
            await asyncio.sleep(0.01)
            refused = [call for call in calls if call.done()]
        finally:
            os.kill(server.pid, signal.SIGCONT)
        assert len(refused) == 2
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert results[:10] == [b"PONG"] * 10
        assert all("10 replies from Redis are pending" in str(result) for result in results[10:])
        await client.aclose()


async def test_passwords_and_databases_of_the_url_are_used(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path) as server:
        admin = redis.Redis.from_url(server.url)
        admin.config_set("requirepass", "s3cret/@")
        try:
            with pytest.raises(DependencyUnavailable, match="NOAUTH"):
                await MultiplexedRedis(server.url, 2.0).call("PING")
            path = server.url.removeprefix("unix://")
            with pytest.raises(DependencyUnavailable, match=r"WRONGPASS|invalid password"):
                await MultiplexedRedis(f"unix://:wrong@{path}", 2.0).call("PING")
            client = MultiplexedRedis(f"unix://:s3cret%2F%40@{path}?db=3", 2.0)
            await client.call("SET", "key", "value")
            admin.select(3)
            assert admin.get("key") == b"value"
            await client.aclose()
        finally:
            admin.config_set("requirepass", "")


async def test_closing_while_it_connects_leaves_no_connection(unused_tcp_port: int) -> None:
    ended = asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        with contextlib.suppress(ConnectionError):
            await reader.read()
        ended.set()
        writer.close()

    async with await asyncio.start_server(hang, "127.0.0.1", unused_tcp_port):
        client = MultiplexedRedis(f"redis://:secret@127.0.0.1:{unused_tcp_port}", 20.0)
        call = asyncio.create_task(client.call("PING"))
        await asyncio.sleep(0.1)
        await client.aclose()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.wait_for(ended.wait(), 10)


async def test_what_is_no_redis_is_left(unused_tcp_port: int) -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await reader.read()
        writer.close()

    async with await asyncio.start_server(babble, "127.0.0.1", unused_tcp_port):
        client = MultiplexedRedis(f"redis://127.0.0.1:{unused_tcp_port}", 2.0)
        with pytest.raises(DependencyUnavailable):
            await client.call("PING")
        await client.aclose()


def test_a_url_that_is_none() -> None:
    with pytest.raises(ValueError, match="scheme"):
        MultiplexedRedis("http://localhost", 1.0)
