"""Rules that cannot all be kept: found when the file is read, and again when the catalogue is known."""

from collections.abc import Iterator
from itertools import combinations
from typing import TypeVar

import polars as pl

from engine.errors import RulesError
from engine.rules.conditions import ALWAYS
from engine.rules.schema import Allow, Deny, MinShare, Pin, Rule, Rules, Slot
from engine.rules.selector import Selector, readable

R = TypeVar("R", Allow, Deny)

# Shares are decimal fractions; ten times 0.1 must still make a whole.
_WHOLE = 1 + 1e-9


def check_conflicts(rules: Rules) -> None:
    """Refuse what no slate can fulfil, as far as the file alone tells.

    Two rules are in conflict only where one request may be about both: a common surface, and conditions that do not
    exclude each other.

    Raises:
        RulesError: names the later rule's line, and the earlier rule.
    """
    fixed = [(line, rule) for line, rule in zip(rules.lines, rules.rules, strict=True) if isinstance(rule, Pin | Slot)]
    for (_, first), (line, second) in combinations(fixed, 2):
        if not _meet(rules, first, second):
            continue
        if first.position == second.position:
            reason = f"position {second.position} is already taken by the {first.action} {first.name!r}"
            raise _refusal(rules, line, second, reason)
        if isinstance(first, Pin) and isinstance(second, Pin) and first.item_id == second.item_id:
            reason = f"the item {second.item_id!r} is already at position {first.position} by the pin {first.name!r}"
            raise _refusal(rules, line, second, reason)
    for line, pin in fixed:
        for deny in _always(rules, Deny):
            if isinstance(pin, Pin) and _share_surface(rules, pin, deny) and deny.items.decided_by_id(pin.item_id):
                reason = f"the pinned item {pin.item_id!r} is denied by the rule {deny.name!r}"
                raise _refusal(rules, line, pin, reason)
    _check_shares(rules)


def check_catalogue(rules: Rules, items: pl.DataFrame) -> list[str]:
    """Hold the rules against the items that there are.

    Args:
        items: columns of engine.data.schema.ITEMS, absent ones count as null.

    Returns:
        What is no contradiction but hardly meant, a sentence each: selectors without an item, pins of unknown ones.

    Raises:
        RulesError: a pin of an item that an unconditional deny covers on a common surface, or that the allow rules
            of one of its surfaces leave out.

    Cost: one pass over the items for each selector.
    """
    frame = readable(items)
    for line, pin in zip(rules.lines, rules.rules, strict=True):
        if isinstance(pin, Pin):
            _check_pin(rules, line, pin, frame.filter(pl.col("item_id") == pin.item_id))
    selectors = {rule.name: rule.items for rule in rules.rules if not isinstance(rule, Pin) and rule.items is not None}
    counts = frame.select(selector.expression().sum().alias(name) for name, selector in selectors.items())
    return [
        f"line {line}: rule {rule.name!r}: {doubt}"
        for line, rule in zip(rules.lines, rules.rules, strict=True)
        for doubt in _doubts(rule, frame, counts)
    ]


def _doubts(rule: Rule, frame: pl.DataFrame, counts: pl.DataFrame) -> Iterator[str]:
    if isinstance(rule, Pin):
        if not (frame["item_id"] == rule.item_id).any():
            yield f"the catalogue does not have the pinned item {rule.item_id!r}"
    elif rule.items is not None and counts[rule.name][0] == 0:
        yield "no item of the catalogue matches"


def _check_pin(rules: Rules, line: int, pin: Pin, item: pl.DataFrame) -> None:
    if item.height == 0:
        return
    for deny in _always(rules, Deny):
        if _share_surface(rules, pin, deny) and _matches(deny.items, item):
            raise _refusal(rules, line, pin, f"the pinned item {pin.item_id!r} is denied by the rule {deny.name!r}")
    for surface in rules.surfaces_of(pin):
        if not any(allow.on(surface) for allow in _always(rules, Allow)):
            continue
        allows = [rule for rule in rules.rules if isinstance(rule, Allow) and rule.on(surface)]
        if not any(rule.condition.may_coincide(pin.condition) and _matches(rule.items, item) for rule in allows):
            names = ", ".join(repr(rule.name) for rule in allows)
            reason = f"the pinned item {pin.item_id!r} is not allowed on {surface!r} by any of {names}"
            raise _refusal(rules, line, pin, reason)


def _check_shares(rules: Rules) -> None:
    shares = [rule for rule in rules.rules if isinstance(rule, MinShare)]
    for surface in rules.surfaces:
        over = _over_whole([rule for rule in shares if rule.on(surface)], [])
        if over:
            total = sum(rule.share for rule in over)
            names = ", ".join(repr(rule.name) for rule in over[:-1])
            reason = f"shares on {surface!r} add up to {total:g}, above 1, together with {names}"
            raise _refusal(rules, rules.lines[rules.rules.index(over[-1])], over[-1], reason)


def _over_whole(rest: list[MinShare], chosen: list[MinShare]) -> list[MinShare]:
    """Rules that may all apply to one request and ask for more than the whole slate; empty where there are none."""
    total = sum(rule.share for rule in chosen)
    if total > _WHOLE:
        return chosen
    if total + sum(rule.share for rule in rest) <= _WHOLE:
        return []
    for index, rule in enumerate(rest):
        compatible = [other for other in rest[index + 1 :] if other.condition.may_coincide(rule.condition)]
        found = _over_whole(compatible, [*chosen, rule])
        if found:
            return found
    return []


def _always(rules: Rules, kind: type[R]) -> list[R]:
    return [rule for rule in rules.rules if isinstance(rule, kind) and rule.condition == ALWAYS]


def _share_surface(rules: Rules, one: Rule, other: Rule) -> bool:
    return any(one.on(surface) and other.on(surface) for surface in rules.surfaces)


def _meet(rules: Rules, one: Rule, other: Rule) -> bool:
    return _share_surface(rules, one, other) and one.condition.may_coincide(other.condition)


def _matches(selector: Selector, item: pl.DataFrame) -> bool:
    return bool(item.select(selector.expression().alias("matches"))["matches"][0])


def _refusal(rules: Rules, line: int, rule: Rule, reason: str) -> RulesError:
    return RulesError(rules.path, line, f"rule {rule.name!r}: {reason}")
