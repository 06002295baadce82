"""What a slate must look like, and which of it a candidate would break at a position."""

from dataclasses import dataclass

import numba
import numpy as np
from numba import types

from engine.kernels.arrays import BoolArray, Float64Array, Int32Array, Int64Array, UInt8Array
from engine.kernels.signatures import EXACT, ROWS, read_only

# Bits of `Slate.relaxed`, the first to give way first: a larger sum is a worse breach.
RELAXED_DUPLICATE = 1
RELAXED_SHARE = 2
RELAXED_CAP = 4


@dataclass(frozen=True, slots=True)
class SlateConstraints:
    """What a slate of k must look like, over n candidates; every array is C-contiguous and may be read-only.

    groups: int32 (caps, n), the group of each candidate for each cap, such as its category; below 0 it has none.
    cap_limits, cap_windows: int64 (caps,), at most `limit` of one group within any `window` consecutive positions;
        a window of k or more is the whole slate.
    members: bool or uint8 (shares, n), whether a candidate counts for each share.
    min_shares: float64 (shares,) in [0, 1]; the first i items hold at least floor(min_share * i) members.
    fixed: int64 (k,), the candidate that must stand at each position, -1 where the position is free.
    """

    groups: Int32Array
    cap_limits: Int64Array
    cap_windows: Int64Array
    members: BoolArray | UInt8Array
    min_shares: Float64Array
    fixed: Int64Array

    @staticmethod
    def none(candidate_count: int, slate_size: int) -> "SlateConstraints":
        return SlateConstraints(
            groups=np.empty((0, candidate_count), np.int32),
            cap_limits=np.empty(0, np.int64),
            cap_windows=np.empty(0, np.int64),
            members=np.empty((0, candidate_count), np.uint8),
            min_shares=np.empty(0, np.float64),
            fixed=np.full(slate_size, -1, np.int64),
        )

    @property
    def are_none(self) -> bool:
        """Whether any slate at all satisfies them."""
        return not (len(self.groups) or len(self.members) or (self.fixed >= 0).any())

    def check(self, candidate_count: int, slate_size: int) -> None:
        """Raises ValueError where they do not fit so many candidates and positions, or contradict themselves."""
        if self.groups.shape != (len(self.cap_limits), candidate_count) or len(self.cap_windows) != len(self.groups):
            raise ValueError(
                f"groups of shape {self.groups.shape}, {len(self.cap_limits)} cap_limits and {len(self.cap_windows)} "
                f"cap_windows do not match over {candidate_count} candidates"
            )
        if self.members.shape != (len(self.min_shares), candidate_count):
            raise ValueError(
                f"members of shape {self.members.shape} do not match {len(self.min_shares)} min_shares over "
                f"{candidate_count} candidates"
            )
        if len(self.fixed) != slate_size:
            raise ValueError(f"fixed has {len(self.fixed)} positions, not the slate's {slate_size}")
        if len(self.groups) and (self.cap_limits.min() < 0 or self.cap_windows.min() < 1):
            raise ValueError("cap_limits must not be negative, and cap_windows must be positive")
        if not all(0.0 <= share <= 1.0 for share in self.min_shares.tolist()):
            raise ValueError(f"min_shares must lie in [0, 1], not {self.min_shares.tolist()}")
        taken = [candidate for candidate in self.fixed.tolist() if candidate >= 0]
        if len(set(taken)) < len(taken) or max(taken, default=-1) >= candidate_count:
            raise ValueError(f"fixed must name different ones of {candidate_count} candidates, not {taken}")


CODES = read_only(types.int32, 2)
MEMBERS = read_only(types.uint8, 2)
SHARES = read_only(types.float64)
INDICES = types.int64[::1]
VALUES = types.float32[::1]


@numba.njit(types.int32[:, ::1](CODES), **EXACT)
def compact_groups(groups):  # type: ignore[no-untyped-def]
    """The groups as small numbers, (n, caps), in order of appearance; -1 for none. Any int32 may be a group's code."""
    caps, n = groups.shape
    compact = np.full((n, caps), -1, np.int32)
    bits = 1
    while (1 << bits) < 2 * n:
        bits += 1
    size = 1 << bits
    slots = np.empty(size, np.int32)  # a hash table with linear probing, at most half full
    for cap in range(caps):
        slots[:] = -1
        known = 0
        for i in range(n):
            code = groups[cap, i]
            if code < 0:
                continue
            slot = ((np.int64(code) * 2654435761) & 0xFFFFFFFF) >> (32 - bits)
            while slots[slot] >= 0 and groups[cap, slots[slot]] != code:
                slot = (slot + 1) & (size - 1)
            if slots[slot] < 0:
                slots[slot] = i
                compact[i, cap] = known
                known += 1
            else:
                compact[i, cap] = compact[slots[slot], cap]
    return compact


@numba.njit(types.int64[:, ::1](MEMBERS, SHARES, ROWS), **EXACT)
def required_members(members, min_shares, fixed):  # type: ignore[no-untyped-def]
    """How many members the first i items need, (shares, count + 1).

    A longer prefix may need more than its own free positions can bring where others are fixed there; what it lacks is
    needed earlier.
    """
    count = len(fixed)
    required = np.zeros((len(min_shares), count + 1), np.int64)
    for share in range(len(min_shares)):
        for i in range(count, -1, -1):
            # 0.29 * 100 is a little less than 29.
            required[share, i] = np.int64(np.floor(min_shares[share] * i + 1e-9))
            if i < count:
                brings = 1 if fixed[i] < 0 or members[share, fixed[i]] else 0
                required[share, i] = max(required[share, i], required[share, i + 1] - brings)
    return required


@numba.njit(types.void(types.int64, types.int32[::1], types.int64, types.int64, INDICES, INDICES), **EXACT)
def mark_full(position, placed, limit, window, counts, full_at):  # type: ignore[no-untyped-def]
    """Set full_at[group] to this position for every group that has no place left here.

    Every window that contains the position is looked at, as later positions may be fixed. `counts` is all zeros before
    and after.
    """
    if limit == 0:
        full_at[:] = position
        return
    span = min(window, len(placed))
    first = max(0, position - span + 1)
    last = min(position, len(placed) - span)
    for p in range(first, last + span):
        if p - span >= first and p - span != position and placed[p - span] >= 0:
            counts[placed[p - span]] -= 1
        if p != position and placed[p] >= 0:
            counts[placed[p]] += 1
            if counts[placed[p]] >= limit:
                full_at[placed[p]] = position
    for p in range(first, last + span):
        if placed[p] >= 0:
            counts[placed[p]] = 0


@numba.njit(
    types.uint8(
        types.int64, types.int64, types.int32[:, ::1], types.int64[:, ::1], MEMBERS, types.boolean[::1],
    ),
    **EXACT,
)  # fmt: skip
def broken_rules(i, position, groups, full_at, members, short):  # type: ignore[no-untyped-def]
    """What the candidate would break at this position, similarity aside."""
    broken = np.uint8(0)
    for cap in range(groups.shape[1]):
        group = groups[i, cap]
        if group >= 0 and full_at[cap, group] == position:
            broken |= np.uint8(RELAXED_CAP)
    for share in range(len(short)):
        if short[share] and not members[share, i]:
            broken |= np.uint8(RELAXED_SHARE)
    return broken
