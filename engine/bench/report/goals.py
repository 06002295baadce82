"""Every target of every file, as a person reads it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from engine.bench.report.read import SOURCES, Reports, number, objects
from engine.bench.targets import short

# Names that say enough inside their own file, and too little beside those of others.
_TITLES: Final = {
    ("freshness", "p99_ms"): "a click shows in the next answer, p99 ms",
    ("inventory", "p99_ms"): "a sold-out item is gone from every answer, p99 ms",
    ("inventory", "new_item_p99_ms"): "a new item is in the answers of every replica, p99 ms",
    ("inventory", "late_answers"): "answers with a sold-out item, asked for 2 s after it was gone",
    ("processor", "events_per_s"): "events a second that one processor applies",
}


@dataclass(frozen=True, slots=True)
class Goal:
    """One target: where it was measured, what was, and whether the value is on the right side of the bound."""

    source: str
    title: str
    value: float | None
    bound: float
    at_least: bool
    met: bool

    @property
    def relation(self) -> str:
        return "≥" if self.at_least else "≤"


def goals(reports: Reports) -> list[Goal]:
    """In the order of SOURCES, and within a file in its own."""
    return [goal for source in SOURCES for goal in _of(source.name, reports.of(source.name))]


def _of(source: str, report: dict[str, Any]) -> Iterator[Goal]:
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
        yield Goal(source, title, value, bound, _at_least(each, value, bound, met), met)


def _at_least(target: dict[str, Any], value: float | None, bound: float, met: bool) -> bool:
    """Whether more is better: where a file does not say so, that the value is met above its bound does."""
    for name in ("at_least", "higher_is_better"):
        if name in target:
            return bool(target[name])
    return value is not None and value != bound and (value > bound) == met
