"""Files that are there, that are not, and that are broken."""

from pathlib import Path

import pytest

from engine.errors import ConfigError
from engine_bench.report.read import SOURCES, dig, number, objects, provenance, read_reports
from tests.bench.report import files


def test_what_is_there_is_read_and_the_rest_is_missing(tmp_path: Path) -> None:
    reports = read_reports(files.write(tmp_path, ("load", "processor")))
    assert set(reports.found) == {"load", "processor"}
    assert {source.name for source in reports.missing} == {source.name for source in SOURCES} - {"load", "processor"}
    assert reports.of("bench") == {}


def test_nothing_at_all_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    for directory in (tmp_path, tmp_path / "absent"):
        with pytest.raises(ConfigError, match=r"holds none of bench\.json.*make bench"):
            read_reports(directory)


@pytest.mark.parametrize("text", ["{", "[1, 2]", '"text"', ""])
def test_a_broken_file_is_named_and_keeps_nobody_else_from_the_page(tmp_path: Path, text: str) -> None:
    files.write(tmp_path, ("load",))
    (tmp_path / "bench.json").write_text(text)
    reports = read_reports(tmp_path)
    assert set(reports.found) == {"load"}
    assert "bench.json" in reports.problems["bench"]


def test_where_a_file_is_from() -> None:
    found = provenance(files.suite())
    assert found.machine == "Some Processor, 2 cores, 8.0 GiB of memory"
    assert (found.commit, found.changed, found.date) == ("0123456789ab", True, "2026-01-02 03:04:05")
    assert found.libraries == "Python 3.11.7, numpy 2.0"
    unknown = provenance({})
    assert (unknown.commit, unknown.changed, unknown.date) == ("unknown", False, "unknown")


def test_ways_that_end_early_lead_to_nothing() -> None:
    tree = {"a": [{"b": 1}, 2], "c": True}
    assert dig(tree, "a", 0, "b") == 1
    assert [dig(tree, *way) for way in (("a", 5), ("a", "b"), ("x", "y"), ("c", 0))] == [None] * 4
    assert number(tree, "a", 0, "b") == 1.0
    assert number(tree, "c") is None
    assert list(objects(tree, "a")) == [{"b": 1}]
    assert list(objects(tree, "c")) == []
