"""What a debug answer says about how each item got its place, and about what could not be shown."""

from collections import Counter
from typing import Final

import numpy as np

from engine.catalog.live import LiveCatalogue
from engine.kernels.membership import clear_rows, count_rows
from engine.rules.active import ActiveRules
from engine.stages.diversify import RELAXED_CAP, RELAXED_DUPLICATE, RELAXED_SHARE, SlateChoice
from engine.stages.seen import SeenVerdict
from engine.types import (
    Candidates,
    EventType,
    Explanation,
    Int64Array,
    ItemExplanation,
    ItemSource,
    RecommendQuery,
    UInt8Array,
    event_name,
    item_keys,
)

# (reason, items), in the order in which they apply.
Counts = tuple[tuple[str, int], ...]

_RELAXED: Final = {RELAXED_CAP: "cap", RELAXED_SHARE: "min_share", RELAXED_DUPLICATE: "near_duplicate"}


class Trace:
    """Remembers what one request went through; only requests that ask for debug have one."""

    def __init__(self) -> None:
        self._retrieval: dict[int, float] = {}
        self._rank: dict[int, float] = {}
        self._penalties: dict[int, float] = {}
        self._relaxed: dict[int, int] = {}
        self._pins: dict[int, str] = {}

    def retrieved(self, candidates: Candidates) -> None:
        self._retrieval = _by_row(candidates)

    def ranked(self, candidates: Candidates) -> None:
        self._rank = _by_row(candidates)

    def chosen(self, choice: SlateChoice, rules: ActiveRules, pinned_rows: Int64Array) -> None:
        """The slate, wherever its pins came to stand. pinned_rows: int64 (pins,), -1 where there is none to show."""
        rows = choice.candidates.rows.tolist()
        names = {row: pin.name for pin, row in zip(rules.pins, pinned_rows.tolist(), strict=True)}
        pinned = choice.candidates.rows[choice.candidates.sources == ItemSource.PINNED]
        self._pins = {row: names[row] for row in pinned.tolist()}
        self._penalties = dict(zip(rows, choice.penalties.tolist(), strict=True))
        self._relaxed = dict(zip(rows, choice.relaxed.tolist(), strict=True))

    def explain(self, slate: Candidates, rules: ActiveRules, seen: SeenVerdict, removed: Counts) -> Explanation:
        """How each item of the slate got its place."""
        rows = slate.rows
        factors, seen_factors = rules.factors(rows), seen.factors(rows)
        names = rules.touching(rows)
        return Explanation(
            tuple(
                ItemExplanation(
                    retrieval_score=self._retrieval.get(row),
                    rank_score=self._rank.get(row),
                    rule_factor=1.0 if factors is None else float(factors[position]),
                    rules=(*names[position], *([self._pins[row]] if row in self._pins else [])),
                    diversity_penalty=self._penalties.get(row, 0.0),
                    relaxed=tuple(name for bit, name in _RELAXED.items() if self._relaxed.get(row, 0) & bit),
                    seen_factor=1.0 if seen_factors is None else float(seen_factors[position]),
                )
                for position, row in enumerate(rows.tolist())
            ),
            removed,
            _count_seen(slate, seen),
        )


def _count_seen(slate: Candidates, seen: SeenVerdict) -> tuple[tuple[str, str, int], ...]:
    """(action, event type, items) of what the seen policy did; an item counts under its latest event of an action."""
    again = np.isin(seen.hidden.rows, slate.rows), np.isin(seen.recent.rows, _let_back(slate))
    counts: Counter[tuple[str, int]] = Counter()
    for action, rows in (
        ("hidden", seen.hidden.those(~again[0])),
        ("demoted", seen.recent.those(~again[1])),
        ("let_back_in", seen.hidden.those(again[0])),
        ("let_back_in", seen.recent.those(again[1])),
    ):
        counts.update((action, kind) for kind in rows.longest_ago().event_types.tolist())
    counts["demoted", EventType.IMPRESSION] += len(seen.tired_rows)
    return tuple((action, event_name(kind), count) for (action, kind), count in counts.items() if count)


def _let_back(slate: Candidates) -> Int64Array:
    rows: Int64Array = slate.rows[slate.sources == ItemSource.LET_BACK_IN]
    return rows


def count_removed(
    catalogue: LiveCatalogue, query: RecommendQuery, seen: SeenVerdict, slate: Candidates, rules: ActiveRules
) -> Counts:
    """How many items could not be shown, by the first reason that holds. Cost: a few passes over bitmaps."""
    visible = catalogue.visibility
    left = visible.items(catalogue.new_items)
    counts = []

    def narrow(reason: str, kept: UInt8Array) -> None:
        nonlocal left
        before = count_rows(left, catalogue.row_count)
        left = left & kept
        gone = before - count_rows(left, catalogue.row_count)
        if gone:
            counts.append((reason, gone))

    narrow("removed", ~visible.removed)
    narrow("out_of_stock", visible.stock)
    narrow("surface", visible.shown[query.surface])
    for name, bitmap in rules.restrictions():
        narrow(f"rule:{name}", bitmap)
    for reason, rows in (
        ("seen", np.setdiff1d(seen.hidden.rows, slate.rows)),
        ("excluded", catalogue.rows(item_keys(query.exclude_item_ids))),
    ):
        kept = np.full(len(left), 255, np.uint8)
        clear_rows(kept, rows)
        narrow(reason, kept)
    return tuple(counts)


def _by_row(candidates: Candidates) -> dict[int, float]:
    return dict(zip(candidates.rows.tolist(), candidates.scores.tolist(), strict=True))
