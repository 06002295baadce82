"""`engine serve --workers 2` as a process with processes of its own, for tests that do it harm."""

import json
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

SETTINGS = """\
[server]
host = "127.0.0.1"
port = 0
request_timeout_ms = 20000
drain_s = 20
max_connection_age_s = 60
metrics_port = 0
[bundle]
directory = {bundles}
poll_s = 0.2
[redis]
directory = {redis}
timeout_ms = 5000
[kafka]
directory = {kafka}
"""
START_TIMEOUT_S = 120


@dataclass(slots=True)
class Fleet:
    """A running `engine serve`, and what it has said."""

    process: subprocess.Popen[bytes]
    home: Path
    said: Path
    port: int = field(default=0)
    metrics_port: int = field(default=0)

    @property
    def log(self) -> str:
        return self.said.read_text()

    @property
    def workers(self) -> dict[int, int]:
        """The process that serves in each place, as last heard."""
        return {
            int(place): int(process) for place, process in re.findall(r"worker (\d+) serves \(process (\d+)", self.log)
        }

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    def metrics(self) -> dict[str, float]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines if not line.startswith("#")}


@contextmanager
def running_fleet(home: Path, bundles: Path, more: str = "") -> Iterator[Fleet]:
    """Two workers with a Redis and a Kafka of their own, from their start until they are told to stop.

    more: further lines of settings.
    """
    values = {"bundles": bundles, "redis": home / "redis", "kafka": home / "kafka"}
    settings = home / "engine.toml"
    settings.write_text(
        SETTINGS.format(brokers='""', **{name: json.dumps(str(path)) for name, path in values.items()}) + more
    )
    command = [sys.executable, "-m", "engine", "serve", "--config", str(settings), "--workers", "2"]
    said = home / "log"
    with said.open("wb") as log, subprocess.Popen(command, stderr=log, stdout=log) as process:
        fleet = Fleet(process, home, said)
        try:
            yield fleet
        finally:
            process.terminate()
            try:
                process.wait(60)
            finally:
                process.kill()


def wait_until_ready(fleet: Fleet) -> None:
    give_up = time.monotonic() + START_TIMEOUT_S
    while "ready: 2 workers serve" not in fleet.log:
        assert fleet.process.poll() is None, fleet.log
        assert time.monotonic() < give_up, fleet.log
        time.sleep(0.1)
    fleet.port = int(re.findall(r"starting 2 workers on 127\.0\.0\.1:(\d+)", fleet.log)[0])
    fleet.metrics_port = int(re.findall(r"metrics on http://127\.0\.0\.1:(\d+)/metrics", fleet.log)[0])


def running(process_id: int) -> bool:
    return Path(f"/proc/{process_id}").exists()
