"""Targets as users read them."""

import pytest

from engine_bench.report.read import Reports
from engine_bench.report.targets import judged
from tests.bench.report import files


def test_all_targets_of_all_files_in_their_order() -> None:
    reports = Reports(files.all_files(), {})
    found = judged(reports)
    assert len(found) == sum(len(report["targets"]) for report in reports.found.values())
    assert list(dict.fromkeys(each.source for each in found)) == list(reports.found)
    assert [each.outcome for each in found].count("MISSED") == 3


@pytest.mark.parametrize(
    ("target", "relation"),
    [
        (files.target("x", 1.0, 2.0, True), "≤"),
        (files.target("x", 3.0, 2.0, False), "≤"),
        (files.target("x", 3.0, 2.0, True), "≥"),
        (files.target("x", 1.0, 2.0, False), "≥"),
        (files.target("x", 2.0, 2.0, True), "≤"),
        (files.target("x", None, 2.0, False), "≤"),
        (files.target("x", 2.0, 2.0, True) | {"at_least": True}, "≥"),
    ],
)
def test_which_side_is_the_good_one(target: dict[str, object], relation: str) -> None:
    (found,) = judged(Reports({"load": {"targets": [target]}}, {}))
    assert found.relation == relation


def test_what_is_no_target_is_left_out() -> None:
    assert judged(Reports({"load": {"targets": [{"name": "x"}, "text", None]}, "bench": {"targets": 3}}, {})) == []
