"""Every target of every file, as a person reads it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from engine_bench.report.read import SOURCES, Reports, dig, number, objects
from engine_bench.report.why import why_missed
from engine_bench.targets import short

# Names that say enough inside their own file, and too little beside those of others.
_TITLES: Final = {
    ("freshness", "p99_ms"): "a click shows in the next answer, p99 ms",
    ("inventory", "p99_ms"): "a sold-out item is gone from every answer, p99 ms",
    ("inventory", "new_item_p99_ms"): "a new item is in the answers of every replica, p99 ms",
    ("inventory", "late_answers"): "answers with a sold-out item, asked for 2 s after it was gone",
    ("processor", "events_per_s"): "events a second that one processor applies",
}


_GPU_TITLES: Final = {
    "retrieve_1000_of_10m_x_64_batch_1_p50_ms": "the exact best 1,000 of 10M × 64, one request, p50 ms",
    "retrieve_1000_of_10m_x_64_batch_32_p50_over_floor": "the same for 32 requests in one call, p50 as times the floor",
    "rank_1000_p50_ms": "rank 1,000 candidates of one request, p50 ms",
    "request_p50_ms": "whole request alone, p50 ms",
    "request_p99_ms": "whole request alone, p99 ms",
    "requests_per_s": "requests a second of one GPU",
}


@dataclass(frozen=True, slots=True)
class Goal:
    """One target: where it was measured, what was, and whether the value is on the right side of the bound.

    met: None where the run did not measure it, or not on what the target is for. why: of a missed one, what the
    figures tell of it, where they do.
    """

    source: str
    title: str
    value: float | None
    bound: float
    at_least: bool
    met: bool | None
    why: str = ""

    @property
    def relation(self) -> str:
        return "≥" if self.at_least else "≤"

    @property
    def outcome(self) -> str:
        """In words."""
        if self.met is None:
            return "not measured" if self.value is None else "not judged"
        return "met" if self.met else "missed"


def goals(reports: Reports) -> list[Goal]:
    """In the order of SOURCES, and within a file in its own. A rehearsal of the GPU's bench has none."""
    found = [goal for source in SOURCES for goal in _of(source.name, reports)]
    gpu = reports.of("gpu")
    return found if gpu.get("rehearsal") else found + gpu_goals(gpu)


def gpu_goals(report: dict[str, Any]) -> list[Goal]:
    """Those of `engine bench gpu`; of a rehearsal with its figures, and without a judgement."""
    targets, items = dig(report, "targets"), number(report, "settings", "request_items")
    over = f", {short(int(items))} items" if items else ""
    return [
        Goal(
            "gpu",
            _GPU_TITLES.get(name, name.replace("_", " ")) + ("" if name.startswith("retrieve") else over),
            number(each, "measured"),
            bound,
            # The file does not say which side is the good one; of a rate it is above.
            name.endswith("per_s"),
            None if report.get("rehearsal") or not isinstance(dig(each, "met"), bool) else dig(each, "met"),
        )
        for name, each in (targets.items() if isinstance(targets, dict) else ())
        if (bound := number(each, "target")) is not None
    ]


def _of(source: str, reports: Reports) -> Iterator[Goal]:
    report = reports.of(source)
    for each in objects(report, "targets"):
        bound = number(each, "bound")
        if bound is None:
            continue
        value, met = number(each, "value"), bool(each.get("met"))
        name = str(each.get("name", "?"))
        title = _TITLES.get((source, name), name.replace("+", " + "))
        items = number(each, "items") or number(report, "items") or number(report, "settings", "items")
        if items and "items" not in title:
            title += f", {short(int(items))} items"
        why = "" if met or value is None else why_missed(source, name, reports)
        yield Goal(source, title, value, bound, _at_least(each, value, bound, met), met, why)


def _at_least(target: dict[str, Any], value: float | None, bound: float, met: bool) -> bool:
    """Whether more is better: where a file does not say so, that the value is met above its bound does."""
    for name in ("at_least", "higher_is_better"):
        if name in target:
            return bool(target[name])
    return value is not None and value != bound and (value > bound) == met
