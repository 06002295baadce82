"""Tools that know an address and nothing else learn the API by reflection."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.clients.conftest import PROTO, run

METHOD = "engine.v1.RecommendationService/Recommend"
REQUEST = json.dumps({"user_id": "user-1", "surface": "home", "item_count": 5})
Tool = Callable[..., str]


@pytest.mark.parametrize("call", [METHOD, METHOD.replace("/", ".")])
def test_ghz_measures(tool: Tool, target: str, call: str, tmp_path: Path) -> None:
    ghz = tool("go", "bin/ghz")
    report = json.loads(
        run(
            [ghz, "--insecure", "--call", call, "--data", REQUEST, "--total", "20", "--concurrency", "2", "--format",
             "json", target],
            tmp_path,
        )
    )  # fmt: skip
    assert report["statusCodeDistribution"] == {"OK": 20}


@pytest.mark.parametrize("version", ["grpc-v1", "grpc-v1alpha"])
def test_buf_curl(tool: Tool, target: str, version: str, tmp_path: Path) -> None:
    buf = tool("npm", "typescript/node_modules/.bin/buf")
    answer = json.loads(
        run(
            [buf, "curl", "--protocol", "grpc", "--http2-prior-knowledge", "--reflect-protocol", version, "--data",
             REQUEST, f"http://{target}/{METHOD}"],
            tmp_path,
        )
    )  # fmt: skip
    assert len(answer["items"]) == 5


def test_buf_finds_the_protos_in_order(tool: Tool, tmp_path: Path) -> None:
    run([tool("npm", "typescript/node_modules/.bin/buf"), "lint", str(PROTO)], tmp_path)


def test_grpcurl(tool: Tool, target: str, tmp_path: Path) -> None:
    grpcurl = tool("go", "bin/grpcurl")
    services = run([grpcurl, "-plaintext", target, "list"], tmp_path).split()
    assert {"engine.v1.RecommendationService", "engine.v1.EventService", "grpc.reflection.v1.ServerReflection"} <= set(
        services
    )
    # Each description needs every type that it names.
    for service in services:
        assert f"service {service.rpartition('.')[2]} " in run(
            [grpcurl, "-plaintext", target, "describe", service], tmp_path
        )
    answer = json.loads(run([grpcurl, "-plaintext", "-d", REQUEST, target, METHOD], tmp_path))
    assert len(answer["items"]) == 5
