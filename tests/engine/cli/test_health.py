"""`engine health` against real servers: the exit status is all that a container's health check reads."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator

import pytest

from engine.rpc.server import Server, create_server
from tests.engine.rpc.config import server_config
from tests.engine.rpc.recommender import SteeredRecommender


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = create_server(SteeredRecommender(), server_config())
    await server.start()
    yield server
    await server.stop(0)


async def health(*arguments: str, **environment: str) -> tuple[int, str]:
    """The exit status and everything that was printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "engine", "health", *arguments,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=os.environ | environment,
    )  # fmt: skip
    said, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()


async def test_a_server_is_healthy_once_it_serves(server: Server) -> None:
    status, said = await health("--address", f"127.0.0.1:{server.port}", "--timeout-s", "0.3")
    assert (status, said) == (1, f"engine: 127.0.0.1:{server.port} was not serving within 0.3 s\n")
    server.set_serving()
    status, said = await health("--address", f"127.0.0.1:{server.port}", "--timeout-s", "30")
    assert (status, said) == (0, f"127.0.0.1:{server.port} is serving\n")


async def test_without_an_address_it_asks_the_server_of_the_settings(server: Server) -> None:
    server.set_serving()
    status, said = await health("--timeout-s", "30", ENGINE_SERVER__PORT=str(server.port))
    assert (status, said) == (0, f"127.0.0.1:{server.port} is serving\n")


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({"ENGINE_SERVER__PORT": "0"}, "server.port is 0"),
        ({"ENGINE_CONFIG": "/no/such/engine.toml"}, "/no/such/engine.toml: no such file"),
    ],
)
async def test_settings_that_cannot_work_are_another_matter(environment: dict[str, str], reason: str) -> None:
    status, said = await health(**environment)
    assert status == 2
    assert reason in said
    assert "Traceback" not in said
