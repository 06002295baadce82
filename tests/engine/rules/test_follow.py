"""A file that users edit under a running engine: well, badly, not at all."""

import logging
import os
from collections.abc import Collection
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from engine.errors import EngineError, RulesError
from engine.rules.follow import RulesFile
from engine.rules.load import parse_rules
from engine.rules.schema import Rules
from engine.runtime.helper_process import HelperProcess
from tests.engine.rules.files import SURFACES, document

ONE = document("- {name: one, action: deny, items: {brand: x}}")
OTHER = document("- {name: two, action: deny, items: {brand: y}}")
BAD = document("- {name: one, action: deny, item: {brand: x}}")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "rules.yaml"
    path.write_text(ONE)
    return path


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged as an error since the last look."""
    messages = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    caplog.clear()
    return messages


def names(file: RulesFile) -> list[str]:
    return [rule.name for rule in file.rules.rules]


def write(path: Path, text: str) -> None:
    """Put a finished file in place of the old one, as careful tools do; times and sizes may well be the same."""
    stat = path.stat() if path.exists() else None
    aside = path.with_suffix(".new")
    aside.write_text(text)
    if stat:
        os.utime(aside, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    aside.replace(path)


def test_a_changed_file_gives_new_rules_once(path: Path) -> None:
    file = RulesFile(path, SURFACES)
    assert names(file) == ["one"]
    assert file.poll() is None
    write(path, OTHER)
    rules = file.poll()
    assert rules is file.rules
    assert names(file) == ["two"]
    assert file.poll() is None


def test_a_file_written_in_place(path: Path) -> None:
    file = RulesFile(path, SURFACES)
    path.write_text(OTHER)
    os.utime(path, ns=(1, 1))
    assert file.poll() is not None
    assert names(file) == ["two"]


def test_a_touched_file_is_no_change(path: Path) -> None:
    file = RulesFile(path, SURFACES)
    rules = file.rules
    os.utime(path, ns=(1, 1))
    assert file.poll() is None
    assert file.rules is rules


def test_a_bad_file_is_logged_once_and_the_old_rules_stay(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = RulesFile(path, SURFACES)
    write(path, BAD)
    assert file.poll() is None
    [message] = errors(caplog)
    assert f"{path}:3: rule 'one': item: unknown key 'item'; did you mean 'items'?" in message
    assert "the rules of before stay in force" in message
    os.utime(path, ns=(1, 1))
    assert file.poll() is None
    assert file.poll() is None
    assert errors(caplog) == []
    assert names(file) == ["one"]
    write(path, "version: 3\nrules: []\n")
    assert file.poll() is None
    assert len(errors(caplog)) == 1
    write(path, OTHER)
    assert file.poll() is not None
    assert names(file) == ["two"]


def test_an_error_taken_back_is_no_change_and_may_come_again(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = RulesFile(path, SURFACES)
    for _ in range(2):
        write(path, BAD)
        assert file.poll() is None
        assert len(errors(caplog)) == 1
        write(path, ONE)
        assert file.poll() is None
        assert errors(caplog) == []
    write(path, OTHER)
    assert file.poll() is not None


def test_a_missing_file_is_logged_once_and_may_return(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = RulesFile(path, SURFACES)
    path.unlink()
    assert file.poll() is None
    assert file.poll() is None
    [message] = errors(caplog)
    assert "cannot be read: No such file" in message
    assert names(file) == ["one"]
    write(path, BAD)
    assert file.poll() is None
    assert len(errors(caplog)) == 1
    path.unlink()
    assert file.poll() is None
    assert len(errors(caplog)) == 1
    write(path, BAD)
    assert file.poll() is None
    assert len(errors(caplog)) == 1
    write(path, OTHER)
    assert file.poll() is not None


def test_there_is_no_start_without_rules(path: Path) -> None:
    path.write_text(BAD)
    with pytest.raises(RulesError, match=":3: "):
        RulesFile(path, SURFACES)
    path.unlink()
    with pytest.raises(RulesError, match="cannot be read"):
        RulesFile(path, SURFACES)


def test_rules_are_the_same_parsed_by_another_process(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with closing(HelperProcess()) as elsewhere:
        file = RulesFile(path, SURFACES, partial(elsewhere.call, parse_rules))
        write(path, OTHER)
        assert file.poll() == parse_rules(OTHER.encode(), str(path), SURFACES)
        write(path, BAD)
        assert file.poll() is None
        [message] = errors(caplog)
        assert f"{path}:3: " in message


def test_a_file_is_parsed_again_where_the_parser_failed_and_not_the_file(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fails = [EngineError("its process was killed")]

    def parse(content: bytes, name: str, surfaces: Collection[str]) -> Rules:
        if fails:
            raise fails.pop()
        return parse_rules(content, name, surfaces)

    file = RulesFile(path, SURFACES, parse)
    write(path, OTHER)
    assert file.poll() is None
    [message] = errors(caplog)
    assert "killed; the rules of before stay in force" in message
    assert names(file) == ["one"]
    assert file.poll() is not None
    assert names(file) == ["two"]


def test_a_file_that_stays_as_it_is_is_not_read_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = RulesFile(path, SURFACES)
    read: list[Path] = []

    def count(found: Path) -> bytes:
        read.append(found)
        return found.read_bytes()

    monkeypatch.setattr("engine.rules.follow.read_bytes", count)
    assert [file.poll() for _ in range(3)] == [None] * 3
    assert read == []
    write(path, OTHER)
    assert file.poll() is not None
    assert read == [path]
