"""The rules that apply to one request, as arrays over its candidates."""

from dataclasses import dataclass, replace

import numpy as np

from engine.kernels.membership import codes_of_rows, multiply_members, test_rows
from engine.rules.schema import Allow, Boost, Bury, Cap, Deny, MinShare, Pin, Rule, Slot
from engine.types import BoolArray, Float32Array, Int32Array, Int64Array, UInt8Array

# What all boosts and buries of one item may come to: products of many stay finite, and above zero, in float32.
LEAST_FACTOR, GREATEST_FACTOR = 1e-6, 1e6


@dataclass(frozen=True, slots=True)
class BoundRule:
    """A rule with the arrays that it reads, kept current while the catalogue changes.

    members: uint8 (bytes,), bitmap of the rows that it selects; None where it has no selector.
    codes: int32 (capacity,), the group of each row, -1 for none; caps only.
    """

    rule: Rule
    members: UInt8Array | None = None
    codes: Int32Array | None = None

    def among(self, rows: Int64Array) -> BoolArray:
        """bool (n,): which of the rows it selects; all where it has no selector."""
        return np.ones(len(rows), np.bool_) if self.members is None else test_rows(self.members, rows)


@dataclass(frozen=True, slots=True)
class CapGroups:
    """At most `limit` of one code in any `window` consecutive positions (None: in the slate).

    codes: int32 (n,), -1 for a candidate that the cap does not concern.
    """

    name: str
    codes: Int32Array
    limit: int
    window: int | None


@dataclass(frozen=True, slots=True)
class ShareMembers:
    """At least `share` of the slate, in (0, 1], from the members: bool (n,)."""

    name: str
    members: BoolArray
    share: float


@dataclass(frozen=True, slots=True)
class PinnedItem:
    """An item at a position, 1 being the first."""

    name: str
    position: int
    item_id: str


@dataclass(frozen=True, slots=True)
class SlotMembers:
    """A position, 1 being the first, for the best of the members: bool (n,)."""

    name: str
    position: int
    members: BoolArray


@dataclass(frozen=True, slots=True)
class ActiveRules:
    """What applies to one request. Shared between requests of the same kind; arrays that it returns are the caller's.

    Rows are int64 (n,), C-contiguous; one outside the capacity (-1 too) is selected by nothing and never allowed.
    """

    surface: str
    rules: tuple[BoundRule, ...]
    pins: tuple[PinnedItem, ...]
    _kept: UInt8Array
    _denied: tuple[UInt8Array, ...]
    _allowed: tuple[UInt8Array, ...]
    _weights: tuple[tuple[UInt8Array, float], ...]

    @staticmethod
    def of(surface: str, kept: UInt8Array, rules: tuple[BoundRule, ...], merged: frozenset[str]) -> "ActiveRules":
        """Sort the rules that apply by what they do.

        Args:
            kept: uint8 (bytes,), the surface's bitmap, into which the deny and allow rules named in `merged` went.
        """
        apart = [one for one in rules if one.rule.name not in merged]
        return ActiveRules(
            surface,
            rules,
            tuple(
                PinnedItem(one.rule.name, one.rule.position, one.rule.item_id)
                for one in rules
                if isinstance(one.rule, Pin)
            ),
            kept,
            tuple(one.members for one in apart if isinstance(one.rule, Deny) and one.members is not None),
            tuple(one.members for one in apart if isinstance(one.rule, Allow) and one.members is not None),
            tuple(
                (one.members, one.rule.factor)
                for one in rules
                if isinstance(one.rule, Boost | Bury) and one.members is not None
            ),
        )

    def placing_as(self, other: "ActiveRules | None") -> "ActiveRules":
        """These rules' word on what may be shown, with another file's on where, or with none.

        From the other come boosts, buries, pins, slots, caps and minimum shares; its deny and allow rules are not read.
        """
        shown = tuple(one for one in self.rules if isinstance(one.rule, Deny | Allow))
        placed = () if other is None else tuple(one for one in other.rules if not isinstance(one.rule, Deny | Allow))
        return replace(
            self,
            rules=(*shown, *placed),
            pins=() if other is None else other.pins,
            _weights=() if other is None else other._weights,
        )

    def restrict(self, bitmap: UInt8Array, *, surface_applied: bool = False) -> None:
        """Clear in place what deny and allow rules forbid.

        Args:
            bitmap: uint8 (bytes,), writable, at most as long as the rules' own.
            surface_applied: the bitmap comes from one that CompiledRules.surface_bitmap was already applied to, so
                that only conditional rules are left to do.

        Raises:
            ValueError: a bitmap of more rows than the rules' capacity.

        Cost: one pass over the bitmap a rule, some 10 µs at a million rows; nothing without conditional rules.
        """
        length = len(bitmap)
        if length > len(self._kept):
            raise ValueError(f"a bitmap of {length} bytes is longer than the rules' own of {len(self._kept)}")
        if not surface_applied:
            np.bitwise_and(bitmap, self._kept[:length], out=bitmap)
        for members in self._denied:
            # What is in both is taken out: a & ~b, without an array for the complement of a live one.
            np.bitwise_xor(bitmap, np.bitwise_and(bitmap, members[:length]), out=bitmap)
        if len(self._allowed) == 1:
            np.bitwise_and(bitmap, self._allowed[0][:length], out=bitmap)
        elif self._allowed:
            union = self._allowed[0][:length].copy()
            for members in self._allowed[1:]:
                np.bitwise_or(union, members[:length], out=union)
            np.bitwise_and(bitmap, union, out=bitmap)

    def factors(self, rows: Int64Array) -> Float32Array | None:
        """float32 (n,): the product of boosts and buries, within LEAST_FACTOR and GREATEST_FACTOR; None without any.

        Cost: O(n) a rule.
        """
        if not self._weights:
            return None
        product = np.ones(len(rows), np.float64)
        for members, factor in self._weights:
            multiply_members(product, members, rows, factor)
        return np.clip(product, LEAST_FACTOR, GREATEST_FACTOR).astype(np.float32)

    def caps(self, rows: Int64Array) -> tuple[CapGroups, ...]:
        """The caps, with the group of each row. Cost: O(n) a cap."""
        found = []
        for one in self.rules:
            if isinstance(one.rule, Cap) and one.codes is not None:
                codes = codes_of_rows(one.codes, rows, one.members)
                found.append(CapGroups(one.rule.name, codes, one.rule.limit, one.rule.window))
        return tuple(found)

    def min_shares(self, rows: Int64Array) -> tuple[ShareMembers, ...]:
        """The least shares, with the rows that count. Cost: O(n) a rule."""
        return tuple(
            ShareMembers(one.rule.name, one.among(rows), one.rule.share)
            for one in self.rules
            if isinstance(one.rule, MinShare)
        )

    def slots(self, rows: Int64Array) -> tuple[SlotMembers, ...]:
        """The slots, with the rows that may fill them. Cost: O(n) a slot."""
        return tuple(
            SlotMembers(one.rule.name, one.rule.position, one.among(rows))
            for one in self.rules
            if isinstance(one.rule, Slot)
        )

    def restrictions(self) -> list[tuple[str, UInt8Array]]:
        """For explanations: each deny rule's name, then the joint one of all allow rules, and what it lets through."""
        found = [
            (one.rule.name, ~one.members)
            for one in self.rules
            if isinstance(one.rule, Deny) and one.members is not None
        ]
        allows = [one for one in self.rules if isinstance(one.rule, Allow) and one.members is not None]
        if allows:
            union = np.bitwise_or.reduce([one.members for one in allows if one.members is not None])
            found.append(("|".join(one.rule.name for one in allows), union))
        return found

    def touching(self, rows: Int64Array) -> list[list[str]]:
        """For each row the names of the rules that select it, in the file's order; pins, which know ids, left out.

        For explanations: Python lists, O(n) a rule.
        """
        names: list[list[str]] = [[] for _ in range(len(rows))]
        for one in self.rules:
            if not isinstance(one.rule, Pin):
                for index in np.flatnonzero(one.among(rows)):
                    names[index].append(one.rule.name)
        return names
