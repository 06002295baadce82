"""Targets as people read them."""

import pytest

from engine_bench.report.goals import goals
from engine_bench.report.read import Reports
from tests.bench.report import files


def test_all_targets_of_all_files_in_their_order() -> None:
    reports = Reports(files.all_files(), {})
    found = goals(reports)
    assert len(found) == sum(len(report["targets"]) for report in reports.found.values())
    assert list(dict.fromkeys(goal.source for goal in found)) == list(reports.found)
    assert [goal.met for goal in found].count(False) == 3


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
    (goal,) = goals(Reports({"load": {"targets": [target]}}, {}))
    assert goal.relation == relation


def test_what_is_no_target_is_left_out() -> None:
    assert goals(Reports({"load": {"targets": [{"name": "x"}, "text", None]}, "bench": {"targets": 3}}, {})) == []
