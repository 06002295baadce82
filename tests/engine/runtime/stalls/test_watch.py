"""A loop that is held up on purpose, and what is said of it."""

import asyncio
import gc
import json
import logging
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from engine.config.serving import EngineConfig, StallsConfig
from engine.runtime.stalls.cause import Cause, Stall
from engine.runtime.stalls.metrics import StallMetrics
from engine.runtime.stalls.watch import OWN_LINE_PERIOD_S, _RecordLines, timing_collections, watching

SETTINGS = StallsConfig(period_ms=2)


async def until(holds: Any) -> None:
    give_up = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < give_up, "waited in vain"
        await asyncio.sleep(0.01)


def recorded(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def named(path: Path, function: str) -> list[dict[str, Any]]:
    return [stall for stall in recorded(path) if any(line.endswith(f" {function}") for line in stall["stack"])]


def blocked(path: Path) -> list[dict[str, Any]]:
    return [stall for stall in named(path, "wait_for_a_file") if stall["cause"] == "blocked"]


def wait_for_a_file() -> None:
    time.sleep(0.4)


def count_without_a_pause() -> None:
    # One call of C, which never lets go of the interpreter.
    sum(range(30_000_000))


async def test_a_callback_that_blocks_is_named_with_its_stack(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    record = tmp_path / "pauses"
    registry = CollectorRegistry()
    with caplog.at_level(logging.INFO, "engine.runtime.stalls"):
        async with watching(SETTINGS.model_copy(update={"record": record}), StallMetrics(registry)):
            # On a machine without a free processor, waiting for one can be the greater part of a pause.
            for _ in range(30):
                await asyncio.sleep(0.1)
                if blocked(record):
                    break
                wait_for_a_file()
    stall = blocked(record)[0]
    assert stall["thread"] == threading.current_thread().name
    assert stall["own_ms"] > 200
    assert stall["stack"][0].startswith("tests/engine/runtime/stalls/test_watch.py:")
    lines = [record.getMessage() for record in caplog.records if "wait_for_a_file" in record.getMessage()]
    assert "the event loop stood still for" in lines[0]
    assert registry.get_sample_value("engine_stalls_total", {"cause": "blocked"}) >= 1
    assert registry.get_sample_value("engine_event_loop_lag_seconds_bucket", {"le": "+Inf"}) > 0
    assert registry.get_sample_value("engine_event_loop_lag_seconds_sum") > 0.2


async def test_a_thread_that_keeps_the_interpreter_is_named(tmp_path: Path) -> None:
    record, stop = tmp_path / "pauses", threading.Event()

    def keep() -> None:
        while not stop.is_set():
            count_without_a_pause()
            time.sleep(0.05)

    culprit = threading.Thread(target=keep, name="culprit")
    async with watching(SETTINGS.model_copy(update={"record": record})):
        culprit.start()
        try:
            # Whether it is called the interpreter's fault or the machine's depends on who else computes here.
            await until(lambda: named(record, "count_without_a_pause"))
        finally:
            stop.set()
            culprit.join()
    stall = named(record, "count_without_a_pause")[0]
    assert stall["thread"] == "culprit"
    assert stall["cause"] in ("interpreter", "machine")


async def test_a_quiet_loop_is_watched_to_the_end_of_it(tmp_path: Path) -> None:
    before = threading.active_count()
    async with watching(SETTINGS):
        await asyncio.sleep(0.05)
        assert any(thread.name == "engine-stall-watch" for thread in threading.enumerate())
    assert not any(thread.name == "engine-stall-watch" for thread in threading.enumerate())
    assert threading.active_count() <= before + 1  # asyncio's helper thread, which waited for the other one


def test_collections_are_timed_without_an_event_loop() -> None:
    registry = CollectorRegistry()
    callbacks = len(gc.callbacks)
    with timing_collections(StallMetrics(registry), period_s=0.01):
        gc.collect()
        give_up = time.monotonic() + 60
        name, labels = "engine_collector_pause_seconds_count", {"generation": "2"}
        while not registry.get_sample_value(name, labels):
            assert time.monotonic() < give_up
            time.sleep(0.01)
    assert len(gc.callbacks) == callbacks


def test_many_pauses_make_one_line_and_a_number() -> None:
    lines = _RecordLines(OWN_LINE_PERIOD_S)
    stall = Stall(1.0, 50.0, 50.0, Cause.LOOP, "MainThread", ("shop.py:7 handle",))
    said = [lines.about(stall, now) for now in (100.0, 101.0, 109.0, 100.0 + OWN_LINE_PERIOD_S)]
    assert said[0] == "50 ms, 50 ms of its own making: loop, MainThread: shop.py:7 handle"
    assert said[1:3] == ["", ""]
    assert said[3] == f"{said[0]} (2 more since the last such line)"


def test_the_settings_can_be_said() -> None:
    assert EngineConfig.load(stalls={"log_ms": 50, "period_ms": 5}).stalls.log_ms == 50
