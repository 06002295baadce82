"""What the settings allow, the code behind them bears: both bounds of every number, on real servers and processors.

Case 03-seen-limit-zero is one of these.
"""

import math
import threading
import uuid
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel

from engine.app.model import train_bundle
from engine.app.processor import process
from engine.app.serve import running_server
from engine.bundle.store import BundleStore
from engine.config.names import ANY, paths, setting_at
from engine.config.serving import EngineConfig
from engine.errors import DeadlineExceeded, Overloaded
from engine.training.config import TrainingConfig
from engine_client import AsyncRecommendationClient
from tests.conftest import Trained
from tests.engine.stream.conftest import Bus, make_event
from tests.engine.stream.test_processor import applied_count, wait_for
from tests.engine.test_serving import config_for

LOW, HIGH = "low", "high"
# A free port is what tests take, a busy machine connects when it can, and the rest would fill the machine's memory.
LEFT_OUT = {
    "server.port",
    "server.metrics_port",
    "processor.metrics_port",
    "catalog.fresh_capacity",
    "redis.connect_timeout_s",
    "reports.memory_mb",
}


def numbers(model: type[BaseModel]) -> list[tuple[str, ...]]:
    """The path of every setting that is a number."""
    found = []
    for path in paths(model):
        setting = setting_at(model, path)
        assert setting is not None
        if setting.number is not None:
            found.append(path)
    return found


def bound(model: type[BaseModel], path: tuple[str, ...], end: str) -> float | int | None:
    """The lowest or the highest value that a number may have; None where nothing bounds it."""
    setting = setting_at(model, path)
    assert setting is not None
    assert setting.field is not None
    whole = setting.number is int
    for limit in setting.field.metadata:
        if end == LOW and isinstance(limit, Ge):
            return limit.ge  # type: ignore[return-value]
        if end == LOW and isinstance(limit, Gt):
            return limit.gt + 1 if whole else math.nextafter(limit.gt, math.inf)  # type: ignore[operator, arg-type]
        if end == HIGH and isinstance(limit, Le):
            return limit.le  # type: ignore[return-value]
        if end == HIGH and isinstance(limit, Lt):
            return limit.lt - 1 if whole else math.nextafter(limit.lt, -math.inf)  # type: ignore[operator, arg-type]
    return None


def at_bounds(section: str, end: str) -> dict[str, Any]:
    """All numbers of a section at one of their bounds."""
    return {
        path[1]: bound(EngineConfig, path, end)
        for path in numbers(EngineConfig)
        if path[0] == section and len(path) == 2 and ".".join(path) not in LEFT_OUT
    }


SECTIONS = sorted({path[0] for path in numbers(EngineConfig) if len(path) == 2 and path[0] != "device"})


@pytest.mark.parametrize("model", [EngineConfig, TrainingConfig])
@pytest.mark.parametrize("end", [LOW, HIGH])
def test_every_number_is_bounded(model: type[BaseModel], end: str) -> None:
    known = numbers(model)
    assert len(known) > 20
    assert [".".join(path) for path in known if bound(model, path, end) is None] == []


@pytest.mark.parametrize("model", [EngineConfig, TrainingConfig])
def test_defaults_are_within_their_bounds(model: type[BaseModel]) -> None:
    model.model_validate(model().model_dump())


@pytest.mark.parametrize("end", [LOW, HIGH])
@pytest.mark.parametrize("section", [name for name in SECTIONS if name not in ("processor", "stalls")])
async def test_a_server_answers(trained: Trained, tmp_path: Path, section: str, end: str) -> None:
    sections = {section: at_bounds(section, end)}
    if section == "surfaces":
        sections = {"surfaces": {"home": surface_at(end)}}
    config = config_for(trained, tmp_path, **sections)
    async with (
        running_server(config) as server,
        AsyncRecommendationClient(f"127.0.0.1:{server.port}", timeout_s=30) as client,
    ):
        await client.wait_until_serving()
        try:
            response = await client.recommend("somebody", "home", item_count=5)
        except (DeadlineExceeded, Overloaded):
            # What a server may say that is allowed next to no time.
            assert (section, end) == ("server", LOW)
        else:
            assert len(response.items) == 5


def surface_at(end: str) -> dict[str, Any]:
    paths_of = [path for path in numbers(EngineConfig) if path[:2] == ("surfaces", ANY) and len(path) == 3]
    return {path[2]: bound(EngineConfig, path, end) for path in paths_of}


@pytest.mark.parametrize("end", [LOW, HIGH])
@pytest.mark.parametrize("section", ["processor", "redis", "kafka", "bundle"])
def test_a_processor_applies_events(
    bus: Bus,
    redis_url: str,
    trained: Trained,
    tmp_path: Path,
    section: str,
    end: str,
) -> None:
    log = uuid.uuid4().hex
    sections: dict[str, dict[str, Any]] = {
        "kafka": bus.kafka.model_dump(),
        "redis": {"url": redis_url},
        "bundle": {"directory": trained.bundles.directory},
        "processor": {"log": log, "group": log, "archive_directory": tmp_path / "archive"},
    }
    sections[section] |= at_bounds(section, end)
    stop = threading.Event()
    failed: list[BaseException] = []

    def run() -> None:
        try:
            process(EngineConfig.load(**sections), stop)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        bus.send([make_event(user=f"u{index % 3}", item=f"i{index}") for index in range(12)])
        wait_for(lambda: bool(failed) or applied_count(redis_url, log) >= 12, 60)
    finally:
        stop.set()
        thread.join(60)
    assert not failed


def test_training_at_its_lowest(trained: Trained, tmp_path: Path) -> None:
    sections: defaultdict[str, dict[str, Any]] = defaultdict(dict)
    for path in numbers(TrainingConfig):
        if len(path) == 2:
            sections[path[0]][path[1]] = bound(TrainingConfig, path, LOW)
    # One of the three must bring something.
    sections["ranker"]["random_negatives"] = 1
    sections["ranker"]["hidden"] = (1,)
    path = train_bundle(trained.dataset, TrainingConfig.model_validate(sections), BundleStore(tmp_path))
    assert (path / "manifest.json").exists()
