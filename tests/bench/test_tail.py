"""The report of a tail run, what it needs, and what it makes the server do."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from engine.config.serving import EngineConfig
from engine.errors import ConfigError
from engine.rules.load import load_rules
from engine_bench import tail
from engine_bench.load_driver import Record, Status, plan
from engine_bench.tail_activity import write_many_rules
from engine_bench.tail_report import Steal, read_pauses, report_tail, tail_lines


def record_of(latencies_ms: list[float], failed: int = 0) -> Record:
    record = Record.empty(plan("constant", len(latencies_ms) + failed, 1.0, 10, 0, debug_every=0))
    record.status[: len(latencies_ms)] = Status.OK
    record.latency_ms[: len(latencies_ms)] = latencies_ms
    record.status[len(latencies_ms) :] = Status.DEADLINE
    return record


def pause(at: float, pause_ms: float, own_ms: float, cause: str) -> dict[str, Any]:
    return {
        "pid": 1, "at": at, "pause_ms": pause_ms, "own_ms": own_ms, "cause": cause, "thread": "helper",
        "stack": ["shop.py:7 handle"],
    }  # fmt: skip


def recorded(path: Path, *pauses: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(each) + "\n" for each in pauses))
    return path


def test_figures_and_pauses(tmp_path: Path) -> None:
    file = recorded(
        tmp_path / "pauses",
        pause(99.0, 500, 500, "collector"),
        pause(101.0, 40, 2, "machine"),
        pause(102.0, 30, 29, "interpreter"),
        pause(103.0, 6, 4, "loop"),
        pause(161.0, 700, 700, "loop"),
    )
    pauses = read_pauses(file, 100.0, 160.0)
    assert [each["at_s"] for each in pauses] == [1.0, 2.0, 3.0]
    result = report_tail(record_of([1.0] * 99 + [9.0], failed=2), pauses, {"reports": 3}, Steal(0.1, 0.2), 60.0)
    assert result["errors"] == 2
    assert result["errors_by_status"] == {"deadline": 2}
    assert result["p50_ms"] == 1.0
    assert result["max_ms"] == 9.0
    assert result["max_pause_ms"] == 29
    assert result["own_pauses"] == 1
    assert result["max_machine_pause_ms"] == 40
    assert result["quiet"]
    assert [each["met"] for each in result["targets"]] == [False, False, False]
    lines = "\n".join(tail_lines(result))
    assert "interpreter, helper: shop.py:7 handle" in lines
    assert "meanwhile: 3 reports" in lines
    json.dumps(result)


def test_a_run_as_it_should_be() -> None:
    result = report_tail(record_of([2.0] * 100), [pause(1.0, 6, 0, "machine")], {}, Steal(30.0, 0.0), 60.0)
    assert all(each["met"] for each in result["targets"])
    assert not result["quiet"]
    assert result["errors_by_status"] == {}


def test_nothing_answered_is_an_honest_report() -> None:
    result = report_tail(record_of([], failed=3), [], {}, Steal(0.0, 0.0), 1.0)
    assert result["errors"] == 3
    assert not result["targets"][0]["met"]


def test_no_record_is_no_pause(tmp_path: Path) -> None:
    assert read_pauses(tmp_path / "none", 0.0, 1.0) == []


def test_what_the_kernel_counts_only_grows() -> None:
    more = Steal.read(os.getpid()) - Steal.read(os.getpid())
    assert more.server <= 0.0
    assert more.machine <= 0.0


def test_what_is_missing_is_said_before_anything_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail, "find_spec", lambda name: None if name in ("duckdb", "torch") else object())
    with pytest.raises(ConfigError, match=r"needs duckdb, torch: pip install .*\[cpu,analysis,train\]"):
        tail.measure_tail(tail.TailSettings(items=1_000), 0, tmp_path, lambda *_: pytest.fail("it has begun"))
    (tmp_path / "bundles-1000" / "current").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"needs duckdb: pip install .*\[cpu,analysis\]"):
        tail.check_needs(1_000, tmp_path)


def test_the_rules_that_are_reloaded_are_rules(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    write_many_rules(path, ["shoes", "hats"], 1.25)
    rules = load_rules(path, tuple(EngineConfig().surfaces))
    assert len(rules.rules) == 61
    write_many_rules(path, ["shoes", "hats"], 1.5)
    assert load_rules(path, tuple(EngineConfig().surfaces)) != rules


def test_the_server_s_settings_are_settings(tmp_path: Path) -> None:
    paths = {name: json.dumps(str(tmp_path / name)) for name in ("rules", "archive", "events", "exposures", "record")}
    file = tmp_path / "engine.toml"
    file.write_text(tail._SETTINGS.format(period_ms=2, experiment="bench-tail", **paths))
    assert EngineConfig.load(file).stalls.record == tmp_path / "record"
