"""What the supervisor does about its workers' ends, on small real processes; test_workers.py has the engine's own."""

import asyncio
import json
import os
import re
import signal
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from engine.app.supervisor import Program, RestartPolicy, Supervisor
from engine.app.workers import with_device_process, worker_settings
from engine.config.serving import EngineConfig
from engine.errors import EngineError
from tests.engine.rpc.conftest import until

HASTE = RestartPolicy(failed_starts=3, first_pause_s=0.01, longest_pause_s=0.05)
WATCHFUL = replace(HASTE, heartbeat_s=1.0)
# Says that it serves, and ends with the supervisor or at its signal, as a worker does.
STEADY = "import sys; sys.stdin.readline(); print('serving', flush=True); sys.stdin.read()"
# The same, but its first end in a directory (the settings) comes before it ever serves.
LAME_START = (
    "import os, sys; home = sys.stdin.readline().strip(); mine = os.path.join(home, sys.argv[1])\n"
    "if not os.path.exists(mine): open(mine, 'w').close(); sys.exit(7)\n"
    "print('serving', flush=True); sys.stdin.read()"
)
# The same, and says so at intervals.
BEATING = (
    "import sys, threading, time; sys.stdin.readline(); print('serving', flush=True)\n"
    "threading.Thread(target=sys.stdin.read).start()\n"
    "while threading.active_count() > 1: time.sleep(0.05); print('beat', flush=True)"
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
    script: str,
    workers: int = 2,
    settings: str = "{}",
    drain_s: float = 5,
    policy: RestartPolicy = HASTE,
    metrics: "Figures | None" = None,
) -> Supervisor:
    return Supervisor(workers, settings, drain_s, metrics, (sys.executable, "-c", script), policy)


@dataclass
class Figures:
    """What a supervisor says of its workers."""

    environment: dict[str, str] = field(default_factory=dict)
    workers: int = 0
    silences: int = 0
    unexpected: int = 0

    def serving(self, workers: int) -> None:
        self.workers = workers

    def silent(self) -> None:
        self.silences += 1

    def ended(self, process_id: int, *, unexpected: bool) -> None:
        self.unexpected += unexpected


def with_device(script: str, settings: str = "{}", device_script: str | None = None) -> Supervisor:
    device = Program(settings, (sys.executable, "-c", device_script or script))
    command = (sys.executable, "-c", script)
    return Supervisor(2, settings, 5, command=command, policy=HASTE, device=device)


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


async def test_one_that_cannot_start_is_tried_for_ever_and_leaves_the_serving_ones_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # Fails until there is a file, but for the first worker.
    script = (
        "import os, sys; home = sys.stdin.readline().strip()\n"
        "if sys.argv[1] == '2' and not os.path.exists(os.path.join(home, 'mended')): sys.exit(4)\n"
        "print('serving', flush=True); sys.stdin.read()"
    )
    slow = replace(HASTE, failed_starts=100)
    supervisor = supervisor_of(script, settings=str(tmp_path), policy=slow)
    running = asyncio.create_task(supervisor.run())
    await until(lambda: len(served(caplog)) == 1)
    supervisor._policy = replace(HASTE, failed_starts=2)
    failed = caplog.text.count("worker 2 ended with exit status 4")
    await until(lambda: caplog.text.count("worker 2 ended with exit status 4") >= failed + 6)
    assert alive(served(caplog)[0][1])
    (tmp_path / "mended").touch()
    await until(lambda: "ready: 2 workers serve" in caplog.text)
    assert [place for place, _ in served(caplog)] == [1, 2]
    supervisor.stop()
    await asyncio.wait_for(running, 10)


async def test_all_are_gone_and_cannot_start_and_are_tried_until_they_can(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    script = (
        "import os, sys; home = sys.stdin.readline().strip()\n"
        "if os.path.exists(os.path.join(home, 'broken')): sys.exit(4)\n"
        "print('serving', flush=True); sys.stdin.read()"
    )
    metrics = Figures()
    supervisor = supervisor_of(script, settings=str(tmp_path), metrics=metrics)
    running = asyncio.create_task(supervisor.run())
    await until(lambda: "ready: 2 workers serve" in caplog.text)
    (tmp_path / "broken").touch()
    for _, process in served(caplog):
        os.kill(process, signal.SIGKILL)
    await until(lambda: caplog.text.count("ended with exit status 4") > 3 * HASTE.failed_starts)
    assert metrics.workers == 0
    (tmp_path / "broken").unlink()
    await until(lambda: metrics.workers == 2)
    supervisor.stop()
    await asyncio.wait_for(running, 10)


async def test_a_stopped_worker_is_not_serving_and_is_replaced(caplog: pytest.LogCaptureFixture) -> None:
    metrics = Figures()
    supervisor = supervisor_of(BEATING, policy=WATCHFUL, metrics=metrics)
    running = asyncio.create_task(supervisor.run())
    await until(lambda: metrics.workers == 2)
    before = dict(served(caplog))
    os.kill(before[1], signal.SIGSTOP)
    stopped = time.monotonic()
    await until(lambda: metrics.workers == 1)
    assert time.monotonic() - stopped >= WATCHFUL.heartbeat_s * 0.8
    await until(lambda: metrics.workers == 2)
    assert dict(served(caplog))[1] != before[1]
    assert not alive(before[1])
    assert alive(before[2])
    assert "worker 1 ended by SIGKILL: its event loop did not answer for" in caplog.text
    assert (metrics.silences, metrics.unexpected) == (1, 1)
    supervisor.stop()
    await asyncio.wait_for(running, 10)


async def test_a_busy_worker_and_one_that_starts_have_longer_limits(caplog: pytest.LogCaptureFixture) -> None:
    # Silent for two limits before it serves, and again while it says that it is busy; then for good.
    script = (
        "import sys, time; sys.stdin.readline(); time.sleep(2); print('serving', flush=True)\n"
        "print('busy', flush=True); time.sleep(2); print('free', flush=True); time.sleep(60)"
    )
    supervisor = supervisor_of(script, workers=1, policy=replace(WATCHFUL, start_s=30))
    running = asyncio.create_task(supervisor.run())
    await until(lambda: "does not answer" in caplog.text)
    (_, process), *_ = served(caplog)
    lines = [record for record in caplog.records if "serves" in record.message or "does not answer" in record.message]
    assert lines[1].created - lines[0].created >= 2 + WATCHFUL.heartbeat_s * 0.8
    await until(lambda: not alive(process))
    supervisor.stop()
    await asyncio.wait_for(running, 40)
    short = supervisor_of("import time; time.sleep(60)", workers=1, policy=replace(WATCHFUL, start_s=0.3))
    with pytest.raises(EngineError, match="did not answer for"):
        await asyncio.wait_for(short.run(), 20)


async def test_a_supervisor_that_was_suspended_itself_blames_no_worker(caplog: pytest.LogCaptureFixture) -> None:
    """As with a machine that is suspended: nothing runs for a while, then everything does."""
    supervisor = supervisor_of(BEATING, policy=WATCHFUL)
    running = asyncio.create_task(supervisor.run())
    await until(lambda: "ready: 2 workers serve" in caplog.text)
    workers = served(caplog)
    for _, process in workers:
        os.kill(process, signal.SIGSTOP)
    time.sleep(3 * WATCHFUL.heartbeat_s)
    for _, process in workers:
        os.kill(process, signal.SIGCONT)
    await asyncio.sleep(2 * WATCHFUL.heartbeat_s)
    assert all(alive(process) for _, process in workers)
    assert "does not answer" not in caplog.text
    supervisor.stop()
    await asyncio.wait_for(running, 10)


async def test_a_process_that_cannot_even_be_started_is_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    program = tmp_path / "worker"
    program.write_text(f"#!{sys.executable}\n{STEADY}")
    program.chmod(0o700)
    supervisor = Supervisor(1, "{}", 5, command=(str(program),), policy=HASTE)
    running = asyncio.create_task(supervisor.run())
    await until(lambda: len(served(caplog)) == 1)
    program.rename(tmp_path / "away")
    os.kill(served(caplog)[0][1], signal.SIGKILL)
    await until(lambda: caplog.text.count("worker 1 ended before it began: ") > HASTE.failed_starts)
    (tmp_path / "away").rename(program)
    await until(lambda: len(served(caplog)) == 2)
    supervisor.stop()
    await asyncio.wait_for(running, 10)


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
    policy = RestartPolicy(failed_starts=100, first_pause_s=60, longest_pause_s=60, jitter=0)
    supervisor = supervisor_of("import sys; sys.exit(1)", policy=policy)
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
    await until(lambda: bool(supervisor._children))
    supervisor.stop()
    await asyncio.wait_for(running, 10)
    assert not served(caplog)


def test_front_ends_are_told_of_the_socket_and_the_device_process_of_the_batch(tmp_path: Path) -> None:
    config = EngineConfig.load(device={"process": True}, server={"workers": 2})
    front, device = with_device_process(config, tmp_path / "socket")
    assert front.device.device_socket == tmp_path / "socket"
    # Threads of a front end wait, so that there are as many as a batch holds.
    assert EngineConfig(**json.loads(worker_settings(front, 1))).server.compute_threads >= 32
    told = EngineConfig(**json.loads(device.settings))
    assert (told.device.device_socket, told.micro_batch) == (None, 32)
    assert device.command[-1] == str(tmp_path / "socket")
    assert EngineConfig.load(device={"process": True}).device.device_socket is None


def test_pauses_double_up_to_a_limit() -> None:
    policy = RestartPolicy(first_pause_s=0.5, longest_pause_s=30, jitter=0)
    assert [policy.pause_s(ends) for ends in range(5)] == [0, 0.5, 1, 2, 4]
    assert policy.pause_s(7) == policy.pause_s(10_000) == 30
    spread = [RestartPolicy(longest_pause_s=30, jitter=0.2).pause_s(10_000) for _ in range(100)]
    assert 24 <= min(spread) < 29 < 31 < max(spread) <= 36


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
