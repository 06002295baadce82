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

from engine.app.supervisor import Patience, Program, Supervisor
from engine.app.workers import with_device_process, worker_settings
from engine.config.serving import EngineConfig
from engine.errors import EngineError
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
# Tells a file (the settings) when it begins and when it is told to end.
TELLING = (
    "import sys, time; told = open(sys.stdin.readline().strip(), 'a', buffering=1)\n"
    "def tell(what): told.write(f'{what} {sys.argv[-1]}\\n')\n"
    "import signal; signal.signal(signal.SIGTERM, lambda *_: (tell('ends'), sys.exit(0)))\n"
    "tell('begins'); time.sleep(0.1); tell('serves'); print('serving', flush=True); time.sleep(60)"
)
STUBBORN = (
    "import signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); sys.stdin.readline()\n"
    "print('serving', flush=True); time.sleep(60)"
)


def supervisor_of(
    script: str, workers: int = 2, settings: str = "{}", drain_s: float = 5, patience: Patience = HASTE
) -> Supervisor:
    return Supervisor(workers, settings, drain_s, command=(sys.executable, "-c", script), patience=patience)


def with_device(script: str, settings: str = "{}", device_script: str | None = None) -> Supervisor:
    device = Program(settings, (sys.executable, "-c", device_script or script))
    command = (sys.executable, "-c", script)
    return Supervisor(2, settings, 5, command=command, patience=HASTE, device=device)


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
    caplog.set_level("INFO", "engine.app.supervisor")


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
    monkeypatch.setattr("engine.app.supervisor._END_TIMEOUT_S", 0.2)
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


async def test_the_device_process_is_the_first_to_serve_and_the_last_to_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    supervisor = with_device(TELLING, str(tmp_path / "told"))
    running = asyncio.create_task(supervisor.run())
    await until(lambda: "ready: 2 workers serve" in caplog.text)
    supervisor.stop()
    await asyncio.wait_for(running, 20)
    told = (tmp_path / "told").read_text().splitlines()
    assert told[:2] == ["begins 0", "serves 0"]
    assert sorted(told[2:-1]) == ["begins 1", "begins 2", "ends 1", "ends 2", "serves 1", "serves 2"]
    assert told[-1] == "ends 0"


async def test_a_device_process_that_is_killed_is_replaced_and_no_worker_with_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    supervisor = with_device(STEADY)
    running = asyncio.create_task(supervisor.run())
    await until(lambda: "ready: 2 workers serve" in caplog.text)
    (device,) = re.findall(r"the device process serves \(process (\d+)\)", caplog.text)
    os.kill(int(device), signal.SIGKILL)
    await until(lambda: caplog.text.count("the device process serves") == 2)
    assert "the device process ended by SIGKILL" in caplog.text
    assert len(served(caplog)) == 2
    supervisor.stop()
    await asyncio.wait_for(running, 10)


async def test_without_a_device_process_no_worker_is_started(caplog: pytest.LogCaptureFixture) -> None:
    script = "import sys; sys.stdin.readline(); print('failed no such device', flush=True); sys.exit(2)"
    with pytest.raises(EngineError, match=r"the device process ended 3 times in a row .* no such device$"):
        await asyncio.wait_for(with_device(STEADY, device_script=script).run(), 20)
    assert not served(caplog)


async def test_stopping_while_the_device_process_starts_ends_it(caplog: pytest.LogCaptureFixture) -> None:
    supervisor = with_device("import time; time.sleep(60)")
    running = asyncio.create_task(supervisor.run())
    await until(lambda: bool(supervisor._running))
    supervisor.stop()
    await asyncio.wait_for(running, 10)
    assert not served(caplog)


def test_front_ends_are_told_of_the_socket_and_the_device_process_of_the_batch(tmp_path: Path) -> None:
    config = EngineConfig.load(device={"process": True}, server={"workers": 2})
    front, device = with_device_process(config, tmp_path / "socket")
    assert front.device.elsewhere == tmp_path / "socket"
    # Threads of a front end wait, so that there are as many as a batch holds.
    assert EngineConfig(**json.loads(worker_settings(front, 1))).server.compute_threads >= 32
    told = EngineConfig(**json.loads(device.settings))
    assert (told.device.elsewhere, told.micro_batch) == (None, 32)
    assert device.command[-1] == str(tmp_path / "socket")
    assert EngineConfig.load(device={"process": True}).device.elsewhere is None


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
