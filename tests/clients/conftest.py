"""A server to call, and what was installed to call it with."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Trained

ROOT = Path(__file__).parents[2]
PROTO = ROOT / "proto"
INSTALLED = Path(os.environ.get("CLIENTS", ROOT / ".clients"))
START_TIMEOUT_S = 240
SETTINGS = """\
[server]
host = "127.0.0.1"
port = 0
request_timeout_ms = 20000
[bundle]
directory = "{home}/bundles"
[redis]
directory = "{work}/redis"
timeout_ms = 5000
[exploration]
share = 0.0  # chance would give two clients two answers
[cold_start]
rotation_share = 0.0
[kafka]
directory = "{work}/kafka"
"""


@pytest.fixture(scope="session")
def target(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """host:port of a real `engine serve` over a bundle that was trained for this run."""
    work = tmp_path_factory.mktemp("clients")
    settings, said = work / "engine.toml", work / "log"
    settings.write_text(SETTINGS.format(home=trained.directory, work=work))
    command = [sys.executable, "-m", "engine", "serve", "--config", str(settings)]
    with said.open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT) as process:
        try:
            give_up = time.monotonic() + START_TIMEOUT_S
            while (serving := re.search(r"serving on 127\.0\.0\.1:(\d+)", said.read_text())) is None:
                assert process.poll() is None, said.read_text()
                assert time.monotonic() < give_up, said.read_text()
                time.sleep(0.2)
            yield f"127.0.0.1:{serving[1]}"
        finally:
            process.terminate()


@pytest.fixture(scope="session")
def tool() -> Callable[[str], str]:
    """The path of a program that a language's toolchain brings; skips where the toolchain is not there."""

    def find(toolchain: str, program: str = "") -> str:
        if shutil.which(toolchain) is None:
            pytest.skip(f"there is no {toolchain} on this machine")
        if not program:
            return toolchain
        path = INSTALLED / program
        if not path.exists():
            pytest.skip(f"{program} is not installed: make test-clients does it")
        return str(path)

    return find


def run(command: list[str], cwd: Path, **environment: str) -> str:
    """What a program prints; fails with all that it said when it does not end well."""
    done = subprocess.run(command, cwd=cwd, env=os.environ | environment, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout
