"""The services that are loaded: the engine and its peers, each in its own process, over one bundle and one Redis."""

import datetime
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import psutil

from engine_bench.child import http_serving, port_printing
from engine_bench.load_runs import Askable
from engine_bench.load_target import ITEM_COUNT, SURFACE, GrpcTarget
from engine_bench.peers.settings import PeerSettings, missing
from engine_bench.processes import engine_process, wait_until_serving, write_settings
from engine_client import RecommendationClient

TITLES = {
    "engine": "the engine, a worker process a core",
    "naive": "straightforward wiring: asyncio gRPC, redis-py, FAISS, the tiled graph, NumPy",
    "mosec": "the same wiring in mosec, a worker process a core, JSON over HTTP",
    "null": "a gRPC service that answers with the same 50 items",
}
# What a service needs beside the engine.
_PACKAGES = {"mosec": ("mosec", "aiohttp")}


class Connectable(Askable, Protocol):
    """A target that belongs to one event loop."""

    async def connect(self) -> None: ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Service:
    """One that runs. target: makes what load is sent to, inside the event loop that sends it."""

    name: str
    process: psutil.Process
    target: Callable[[], Connectable]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What services run over.

    work: a directory of their own, which holds `bundles`. peer: what peers are told. asked_for: see GrpcTarget.
    user_id: somebody to be asked for when it is to be seen whether a service is up.
    """

    work: Path
    port: int
    peer: PeerSettings
    asked_for: datetime.datetime
    user_id: str
    skip: tuple[str, ...] = field(default=())


def reason_to_skip(name: str, skip: tuple[str, ...]) -> str | None:
    """Why a service is left out; None where it is not."""
    return "left out by --skip" if name in skip else missing(*_PACKAGES.get(name, ()))


@contextmanager
def running(name: str, around: Surroundings) -> Iterator[Service]:
    """A service that is ready, for as long as the context lasts.

    Raises DependencyUnavailable where it does not start.
    """
    starts = {"engine": _engine, "naive": _naive, "mosec": _mosec, "null": _null}
    with starts[name](around) as service:
        yield service


@contextmanager
def _engine(around: Surroundings) -> Iterator[Service]:
    config_file = write_settings(around.work, around.port, around.peer.redis_url, workers=os.cpu_count() or 1)
    with config_file.open("a") as file:
        # No peer keeps one.
        file.write("[exposures]\nenabled = false\n")
    address = f"127.0.0.1:{around.port}"
    with engine_process("serve", config_file) as process:
        with RecommendationClient(address) as client:
            wait_until_serving(client, process)
        yield Service("engine", psutil.Process(process.pid), lambda: GrpcTarget(address, around.asked_for))


@contextmanager
def _naive(around: Surroundings) -> Iterator[Service]:
    with port_printing("engine_bench.peers.naive_server", around.peer.text()) as (process, address):
        yield Service("naive", psutil.Process(process.pid), lambda: GrpcTarget(address, around.asked_for))


@contextmanager
def _null(around: Surroundings) -> Iterator[Service]:
    with port_printing("engine_bench.load_target") as (process, address):
        yield Service("null", psutil.Process(process.pid), lambda: GrpcTarget(address, around.asked_for))


@contextmanager
def _mosec(around: Surroundings) -> Iterator[Service]:
    # Here, and not above: its client is one of the libraries that need not be there.
    from engine_bench.peers.http_target import PATH, HttpTarget

    port = around.port + 1
    address = f"127.0.0.1:{port}"
    settings = replace(around.peer, port=port, workers=os.cpu_count() or 1)
    body: dict[str, Any] = {"user_id": around.user_id, "surface": SURFACE, "item_count": ITEM_COUNT}
    probe = (PATH, json.dumps(body).encode())
    with http_serving("engine_bench.peers.mosec_server", settings.text(), address, probe) as process:
        yield Service("mosec", psutil.Process(process.pid), lambda: HttpTarget(address, around.asked_for))
