"""What the bench suite's figures are held against, and which of them hold."""

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any, Final

from engine_bench.load_report import STAGE_TARGETS

# The targets are those of a catalogue of this size.
TARGET_ITEMS: Final = 1_000_000
RECALL_AT_LEAST: Final = 0.97
# From one catalogue to one of ten times the size.
GROWTH_AT_MOST: Final = 2.0
# Not every size is a power of ten; steps of other lengths are held against nothing.
_STEP: Final = 10


def target(name: str, value: float | None, bound: float, *, at_least: bool = False) -> dict[str, Any]:
    """One target as reports hold it: without a value it is missed; `at_least` is there where more is better."""
    met = value is not None and bool(value >= bound if at_least else value <= bound)
    return {"name": name, "value": value, "bound": bound, "met": met} | ({"at_least": True} if at_least else {})


def target_size(sizes: Iterable[int]) -> int:
    """Of these catalogue sizes (one at least) the one to hold against targets: the largest up to TARGET_ITEMS."""
    found = sorted(sizes)
    return max((size for size in found if size <= TARGET_ITEMS), default=found[0])


def request_targets(requests: Mapping[int, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The targets of a request inside one process, by catalogue size.

    Args:
        requests: for each number of items what bench/suite/test_request.py notes: `p50_ms`, `p99_ms`, `stages_ms` and
            `recall_at_1000`. Without TARGET_ITEMS among them the largest smaller size stands in, as `items` of every
            target says; it is easier.
    """
    if not requests:
        return []
    items = target_size(requests)
    found = requests[items]
    # The request's own time has the hand-over between threads in it, which no stage has.
    stages = found["stages_ms"] | {"sum": {"p50": found["p50_ms"], "p99": found["p99_ms"]}}
    targets = [
        target(name.replace("unloaded", "request"), stages.get(stage, {}).get(percentile), bound) | {"items": items}
        for name, stage, percentile, bound in STAGE_TARGETS
    ]
    recall = found["recall_at_1000"]
    targets.append(target("request retrieve recall@1000", recall, RECALL_AT_LEAST, at_least=True) | {"items": items})
    return targets + growth_targets({size: request["p50_ms"] for size, request in requests.items()})


def growth_targets(p50_ms: Mapping[int, float]) -> list[dict[str, Any]]:
    """How much longer a request takes from one size to one of ten times as many items; nothing without such a pair."""
    return [
        target(f"request p50 growth, {short(size)} to {short(next_size)} items", round(grown, 2), GROWTH_AT_MOST)
        for size, next_size in pairwise(sorted(p50_ms))
        if next_size == _STEP * size and (grown := p50_ms[next_size] / p50_ms[size])
    ]


def short(count: int) -> str:
    """A number of items as people say it: 20000 is 20k, 1000000 is 1M."""
    for unit, name in ((1_000_000, "M"), (1_000, "k")):
        if count >= unit:
            return f"{count / unit:.4g}{name}"
    return str(count)
