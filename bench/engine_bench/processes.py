"""Starting the engine's own commands as processes, the way an operator would."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from engine.errors import DependencyUnavailable
from engine_client import RecommendationClient

_SETTINGS = """\
[server]
port = {port}
workers = {workers}
[bundle]
directory = {bundles}
[redis]
url = {redis_url}
directory = {redis}
[kafka]
brokers = {brokers}
directory = {kafka}
"""
_START_ATTEMPTS = 120


def write_settings(work: Path, port: int, redis_url: str = "", brokers: str = "", workers: int = 1) -> Path:
    """engine.toml in `work`, where bundles and embedded services live, too; returns its path."""
    paths = {name: json.dumps(str(work / name)) for name in ("bundles", "redis", "kafka")}
    path = work / "engine.toml"
    urls = {"redis_url": json.dumps(redis_url), "brokers": json.dumps(brokers)}
    path.write_text(_SETTINGS.format(port=port, workers=workers, **urls, **paths))
    return path


@contextmanager
def engine_process(command: str, config_file: Path, log_file: Path | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """`engine serve` or `engine process` for as long as the context lasts. log_file: of its log; here without."""
    with ExitStack() as resources:
        log = None if log_file is None else resources.enter_context(log_file.open("wb"))
        process = subprocess.Popen([sys.executable, "-m", "engine", command, "--config", str(config_file)], stderr=log)
        try:
            yield process
        finally:
            process.terminate()
            process.wait()


def wait_until_serving(client: RecommendationClient, server: subprocess.Popen[bytes]) -> None:
    """Return once the server says SERVING. Raises DependencyUnavailable when it ends before, or takes a minute."""
    for _ in range(_START_ATTEMPTS):
        if server.poll() is not None:
            raise DependencyUnavailable("the server ended before it was ready; its log says why")
        try:
            client.wait_until_serving(0.5)
            return
        except DependencyUnavailable:
            continue
    raise DependencyUnavailable("the server was not ready within a minute")
