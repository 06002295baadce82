"""The Python client alone: what it needs, and that the engine shares its messages and errors."""

import subprocess
import sys
import tomllib

import engine.errors
import engine_client
from engine.types import Demographics
from tests.clients.conftest import ROOT

CLIENT = ROOT / "clients" / "python"
# Imports nothing but the standard library and what is named; everything else looks as if it were not installed.
ALONE = """
import sys

class Refuse:
    @staticmethod
    def find_spec(name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in {allowed} and top not in sys.stdlib_module_names:
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Refuse)
{code}
"""


def _run_alone(code: str, *allowed: str) -> subprocess.CompletedProcess[str]:
    script = ALONE.format(allowed=set(allowed), code=code)
    return subprocess.run([sys.executable, "-c", script], cwd=CLIENT, capture_output=True, text=True)


def test_it_needs_grpc_and_protobuf_alone() -> None:
    names = ", ".join(engine_client.__all__)
    code = f"from engine_client import {names}; from engine_client.v1 import exposure_pb2_grpc\n"
    code += "RecommendationClient('localhost:1').close(); build_request('u', 'home', debug=True, item_count=3)"
    ran = _run_alone(code, "engine_client", "google", "grpc", "typing_extensions")
    assert ran.returncode == 0, ran.stderr
    assert "ModuleNotFoundError: google" in _run_alone(code, "engine_client", "grpc", "typing_extensions").stderr


def test_errors_and_messages_need_no_grpc() -> None:
    code = "from engine_client import InvalidRequest, Demographics; from engine_client.v1 import recommendation_pb2"
    ran = _run_alone(code, "engine_client", "google")
    assert ran.returncode == 0, ran.stderr


def test_the_engine_raises_and_takes_what_the_client_knows() -> None:
    for name in ("EngineError", "InvalidRequest", "DeadlineExceeded", "Overloaded", "DependencyUnavailable"):
        assert getattr(engine.errors, name) is getattr(engine_client, name)
    assert Demographics is engine_client.Demographics


def test_former_names_are_the_same_messages() -> None:
    code = (
        "import engine.v1.event_pb2; from engine.v1 import recommendation_pb2; from engine.v1.event_pb2 import Event\n"
        "from engine.rpc.client import RecommendationClient\n"
        "from engine.rpc.requests import build_event, build_request\n"
        "import engine_client; from engine_client.v1 import event_pb2\n"
        "assert RecommendationClient is engine_client.RecommendationClient\n"
        "assert Event is event_pb2.Event is engine.v1.event_pb2.Event\n"
        "assert isinstance(build_request('u', 'home'), recommendation_pb2.RecommendRequest)\n"
        "assert isinstance(build_event('u', event_pb2.EVENT_TYPE_CLICK, 'i'), Event)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_engine_needs_the_client_of_its_own_version() -> None:
    client, ours = (tomllib.loads((folder / "pyproject.toml").read_text())["project"] for folder in (CLIENT, ROOT))
    assert f"{client['name']}=={ours['version']}" in ours["dependencies"]
    assert client["version"] == ours["version"]
