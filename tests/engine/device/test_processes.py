"""Front ends that are processes: what they get is theirs, and what is left of one that was killed is nothing."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from engine.device.model import LeasedModels
from engine.device.server import DeviceServer
from tests.engine.device import mirror
from tests.engine.device.serving import BUNDLE

PATIENCE_S = 30.0


def asker(path: Path, seed: int, threads: int, requests: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.engine.device.asker", str(path), *map(str, (seed, threads, requests))]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_answers_of_several_processes_are_never_mixed_up(tmp_path: Path) -> None:
    """Random searches and rankings, some of them late or bad, from three processes with eight threads each."""
    processes, threads, requests = 3, 8, 150
    with DeviceServer(tmp_path / "socket", LeasedModels(lambda _: mirror.model()), max_batch=5):
        running = [asker(tmp_path / "socket", seed, threads, requests) for seed in range(processes)]
        said = [process.communicate(timeout=PATIENCE_S)[0] for process in running]
        assert [process.returncode for process in running] == [0] * processes
    answered, late, refused = np.array([list(map(int, line.split())) for line in said]).sum(axis=0)
    assert answered + late + refused == processes * threads * requests
    # All three are there: it is not that nothing was late or bad.
    assert min(answered, late, refused) > 0


def test_of_a_killed_front_end_nothing_is_left_and_others_do_not_notice(tmp_path: Path) -> None:
    models = LeasedModels(lambda _: mirror.model())
    with DeviceServer(tmp_path / "socket", models, max_batch=5) as server:
        victim, other = (asker(tmp_path / "socket", seed, 4, count) for seed, count in ((1, 10**9), (2, 300)))
        until(lambda: server.slots >= 8)
        victim.send_signal(signal.SIGKILL)
        victim.communicate()
        other.communicate(timeout=PATIENCE_S)
        assert other.returncode == 0
        until(lambda: server.slots == 0)
        until(lambda: models._held[BUNDLE].leases == 0)
        until(lambda: _mapped_slots() == 0)


def until(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.01)


def _mapped_slots() -> int:
    return Path("/proc/self/maps").read_text().count("engine-slot")
