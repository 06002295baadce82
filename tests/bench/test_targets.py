"""Targets of the bench suite, from figures of which it is plain whether they hold."""

from typing import Any

import numpy as np
import pytest

from engine_bench.startup import startup_targets
from engine_bench.targets import STAGE_TARGETS, TAIL_NAME, Target, growth_targets, request_targets, short


def request_of(p50_ms: float, recall: float = 0.98) -> dict[str, Any]:
    """A request of which everything else is well within its targets."""
    stages = ("features", "blend", "retrieve", "rank", TAIL_NAME)
    return {
        "p50_ms": p50_ms,
        "p99_ms": 2 * p50_ms,
        "stages_ms": {stage: {"p50": 0.01, "p99": 0.02} for stage in stages},
        "recall_at_1000": recall,
    }


def test_a_request_is_held_against_every_target() -> None:
    targets = {made.name: made for made in request_targets({1_000_000: request_of(2.5)})}
    assert len(targets) == len(STAGE_TARGETS) + 1
    assert all(made.met for made in targets.values())
    assert targets["request total p50 ms"].measured == 2.5
    assert targets["request retrieve recall@1000"].as_json()["at_least"] is True


@pytest.mark.parametrize(
    ("request_", "missed"),
    [
        (request_of(3.51), {"request total p50 ms", "request total p99 ms"}),
        (request_of(2.5, recall=0.969), {"request retrieve recall@1000"}),
        (request_of(2.5) | {"stages_ms": {}}, {name.replace("unloaded", "request") for name, *_ in STAGE_TARGETS[2:]}),
    ],
)
def test_what_does_not_hold_is_missed(request_: dict[str, Any], missed: set[str]) -> None:
    assert {made.name for made in request_targets({1_000_000: request_}) if not made.met} == missed


def test_a_smaller_catalogue_stands_in_and_says_so() -> None:
    made = request_targets({100_000: request_of(1.0), 2_000: request_of(0.5), 10_000_000: request_of(9.0)})
    assert {each.items for each in made} == {100_000}
    assert request_targets({}) == []


def test_growth_is_over_steps_of_ten_only() -> None:
    made = growth_targets({1_000_000: 3.9, 100_000: 2.0, 10_000_000: 7.9, 20_000: 1.0})
    assert [(each.name, each.measured, each.met) for each in made] == [
        ("request p50 growth, 100k to 1M items", 1.95, True),
        ("request p50 growth, 1M to 10M items", 2.03, False),
    ]


def test_a_target_without_a_value_is_missed() -> None:
    assert not Target("x", None, 1.0).met
    assert not Target("x", None, 1.0, "at least").met
    assert str(Target("x", None, 1.0)) == "MISSED: x: not measured, at most 1"
    assert Target("x", 1.0, 1.0).met
    assert str(Target("rate", 30.0, 20.0, "at least", "1/s")) == "met: rate: 30 1/s, at least 20 1/s"
    # A NumPy truth value is none in JSON.
    assert Target("x", np.float64(0.5), 1.0).as_json()["met"] is True


@pytest.mark.parametrize(
    ("made", "direction"),
    [
        ({"value": 1.0, "bound": 2.0, "met": True}, "at most"),
        ({"value": 3.0, "bound": 2.0, "met": False}, "at most"),
        ({"value": 3.0, "bound": 2.0, "met": True}, "at least"),
        ({"value": 1.0, "bound": 2.0, "met": False}, "at least"),
        ({"value": 2.0, "bound": 2.0, "met": True}, "at most"),
        ({"value": None, "bound": 2.0, "met": False}, "at most"),
        ({"value": 2.0, "bound": 2.0, "met": True, "at_least": True}, "at least"),
        ({"value": 1.0, "bound": 2.0, "met": False, "higher_is_better": True}, "at least"),
    ],
)
def test_files_of_older_versions_say_the_direction_otherwise(made: dict[str, Any], direction: str) -> None:
    assert Target.of({"name": "x"} | made).direction == direction


def test_json_and_back() -> None:
    for target in (Target("x", 1.5, 2.0, "at least", "ms", 1000), Target("y", None, 2.0)):
        assert Target.of(target.as_json()) == target


def test_start_and_memory_are_those_of_a_million() -> None:
    def size(items: int, start_s: float, own_mib: int) -> dict[str, Any]:
        memory = [{"own_mib": own_mib}, {"own_mib": own_mib - 20}]
        return {"items": items, "start_s": {"median": start_s}, "memory": memory}

    sizes = [size(100_000, 2.0, 100), size(1_000_000, 9.0, 490), size(10_000_000, 60.0, 4_000)]
    start, memory = startup_targets(sizes)
    assert (start.measured, start.met, start.items) == (9.0, False, 1_000_000)
    assert (memory.measured, memory.met) == (490, True)


@pytest.mark.parametrize(
    ("count", "said"),
    [(999, "999"), (20_000, "20k"), (1_000_000, "1M"), (2_500_000, "2.5M"), (123_456, "123.5k")],
)
def test_sizes_as_people_say_them(count: int, said: str) -> None:
    assert short(count) == said
