"""The rules file: version, and a list of rules that differ by their action."""

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from engine.rules.conditions import Condition, When
from engine.rules.selector import OneOrMany, Part, Selector, Text, refuse

MAX_POSITION = 1000

Name = Annotated[Text, Field(max_length=100)]
Position = Annotated[int, Field(ge=1, le=MAX_POSITION)]
GroupBy = Literal["category", "brand", "seller"]


class _Rule(Part):
    """What every rule has. surfaces: absent is all of them. when: absent is always."""

    name: Name
    surfaces: OneOrMany | None = None
    when: When | None = None

    @cached_property
    def condition(self) -> Condition:
        return Condition.of(self.when)

    def on(self, surface: str) -> bool:
        return self.surfaces is None or surface in self.surfaces


class Allow(_Rule):
    """Where some allow rule applies, only items that match one of those that apply are shown."""

    action: Literal["allow"]
    items: Selector


class Deny(_Rule):
    """The items are not shown."""

    action: Literal["deny"]
    items: Selector


class Boost(_Rule):
    """The items' rank scores are multiplied."""

    action: Literal["boost"]
    items: Selector
    factor: float = Field(gt=1, le=100)


class Bury(_Rule):
    """The items' rank scores are multiplied, by less than one."""

    action: Literal["bury"]
    items: Selector
    factor: float = Field(gt=0, lt=1)


class Cap(_Rule):
    """At most `limit` items of one group in any `window` consecutive positions; without a window, in the slate."""

    action: Literal["cap"]
    items: Selector | None = None
    by: GroupBy
    limit: int = Field(ge=1, le=MAX_POSITION)
    window: int | None = Field(None, ge=2, le=MAX_POSITION)

    @model_validator(mode="after")
    def _has_effect(self) -> "Cap":
        if self.window is not None and self.limit > self.window:
            raise refuse(f"limit {self.limit} is above window {self.window}, so that the cap would do nothing")
        return self


class Pin(_Rule):
    """The item is at the position, 1 being the first."""

    action: Literal["pin"]
    item_id: Text
    position: Position


class Slot(_Rule):
    """The position goes to the best candidate among the items."""

    action: Literal["slot"]
    items: Selector
    position: Position


class MinShare(_Rule):
    """At least this part of the slate is of the items, as far as there are any."""

    action: Literal["min_share"]
    items: Selector
    share: float = Field(gt=0, le=1)


Rule = Allow | Deny | Boost | Bury | Cap | Pin | Slot | MinShare
ACTIONS = ("allow", "deny", "boost", "bury", "cap", "pin", "slot", "min_share")


def _as_tuple(found: object) -> object:
    return tuple(found) if isinstance(found, list) else found


class RulesDocument(Part):
    """The whole file."""

    version: Literal[1]
    rules: Annotated[tuple[Annotated[Rule, Field(discriminator="action")], ...], BeforeValidator(_as_tuple)]


@dataclass(frozen=True, slots=True)
class Rules:
    """A file that was read and checked.

    path: as it was named. surfaces: those that the engine knows, which absent `surfaces` stand for.
    rules: in the file's order. lines: the 1-based line on which each begins.
    """

    path: str
    surfaces: tuple[str, ...]
    rules: tuple[Rule, ...]
    lines: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.rules)

    def surfaces_of(self, rule: Rule) -> tuple[str, ...]:
        """Where a rule applies."""
        return tuple(surface for surface in self.surfaces if rule.on(surface))

    @staticmethod
    def none(surfaces: tuple[str, ...]) -> "Rules":
        """No rules at all: what an engine without a file goes by."""
        return Rules("no rules", surfaces, (), ())
