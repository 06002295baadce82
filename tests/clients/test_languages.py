"""Code of other languages is made from the protos as they are, compiles, and gets recommendations."""

import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from engine_client import RecommendationClient
from tests.clients.conftest import INSTALLED, PROTO, run

HERE = Path(__file__).parent
USER = "user-1"
Tool = Callable[..., str]


@pytest.fixture
def items(target: str) -> list[str]:
    """What the Python client gets for the same user."""
    with RecommendationClient(target, timeout_s=30) as client:
        return [item.item_id for item in client.recommend(USER, "home", item_count=5).items]


def test_go(tool: Tool, target: str, items: list[str], tmp_path: Path) -> None:
    go, plugins = tool("go"), [tool("go", f"bin/protoc-gen-{name}") for name in ("go", "go-grpc")]
    shutil.copytree(HERE / "go", tmp_path / "go")
    into, module = tmp_path / "go", "personalization-engine"
    arguments = [f"--plugin={plugin}" for plugin in plugins]
    arguments += [f"--go_out={into}", f"--go_opt=module={module}"]
    arguments += [f"--go-grpc_out={into}", f"--go-grpc_opt=module={module}"]
    protos = [str(path) for path in PROTO.rglob("*.proto")]
    run([sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTO}", *arguments, *protos], into)
    run([go, "build", "-o", "client", "."], into, GOFLAGS="-mod=readonly", GOPROXY="off")
    assert run([str(into / "client"), target, USER, "home"], into).split() == items


def test_java(tool: Tool, target: str, items: list[str], tmp_path: Path) -> None:
    tool("java")
    maven, _ = tool("mvn"), tool("mvn", "java")
    shutil.copytree(HERE / "java", tmp_path / "java")
    arguments = [f"-Dprotos={PROTO}", f"-Dexec.args={target} {USER} home"]
    said = run([maven, "--offline", "--batch-mode", "--quiet", *arguments, "compile", "exec:java"], tmp_path / "java")
    # Maven ends whatever colour there was, also where there was none.
    assert re.sub(r"\x1b\[\d*m", "", said).split() == items


def test_typescript(tool: Tool, target: str, items: list[str], tmp_path: Path) -> None:
    node = tool("node")
    programs = Path(tool("npm", "typescript/node_modules/.bin"))
    into = tmp_path / "typescript"
    shutil.copytree(HERE / "typescript", into)
    (into / "node_modules").symlink_to(INSTALLED / "typescript" / "node_modules")
    run([str(programs / "buf"), "generate", str(PROTO)], into, PATH=f"{programs}:{os.environ['PATH']}")
    run([str(programs / "tsc")], into)
    assert run([node, "dist/client.js", target, USER, "home"], into).split() == items
