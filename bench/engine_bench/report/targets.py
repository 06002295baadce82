"""The targets of every file, as a reader sees them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from engine_bench.report.read import SOURCES, Reports, dig, number, objects
from engine_bench.targets import Target, short

# Names that say too little outside of their own file.
_TITLES: Final = {
    ("freshness", "p99_ms"): "a click shows in the next answer, p99 ms",
    ("inventory", "p99_ms"): "a sold-out item is gone from every answer, p99 ms",
    ("inventory", "new_item_p99_ms"): "a new item is in the answers of every replica, p99 ms",
    ("inventory", "late_answers"): "answers with a sold-out item, asked for 2 s after it was gone",
    ("processor", "events_per_s"): "events a second that one processor applies",
    ("gpu", "retrieve_1000_of_10m_x_64_batch_1_p50_ms"): "the exact best 1,000 of 10M × 64, one request, p50 ms",
    ("gpu", "retrieve_1000_of_10m_x_64_batch_32_p50_over_floor"):
        "the same for 32 requests in one call, p50 as times the floor",
    ("gpu", "rank_1000_p50_ms"): "rank 1,000 candidates of one request, p50 ms",
    ("gpu", "request_p50_ms"): "whole request alone, p50 ms",
    ("gpu", "request_p99_ms"): "whole request alone, p99 ms",
    ("gpu", "requests_per_s"): "requests a second of one GPU",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Judged:
    """A target of one file. counts: False where the run did not measure it, or not on what the target is for."""

    source: str
    title: str
    target: Target
    counts: bool = True

    @property
    def outcome(self) -> str:
        if self.counts:
            return self.target.outcome
        return "not measured" if self.target.measured is None else "not judged"

    @property
    def relation(self) -> str:
        return "≥" if self.target.direction == "at least" else "≤"


def judged(reports: Reports) -> list[Judged]:
    """In the order of SOURCES, and within a file in its own. What a run on a GPU left out does not count."""
    return [each for source in SOURCES for each in _of(source.name, reports.of(source.name))]


def _of(source: str, report: dict[str, Any]) -> Iterator[Judged]:
    for made in _targets(report):
        if number(made, "bound") is None:
            continue
        target = Target.of(made)
        title = _TITLES.get((source, target.name), target.name.replace("+", " + "))
        items = target.items or number(report, "items") or number(report, "settings", "items")
        if source == "gpu":
            items = None if target.name.startswith("retrieve") else number(report, "settings", "request_items")
        if items and "items" not in title:
            title += f", {short(int(items))} items"
        counts = source != "gpu" or (target.measured is not None and not report.get("rehearsal"))
        yield Judged(source, title, target, counts)


def _targets(report: dict[str, Any]) -> Iterator[dict[str, Any]]:
    found = dig(report, "targets")
    if isinstance(found, dict):  # a GPU's, by their name; more is better of rates alone
        for name, each in found.items():
            bound = number(each, "target")
            yield {"name": name, "value": number(each, "measured"), "bound": bound, "at_least": name.endswith("per_s")}
    for each in objects(report, "targets"):
        yield each
