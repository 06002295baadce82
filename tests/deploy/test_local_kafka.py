"""`make kafka`: what it says where it cannot start a broker, and that it goes when it is told to."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from deploy.local_kafka import fetch_jars

COMMAND = [sys.executable, "-m", "deploy.local_kafka"]
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("missing", ["java", "mvn"])
def test_what_is_missing_is_named(missing: str, tmp_path: Path) -> None:
    for tool in {"java", "mvn"} - {missing}:
        (tmp_path / tool).write_text("#!/bin/sh\n")
        (tmp_path / tool).chmod(0o755)
    done = subprocess.run(COMMAND, cwd=ROOT, env=os.environ | {"PATH": str(tmp_path)}, capture_output=True, text=True)
    assert done.returncode == 2
    assert f"needs {missing}" in done.stderr


@pytest.mark.skipif("KAFKA_VERSION" not in os.environ, reason="starts a broker: make test-kafka")
def test_a_broker_runs_until_it_is_told_to_end() -> None:
    assert shutil.which("java")
    fetch_jars(os.environ["KAFKA_VERSION"])
    command = [*COMMAND, "--version", os.environ["KAFKA_VERSION"]]
    running = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert running.stdout is not None
        first, second = running.stdout.readline(), running.stdout.readline()
        found = re.search(r"at (127\.0\.0\.1:\d+);", first)
        assert found is not None
        assert second == f"ENGINE_KAFKA__BROKERS={found[1]}\n"
        assert AdminClient({"bootstrap.servers": found[1]}).list_topics(timeout=20).brokers
        running.send_signal(signal.SIGTERM)
        assert running.wait(60) == 0
    finally:
        running.kill()
        running.wait()
