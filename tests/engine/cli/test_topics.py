"""`engine topics create`, and what a user gets where it cannot."""

import sys

import pytest

from engine.adapters.kafka.embedded import EmbeddedKafka
from engine.cli.main import app, run


def test_topics_that_are_there_stay(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with EmbeddedKafka(tmp_path_factory.mktemp("kafka")) as kafka:
        monkeypatch.setenv("ENGINE_KAFKA__BROKERS", kafka.brokers)
        app(["topics", "create"], standalone_mode=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "engine.events.v1: 8 partitions, was there",
        "engine.dead-letters.v1: 1 partitions, was there",
        "engine.exposures.v1: 8 partitions, was there",
    ]


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({}, "kafka.brokers: names no broker"),
        ({"ENGINE_KAFKA__BROKERS": "127.0.0.1:1"}, "Kafka at 127.0.0.1:1"),
        ({"ENGINE_KAFKA__BROKERS": "b:1", "ENGINE_KAFKA__PROPERTIES": '{"client.id": "x"}'}, "the engine's to set"),
        ({"ENGINE_KAFKA__BROKERS": "b:1", "ENGINE_KAFKA__PROPERTIES": '{"no.such": "x"}'}, "no.such"),
        ({"ENGINE_KAFKA__LINGER_MS": "-1"}, "kafka.linger_ms"),
    ],
)
def test_what_cannot_work(
    environment: dict[str, str], reason: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("engine.adapters.kafka.topics._ADMIN_TIMEOUT_S", 0.5)
    monkeypatch.setattr(sys, "argv", ["engine", "topics", "create"])
    monkeypatch.delenv("KAFKA_BROKERS", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as exit_info:
        run()
    assert exit_info.value.code == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("engine: ")]
    assert reason in line
