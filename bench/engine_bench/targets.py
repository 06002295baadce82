"""Targets: what measured figures are held to, and those of a request and of growth with the catalogue."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Final, Literal

from engine.stages import stages_of

Direction = Literal["at most", "at least"]

# The targets are those of a catalogue of this size.
TARGET_ITEMS: Final = 1_000_000
RECALL_AT_LEAST: Final = 0.97
# From one catalogue to one of ten times the size.
GROWTH_AT_MOST: Final = 2.0
# The answer's stages after ranking, which share one budget.
TAIL = stages_of("respond")
TAIL_NAME = "+".join(TAIL)
# Of an unloaded server with a million items: name, stage, percentile, bound in milliseconds.
STAGE_TARGETS = (
    ("unloaded total p50 ms", "sum", "p50", 3.5),
    ("unloaded total p99 ms", "sum", "p99", 7.0),
    ("unloaded rank p50 ms", "rank", "p50", 1.6),
    ("unloaded retrieve p50 ms", "retrieve", "p50", 1.2),
    ("unloaded features p99 ms", "features", "p99", 0.7),
    ("unloaded blend p50 ms", "blend", "p50", 0.05),
    (f"unloaded {TAIL_NAME} p50 ms", TAIL_NAME, "p50", 0.7),
)
# Not every size is a power of ten; steps of other lengths are held against nothing.
_STEP: Final = 10


@dataclass(frozen=True, slots=True)
class Target:
    """One measured figure and the bound that it is held to.

    measured: None where nothing was measured; such a target is missed. unit: of both numbers; empty for counts and
    ratios. items: size of the catalogue, where the figure depends on it.
    """

    name: str
    measured: float | None
    bound: float
    direction: Direction = "at most"
    unit: str = ""
    items: int | None = None

    @property
    def met(self) -> bool:
        if self.measured is None:
            return False
        return bool(self.measured >= self.bound if self.direction == "at least" else self.measured <= self.bound)

    @property
    def outcome(self) -> str:
        return "met" if self.met else "MISSED"

    def __str__(self) -> str:
        unit = f" {self.unit}" if self.unit and not self.name.endswith(self.unit) else ""
        value = "not measured" if self.measured is None else f"{self.measured:g}{unit}"
        return f"{self.outcome}: {self.name}: {value}, {self.direction} {self.bound:g}{unit}"

    def as_json(self) -> dict[str, Any]:
        """As the benches' JSON files hold it."""
        made = {"name": self.name, "value": self.measured, "bound": self.bound, "met": self.met, "unit": self.unit}
        items = {} if self.items is None else {"items": self.items}
        return made | {"at_least": self.direction == "at least"} | items

    @classmethod
    def of(cls, made: Mapping[str, Any]) -> "Target":
        """From the JSON of a file, also of older versions, which did not always write the direction."""
        value, bound = made.get("value"), made["bound"]
        at_least = made.get("at_least", made.get("higher_is_better"))
        if at_least is None:
            at_least = value is not None and value != bound and (value > bound) == made.get("met")
        direction: Direction = "at least" if at_least else "at most"
        return cls(str(made.get("name", "?")), value, bound, direction, str(made.get("unit", "")), made.get("items"))


def target_size(sizes: Iterable[int]) -> int:
    """Of these catalogue sizes (one at least) the one to hold against targets: the largest up to TARGET_ITEMS."""
    found = sorted(sizes)
    return max((size for size in found if size <= TARGET_ITEMS), default=found[0])


def request_targets(requests: Mapping[int, Mapping[str, Any]]) -> list[Target]:
    """The targets of a request inside one process, by catalogue size.

    Args:
        requests: for each number of items what bench/suite/test_request.py notes: `p50_ms`, `p99_ms`, `stages_ms` and
            `recall_at_1000`. Without TARGET_ITEMS among them the largest smaller size replaces it, as `items` of
            every target says; it is easier.
    """
    if not requests:
        return []
    items = target_size(requests)
    found = requests[items]
    # The request's own time has the hand-over between threads in it, which no stage has.
    stages = found["stages_ms"] | {"sum": {"p50": found["p50_ms"], "p99": found["p99_ms"]}}
    targets = [
        replace(each, name=each.name.replace("unloaded", "request"), items=items) for each in stage_targets(stages)
    ]
    recall = found["recall_at_1000"]
    targets.append(Target("request retrieve recall@1000", recall, RECALL_AT_LEAST, "at least", items=items))
    return targets + growth_targets({size: request["p50_ms"] for size, request in requests.items()})


def stage_targets(stages_ms: Mapping[str, Mapping[str, float]]) -> list[Target]:
    """The targets of an unloaded server. stages_ms: p50 and p99 by stage; a stage that never ran misses its target."""
    return [
        Target(name, stages_ms.get(stage, {}).get(percentile), bound, unit="ms")
        for name, stage, percentile, bound in STAGE_TARGETS
    ]


def growth_targets(p50_ms: Mapping[int, float]) -> list[Target]:
    """How much longer a request takes from one size to one of ten times as many items; nothing without such a pair."""
    return [
        Target(f"request p50 growth, {short(size)} to {short(next_size)} items", round(grown, 2), GROWTH_AT_MOST)
        for size, next_size in pairwise(sorted(p50_ms))
        if next_size == _STEP * size and (grown := p50_ms[next_size] / p50_ms[size])
    ]


def short(count: int) -> str:
    """A number of items as users say it: 20000 is 20k, 1000000 is 1M."""
    for unit, name in ((1_000_000, "M"), (1_000, "k")):
        if count >= unit:
            return f"{count / unit:.4g}{name}"
    return str(count)
