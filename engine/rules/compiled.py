"""Rules bound to the rows of one catalogue: bitmaps and group codes, kept current while items change."""

from collections.abc import Iterable
from functools import reduce
from typing import Final

import numpy as np
import polars as pl

from engine.kernels.membership import pack_mask
from engine.rules.active import ActiveRules, BoundRule
from engine.rules.conditions import ALWAYS, Condition, Request
from engine.rules.schema import Allow, Cap, Deny, Pin, Rule, Rules
from engine.rules.selector import Selector, readable
from engine.types import BoolArray, Int32Array, Int64Array, UInt8Array

# Combinations of conditions that a surface keeps its answer for; past it they are put together again.
_KEPT_COMBINATIONS: Final = 256


class CompiledRules:
    """The rules of one file over the rows of one catalogue.

    Any number of threads may read while one calls `update_rows`: arrays are changed in place, a byte or a code at a
    time, so that a reader sees a row before or after its change, or some rules before and some after, and nothing
    else.
    """

    def __init__(self, rules: Rules, items: pl.DataFrame, capacity: int | None = None) -> None:
        """Evaluate every selector over the items.

        Args:
            items: n rows, columns of engine.data.schema.ITEMS; absent optional ones count as null.
            capacity: how many rows there may come to be; n without it. Rows past n are selected by nothing until
                `update_rows` says what they are.

        Raises:
            ValueError: a capacity below n.

        Cost: one pass over the items a distinct selector; at a million items 0.01 s for a category, 0.2 s for an
            attribute.
        """
        self.capacity = items.height if capacity is None else capacity
        if self.capacity < items.height:
            raise ValueError(f"a capacity of {self.capacity} rows does not hold {items.height} items")
        self.rules = rules
        frame = readable(items)
        self._members: dict[Selector, UInt8Array] = {}
        # Built once: for a few rows that would take longer than evaluating them.
        self._expressions: list[pl.Expr] = []
        for index, selector in enumerate(dict.fromkeys(s for s in map(_selector, rules.rules) if s is not None)):
            expression = selector.expression().alias(str(index))
            self._expressions.append(expression)
            mask = np.zeros(self.capacity, np.bool_)
            mask[: items.height] = frame.select(expression).to_series().to_numpy()
            self._members[selector] = pack_mask(mask)
        groupings = dict.fromkeys(rule.by for rule in rules.rules if isinstance(rule, Cap))
        self._groups = {by: _Groups(frame[by], self.capacity) for by in groupings}
        bound = [self._bind(rule) for rule in rules.rules]
        self._surfaces = {
            surface: _SurfaceRules(surface, [one for one in bound if one.rule.on(surface)], self.capacity)
            for surface in rules.surfaces
        }

    def surface_bitmap(self, surface: str) -> UInt8Array:
        """uint8 (ceil(capacity / 8),), read-only and live: the rows that the surface's unconditional rules let through.

        Allow rules are in it only where no conditional one could let more through; else `restrict` applies them all.
        """
        view = self._surfaces[surface].kept.view()
        view.flags.writeable = False
        return view

    def for_request(
        self, surface: str, *, country: str = "", device: str = "", age_group: str = "", time_ms: int
    ) -> ActiveRules:
        """The rules that apply; "" is unknown.

        Raises:
            KeyError: a surface that the rules were not loaded for.

        Cost: a microsecond, and one for each different condition on the surface.
        """
        known = self._surfaces[surface]
        if not known.conditions:
            return known.unconditional
        return known.active(Request(country.upper(), device, age_group, time_ms))

    def update_rows(self, rows: Int64Array, items: pl.DataFrame) -> None:
        """Evaluate these rows again, in place. One thread at a time.

        Args:
            rows: int64 (n,), each once, in [0, capacity). items: their n new values, as for the constructor.

        Raises:
            ValueError: rows that repeat or do not fit; nothing was changed then.

        Cost: some 3 ms for a few rows and fifty selectors.
        """
        if len(rows) != items.height:
            raise ValueError(f"{len(rows)} rows for {items.height} items")
        if len(rows) == 0:
            return
        if rows.min() < 0 or rows.max() >= self.capacity:
            raise ValueError(f"rows outside the capacity of {self.capacity}")
        if len(np.unique(rows)) != len(rows):
            raise ValueError("a row appears twice")
        frame = readable(items)
        # One select for all: polars shares what the expressions have in common, and its own start-up cost.
        masks = frame.select(self._expressions)
        for members, mask in zip(self._members.values(), masks, strict=True):
            _assign(members, rows, mask.to_numpy())
        for by, groups in self._groups.items():
            groups.assign(rows, frame[by])
        for surface in self._surfaces.values():
            surface.refresh(rows)

    def _bind(self, rule: Rule) -> BoundRule:
        selector = _selector(rule)
        members = None if selector is None else self._members[selector]
        return BoundRule(rule, members, self._groups[rule.by].codes if isinstance(rule, Cap) else None)


class _SurfaceRules:
    """What one surface keeps: its bitmap, and its rules by the condition that they wait for."""

    def __init__(self, name: str, rules: list[BoundRule], capacity: int) -> None:
        self._name = name
        self._rules = rules
        self.conditions: tuple[Condition, ...] = tuple(
            dict.fromkeys(one.rule.condition for one in rules if one.rule.condition != ALWAYS)
        )
        allows = [one for one in rules if isinstance(one.rule, Allow)]
        merge_allows = all(one.rule.condition == ALWAYS for one in allows)
        self._denies = [one for one in rules if isinstance(one.rule, Deny) and one.rule.condition == ALWAYS]
        self._allows = allows if merge_allows else []
        self._merged = frozenset(one.rule.name for one in (*self._denies, *self._allows))
        self.kept = _let_through(
            np.full((capacity + 7) // 8, 0xFF, np.uint8),
            (one.members for one in self._denies if one.members is not None),
            [one.members for one in self._allows if one.members is not None],
        )
        self.unconditional = self._put_together(frozenset())
        self._combinations: dict[tuple[bool, ...], ActiveRules] = {}

    def active(self, request: Request) -> ActiveRules:
        held = tuple(condition.holds(request) for condition in self.conditions)
        found = self._combinations.get(held)
        if found is None:
            found = self._put_together(frozenset(c for c, holds in zip(self.conditions, held, strict=True) if holds))
            if len(self._combinations) < _KEPT_COMBINATIONS:
                self._combinations[held] = found
        return found

    def refresh(self, rows: Int64Array) -> None:
        """Bring the kept bitmap to what the members say of these rows now."""
        every = np.ones(len(rows), np.bool_)
        denied = reduce(np.logical_or, (one.among(rows) for one in self._denies), ~every)
        allowed = reduce(np.logical_or, (one.among(rows) for one in self._allows), ~every) if self._allows else every
        _assign(self.kept, rows, allowed & ~denied)

    def _put_together(self, holding: frozenset[Condition]) -> ActiveRules:
        applied = tuple(one for one in self._rules if one.rule.condition == ALWAYS or one.rule.condition in holding)
        return ActiveRules.of(self._name, self.kept, applied, self._merged)


class _Groups:
    """Codes of one column's values. codes: int32 (capacity,), -1 where there is no value."""

    def __init__(self, values: pl.Series, capacity: int) -> None:
        self._code_of = {value: code for code, value in enumerate(values.drop_nulls().unique())}
        self.codes: Int32Array = np.full(capacity, -1, np.int32)
        if self._code_of:
            coded = values.replace_strict(self._code_of, default=-1, return_dtype=pl.Int32)
            self.codes[: len(values)] = coded.to_numpy()

    def assign(self, rows: Int64Array, values: pl.Series) -> None:
        # Codes of values that nothing has any more stay: a new one is only ever given to a new value.
        self.codes[rows] = [
            -1 if value is None else self._code_of.setdefault(value, len(self._code_of)) for value in values
        ]


def _selector(rule: Rule) -> Selector | None:
    return None if isinstance(rule, Pin) else rule.items


def _let_through(bitmap: UInt8Array, denied: Iterable[UInt8Array], allowed: list[UInt8Array]) -> UInt8Array:
    for members in denied:
        bitmap &= ~members
    if allowed:
        bitmap &= reduce(np.bitwise_or, allowed)
    return bitmap


def _assign(bitmap: UInt8Array, rows: Int64Array, mask: BoolArray) -> None:
    """Set or clear the bit of each row. A byte is written whole, so that its other rows never flicker."""
    bits = np.left_shift(1, rows & 7).astype(np.uint8)
    np.bitwise_or.at(bitmap, rows[mask] >> 3, bits[mask])
    np.bitwise_and.at(bitmap, rows[~mask] >> 3, ~bits[~mask])
