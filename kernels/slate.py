"""Greedy slates under rules: what MMR and the determinantal process share, which is all but the objective.

At each position every candidate breaks some of the rules or none. Those that break least go first, and among them the
objective decides, so that a slate is never short: a rule gives way where nothing keeps it, at that position alone. What
gives way is ordered by what it costs the slate. A near-duplicate is a matter of taste; a minimum share that is missed
is asked for again at the very next position; a cap that is broken cannot be mended.
"""

from dataclasses import dataclass

import numba
import numpy as np
import numpy.typing as npt
from numba import types

from kernels.signatures import FLOATS, MATRIX, REORDERED, ROWS, read_only

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
Int32Array = npt.NDArray[np.int32]
Int64Array = npt.NDArray[np.int64]
UInt8Array = npt.NDArray[np.uint8]

# Bits of `Slate.relaxed`, the first to give way first: a larger sum is a worse breach.
RELAXED_DUPLICATE = 1
RELAXED_SHARE = 2
RELAXED_CAP = 4

# Cosines of float32 unit rows are off by about this much.
_COSINE_SLACK = 1e-6
# Below this a residual is rounding noise. All count the same there, so that relevance decides.
_RESIDUAL_FLOOR = 1e-6
# The score of a relevance that is NaN or infinite: below any other, yet still comparable.
_SUNK = np.finfo(np.float32).min


@dataclass(frozen=True, slots=True)
class SlateConstraints:
    """What a slate of k must look like, over n candidates; every array may be read-only.

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
    members: npt.NDArray[np.bool_] | UInt8Array
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


@dataclass(frozen=True, slots=True)
class Slate:
    """m = min(k, n) candidates in slate order.

    picks: int64 (m,), unique. penalties: float32 (m,), what diversity took off the score of each, on the scale of
    weighted relevance; 0 for the first. relaxed: uint8 (m,), the RELAXED_ bits of what the item at this position
    breaks, because nothing better was left or because it was fixed there.
    """

    picks: Int64Array
    penalties: Float32Array
    relaxed: UInt8Array


def select_slate(
    determinantal: bool,
    relevance: Float32Array,
    embeddings: Float32Array,
    relevance_weight: float,
    k: int,
    duplicate_similarity: float,
    constraints: SlateConstraints | None,
) -> Slate:
    """The greedy slate of either objective; see `mmr_slate` and `dpp_slate`, which are what to call.

    A fixed candidate is taken at its position and nowhere else, whatever it breaks. Caps look ahead to those that are
    fixed further on, and so do shares, which make up for fixed ones that are not members before their turn comes.
    A place that lies past the end of the slate, because there are fewer candidates than k, fixes nothing.

    Raises:
        ValueError: shapes that do not match, a weight outside [0, 1], a negative k, a NaN threshold, constraints
            that do not fit.
    """
    if embeddings.ndim != 2 or len(relevance) != len(embeddings):
        raise ValueError(f"{len(relevance)} relevances do not match embeddings of shape {embeddings.shape}")
    if not 0.0 <= relevance_weight <= 1.0:
        raise ValueError(f"relevance_weight must lie in [0, 1], not {relevance_weight}")
    if k < 0:
        raise ValueError(f"k must not be negative, not {k}")
    if np.isnan(duplicate_similarity):
        raise ValueError("duplicate_similarity must be a number")
    if constraints is None:
        constraints = SlateConstraints.none(len(relevance), k)
    constraints.check(len(relevance), k)
    return Slate(
        *_select(
            determinantal,
            relevance,
            embeddings,
            relevance_weight,
            duplicate_similarity - _COSINE_SLACK,
            constraints.groups,
            constraints.cap_limits,
            constraints.cap_windows,
            np.ascontiguousarray(constraints.members).view(np.uint8),
            constraints.min_shares,
            constraints.fixed[: len(relevance)],
        )
    )


CODES = read_only(types.int32, 2)
MEMBERS = read_only(types.uint8, 2)
SHARES = read_only(types.float64)


@numba.njit(types.int32[:, ::1](CODES), **REORDERED)
def _compact(groups):  # type: ignore[no-untyped-def]
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


@numba.njit(types.int64[:, ::1](MEMBERS, SHARES, ROWS), **REORDERED)
def _required(members, min_shares, fixed):  # type: ignore[no-untyped-def]
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


INDICES = types.int64[::1]
GROUPS_AT = types.int32[::1]


@numba.njit(types.void(types.int64, GROUPS_AT, types.int64, types.int64, INDICES, INDICES), **REORDERED)
def _mark_full(position, placed, limit, window, counts, full_at):  # type: ignore[no-untyped-def]
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
        types.float32[::1], types.float32,
    ),
    **REORDERED,
)  # fmt: skip
def _broken(i, position, groups, full_at, members, short, closest, threshold):  # type: ignore[no-untyped-def]
    """What the candidate would break at this position, as far as it has been compared."""
    broken = np.uint8(RELAXED_DUPLICATE if closest[i] >= threshold else 0)
    for cap in range(groups.shape[1]):
        group = groups[i, cap]
        if group >= 0 and full_at[cap, group] == position:
            broken |= np.uint8(RELAXED_CAP)
    for share in range(len(short)):
        if short[share] and not members[share, i]:
            broken |= np.uint8(RELAXED_SHARE)
    return broken


@numba.njit(
    types.int64(
        types.boolean, types.int64, types.int64, types.int64, types.float32, types.float32, types.float32, MATRIX,
        INDICES, types.float32[::1], types.float32[::1], types.float64[::1], types.float64[:, ::1],
    ),
    **REORDERED,
)  # fmt: skip
def _catch_up(  # type: ignore[no-untyped-def]
    determinantal, i, seen, picked, gain, penalty, beaten, embeddings, picks, bounds, closest, residuals, factor
):
    """Compare i with the picks from `seen` on, until its bound is no longer above `beaten`; returns how far it got."""
    while seen < picked and bounds[i] > beaten:
        other = picks[seen]
        cosine = np.float32(0.0)
        for d in range(embeddings.shape[1]):
            cosine += embeddings[i, d] * embeddings[other, d]
        if not np.isfinite(cosine):
            cosine = np.float32(0.0)
        closest[i] = max(closest[i], cosine)
        if determinantal:
            # One column more of the Cholesky factor of the kernel (1 + cosine) / 2.
            inner = 0.0
            for t in range(seen):
                inner += factor[i, t] * factor[other, t]
            entry = (0.5 + 0.5 * cosine - inner) / np.sqrt(residuals[other])
            factor[i, seen] = entry
            residuals[i] = max(residuals[i] - entry * entry, _RESIDUAL_FLOOR)
            bounds[i] = gain + penalty * np.float32(np.log(residuals[i]))
        else:
            bounds[i] = gain - penalty * closest[i]
        seen += 1
    return seen


@numba.njit(
    types.Tuple((types.int64[::1], types.float32[::1], types.uint8[::1]))(
        types.boolean, FLOATS, MATRIX, types.float64, types.float64, CODES, ROWS, ROWS, MEMBERS, SHARES, ROWS
    ),
    **REORDERED,
)
def _select(  # type: ignore[no-untyped-def]
    determinantal, relevance, embeddings, relevance_weight, duplicate_from, groups, limits, windows, members,
    min_shares, fixed,
):  # fmt: skip
    n = len(relevance)
    count = len(fixed)
    picks = np.empty(count, np.int64)
    penalties = np.zeros(count, np.float32)
    relaxed = np.zeros(count, np.uint8)
    weight = np.float32(relevance_weight)
    penalty = np.float32(1.0) - weight
    threshold = np.float32(duplicate_from)

    # An item is compared with the picks only as far as it must be: its bound is never below its score, because
    # similarity to more picks takes more off.
    gains = np.empty(n, np.float32)
    bounds = np.empty(n, np.float32)
    closest = np.full(n, -np.inf, np.float32)  # largest cosine to the picks compared so far
    compared = np.zeros(n, np.int64)  # how many picks that is; -1 once picked, or fixed somewhere
    residuals = np.ones(n if determinantal else 0, np.float64)
    factor = np.empty((n if determinantal else 0, count), np.float64)
    for i in range(n):
        finite = np.isfinite(relevance[i])
        gains[i] = weight * relevance[i] if finite else _SUNK
        # The first pick is the most relevant item, whatever the weight.
        bounds[i] = relevance[i] if finite else _SUNK

    codes = _compact(groups)
    placed = np.full((len(limits), count), -1, np.int32)
    counts = np.zeros(n, np.int64)
    full_at = np.full((len(limits), n), -1, np.int64)
    required = _required(members, min_shares, fixed)
    have = np.zeros(len(min_shares), np.int64)
    short = np.zeros(len(min_shares), np.bool_)
    for position in range(count):
        if fixed[position] >= 0:
            compared[fixed[position]] = -1
            for cap in range(len(limits)):
                placed[cap, position] = codes[fixed[position], cap]

    for position in range(count):
        for cap in range(len(limits)):
            _mark_full(position, placed[cap], limits[cap], windows[cap], counts, full_at[cap])
        for share in range(len(short)):
            short[share] = have[share] < required[share, position + 1]

        best = fixed[position]
        if best >= 0:
            _catch_up(
                determinantal, best, 0, position, gains[best], penalty, -np.inf, embeddings, picks, bounds, closest,
                residuals, factor,
            )  # fmt: skip
            best_broken = _broken(best, position, codes, full_at, members, short, closest, threshold)
        else:
            best_broken = np.uint8(0)
            best_score = np.float32(-np.inf)
            for i in range(n):
                seen = compared[i]
                # On a tie the item already found has the lower index.
                if seen < 0 or (best >= 0 and best_broken == 0 and bounds[i] <= best_score):
                    continue
                broken = _broken(i, position, codes, full_at, members, short, closest, threshold)
                if best >= 0 and broken > best_broken:
                    continue
                beaten = best_score if best >= 0 and broken == best_broken else np.float32(-np.inf)
                compared[i] = _catch_up(
                    determinantal, i, seen, position, gains[i], penalty, beaten, embeddings, picks, bounds, closest,
                    residuals, factor,
                )  # fmt: skip
                if closest[i] >= threshold:
                    broken |= np.uint8(RELAXED_DUPLICATE)
                if best < 0 or broken < best_broken or (broken == best_broken and bounds[i] > best_score):
                    best = i
                    best_broken = broken
                    best_score = bounds[i]

        picks[position] = best
        compared[best] = -1
        relaxed[position] = best_broken
        for share in range(len(short)):
            have[share] += members[share, best] != 0
            if have[share] < required[share, position + 1]:
                relaxed[position] |= np.uint8(RELAXED_SHARE)
        for cap in range(len(limits)):
            placed[cap, position] = codes[best, cap]
        if position == 0:
            for i in range(n):
                # Until it is compared, an item may be as unlike the picks as can be.
                bounds[i] = gains[i] if determinantal else gains[i] + penalty * np.float32(1.0 + _COSINE_SLACK)
        elif determinantal:
            penalties[position] = penalty * np.float32(-np.log(residuals[best]))
        else:
            penalties[position] = penalty * closest[best]
    return picks, penalties, relaxed
