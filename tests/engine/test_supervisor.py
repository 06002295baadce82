"""What the supervisor does about its workers' ends, on small real processes; test_workers.py has the engine's own."""

import asyncio
import json
import os
import re
import signal
import sys
import time
from pathlib import Path

import pytest

from engine.config import EngineConfig
from engine.errors import EngineError
from engine.supervisor import Patience, Supervisor
from engine.workers import worker_settings
from tests.engine.rpc.conftest import until

HASTE = Patience(failed_starts=3, first_pause_s=0.01, longest_pause_s=0.05)
# Says that it serves, and ends with the supervisor or at its signal, as a worker does.
STEADY = "import sys; sys.stdin.readline(); print('serving', flush=True); sys.stdin.read()"
# The same, but its first end in a directory (the settings) comes before it ever serves.
LAME_START = (
    "import os, sys; home = sys.stdin.readline().strip(); mine = os.path.join(home, sys.argv[1])\n"
    "if not os.path.exists(mine): open(mine, 'w').close(); sys.exit(7)\n"
    "print('serving', flush=True); sys.stdin.read()"
)
STUBBORN = (
    "import signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); sys.stdin.readline()\n"
    "print('serving', flush=True); time.sleep(60)"
)


def supervisor_of(
    script: str, workers: int = 2, settings: str = "{}", drain_s: float = 5, patience: Patience = HASTE
) -> Supervisor:
    return Supervisor(workers, settings, drain_s, command=(sys.executable, "-c", script), patience=patience)


def served(caplog: pytest.LogCaptureFixture) -> list[tuple[int, int]]:
    """(place, process) of every worker that has served, in order."""
    found = re.findall(r"worker (\d+) serves \(process (\d+)\)", caplog.text)
    return [(int(place), int(process)) for place, process in found]


def alive(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture(autouse=True)
def logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "engine.supervisor")


async def test_it_is_ready_once_all_serve_and_stops_them_all(caplog: pytest.LogCaptureFixture) -> None:
    supervisor = supervisor_of(STEADY, workers=3)
    running = asyncio.create_task(supervisor.run())
    await until(lambda: "ready: 3 workers serve" in caplog.text)
    workers = served(caplog)
    assert sorted(place for place, _ in workers) == [1, 2, 3]
    assert all(alive(process) for _, process in workers)
    supervisor.stop()
    await asyncio.wait_for(running, 10)
    assert not any(alive(process) for _, process in workers)


async def test_a_worker_that_is_killed_is_replaced_in_its_place(caplog: pytest.LogCaptureFixture) -> None:
    supervisor = supervisor_of(STEADY)
    running = asyncio.create_task(supervisor.run())
    await until(lambda: len(served(caplog)) == 2)
    before = dict(served(caplog))
    os.kill(before[2], signal.SIGKILL)
    await until(lambda: len(served(caplog)) == 3)
    place, process = served(caplog)[-1]
    assert place == 2
    assert process != before[2]
    assert alive(before[1]), "the other worker was not left alone"
    assert "worker 2 ended by SIGKILL" in caplog.text
    assert caplog.text.count("ready: ") == 1
    supervisor.stop()
    await asyncio.wait_for(running, 10)


async def test_a_worker_that_never_serves_ends_everything_with_its_message(caplog: pytest.LogCaptureFixture) -> None:
    script = "import sys; sys.stdin.readline(); print('failed no bundle in that directory', flush=True); sys.exit(2)"
    with pytest.raises(EngineError, match=r"3 times in a row before it served, .* no bundle in that directory$"):
        await asyncio.wait_for(supervisor_of(script, workers=1).run(), 20)
    assert caplog.text.count("worker 1 ended") == 2
    with pytest.raises(EngineError, match="lastly with exit status 5"):
        await asyncio.wait_for(supervisor_of("import sys; sys.exit(5)").run(), 20)


async def test_one_that_cannot_be_kept_takes_the_serving_ones_along(caplog: pytest.LogCaptureFixture) -> None:
    script = f"import sys; sys.argv[1] == '2' and sys.exit(4)\n{STEADY}"
    with pytest.raises(EngineError, match="exit status 4"):
        await asyncio.wait_for(supervisor_of(script).run(), 20)
    assert [place for place, _ in served(caplog)] == [1]
    assert not alive(served(caplog)[0][1])


async def test_a_start_that_fails_once_is_forgiven(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    supervisor = supervisor_of(LAME_START, settings=str(tmp_path))
    running = asyncio.create_task(supervisor.run())
    await until(lambda: "ready: 2 workers serve" in caplog.text)
    # Deaths after having served are no failed starts, however many: what has served once can serve.
    for death in range(HASTE.failed_starts + 1):
        os.kill(dict(served(caplog))[1], signal.SIGKILL)
        await until(lambda death=death: len(served(caplog)) == 3 + death)
    supervisor.stop()
    await asyncio.wait_for(running, 10)


async def test_a_worker_that_ignores_its_signal_is_killed(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.supervisor._END_TIMEOUT_S", 0.2)
    supervisor = supervisor_of(STUBBORN, workers=1, drain_s=0.1)
    running = asyncio.create_task(supervisor.run())
    await until(lambda: "ready: " in caplog.text)
    supervisor.stop()
    await asyncio.wait_for(running, 10)
    assert not alive(served(caplog)[0][1])


async def test_stopping_does_not_wait_for_a_pause(caplog: pytest.LogCaptureFixture) -> None:
    patience = Patience(failed_starts=100, first_pause_s=60, longest_pause_s=60)
    supervisor = supervisor_of("import sys; sys.exit(1)", patience=patience)
    running = asyncio.create_task(supervisor.run())
    await until(lambda: caplog.text.count("another one in 60.0 s") == 2)
    started = time.monotonic()
    supervisor.stop()
    await asyncio.wait_for(running, 10)
    assert time.monotonic() - started < 5


def test_pauses_double_up_to_a_limit() -> None:
    patience = Patience(first_pause_s=0.5, longest_pause_s=30)
    assert [patience.pause_s(ends) for ends in range(5)] == [0, 0.5, 1, 2, 4]
    assert patience.pause_s(7) == patience.pause_s(10_000) == 30


def test_a_worker_reads_the_settings_of_all_with_its_port_and_its_share_of_the_cores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    config = EngineConfig.load(None, server={"workers": 3, "port": 0}, catalog={"categories": ["a", "b"]})
    line = worker_settings(config, 4711)
    assert "\n" not in line
    read = EngineConfig(**json.loads(line))
    assert (read.server.port, read.server.compute_threads) == (4711, 2)
    assert read.catalog == config.catalog
    assert read.surfaces == config.surfaces
    chosen = EngineConfig.load(None, server={"workers": 3, "compute_threads": 7})
    assert EngineConfig(**json.loads(worker_settings(chosen, 1))).server.compute_threads == 7
