"""Greedy slates under rules: what MMR and the determinantal process share, which is all but the objective.

At each position every candidate breaks some of the rules or none. Those that break least go first, and among them the
objective decides, so that a slate is never short: a rule gives way where nothing keeps it, at that position alone. What
gives way is ordered by what it costs the slate. A near-duplicate is a matter of taste; a minimum share that is missed
is asked for again at the very next position; a cap that is broken cannot be mended.
"""

from dataclasses import dataclass

import numba
import numpy as np
from numba import types

from engine.kernels.arrays import Float32Array, Int64Array, UInt8Array
from engine.kernels.constraints import (
    CODES,
    MEMBERS,
    RELAXED_DUPLICATE,
    RELAXED_SHARE,
    SHARES,
    VALUES,
    SlateConstraints,
    broken_rules,
    compact_groups,
    mark_full,
    required_members,
)
from engine.kernels.signatures import FLOATS, REORDERED, ROWS, STRIDED_MATRIX
from engine.kernels.unit_rows import scale_to_unit

UNITS = types.float32[:, ::1]

# Cosines of float32 unit rows are off by about this much.
_COSINE_SLACK = 1e-6
# Below this a residual is rounding noise. All count the same there, so that relevance decides.
_RESIDUAL_FLOOR = 1e-5
# The score of a relevance that is NaN or infinite: below any other, yet still comparable.
_SUNK = np.finfo(np.float32).min


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
    rows: Int64Array | None = None,
) -> Slate:
    """The greedy slate of either objective; see `mmr_slate` and `dpp_slate`, which are what to call.

    A fixed candidate is taken at its position and nowhere else, whatever it breaks. Caps look ahead to those that are
    fixed further on, and so do shares, which make up for fixed ones that are not members before their turn comes.
    A place that lies past the end of the slate, because there are fewer candidates than k, fixes nothing.

    Raises:
        ValueError: shapes that do not match, a weight outside [0, 1], a negative k, a NaN threshold, constraints
            that do not fit. IndexError: a row outside the embeddings.
    """
    if rows is None:
        rows = np.arange(len(embeddings))
    if embeddings.ndim != 2 or len(relevance) != len(rows):
        raise ValueError(f"{len(relevance)} relevances do not match {len(rows)} of embeddings {embeddings.shape}")
    if len(rows) and not 0 <= rows.min() <= rows.max() < len(embeddings):
        raise IndexError(f"rows must lie in [0, {len(embeddings)})")
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
            rows,
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


@numba.njit(types.void(types.int64, types.int64, UNITS, types.float64[::1], types.float32[:, ::1], VALUES), **REORDERED)
def _add_direction(position, item, units, residuals, directions, offsets):  # type: ignore[no-untyped-def]
    """The direction in which this pick, the position-th, takes from the residuals of others (Gram-Schmidt).

    The kernel (1 + cosine) / 2 is the inner product of the vectors (1, unit vector) / sqrt(2), so that an entry of its
    Cholesky factor is a projection on such a direction, and the factor itself, n rows of k, need not be kept.
    """
    dim = units.shape[1]
    direction = np.empty(dim, np.float64)
    offset = 0.5
    for d in range(dim):
        direction[d] = 0.5 * units[item, d]
    for p in range(position):
        part = np.float64(offsets[p])
        for d in range(dim):
            part += units[item, d] * directions[p, d]
        offset -= part * offsets[p]
        for d in range(dim):
            direction[d] -= part * directions[p, d]
    # What earlier picks explain already adds none: its direction would be rounding noise, blown up.
    scale = 1.0 / np.sqrt(residuals[item]) if residuals[item] > _RESIDUAL_FLOOR else 0.0
    offsets[position] = offset * scale
    for d in range(dim):
        directions[position, d] = direction[d] * scale


@numba.njit(
    types.Tuple((types.int64[::1], types.float32[::1], types.uint8[::1]))(
        types.boolean, FLOATS, STRIDED_MATRIX, ROWS, types.float64, types.float64, CODES, ROWS, ROWS, MEMBERS, SHARES,
        ROWS,
    ),
    **REORDERED,
)  # fmt: skip
def _select(  # type: ignore[no-untyped-def]
    determinantal, relevance, embeddings, rows, relevance_weight, duplicate_from, groups, limits, windows, members,
    min_shares, fixed,
):  # fmt: skip
    n, dim = len(rows), embeddings.shape[1]
    count = len(fixed)
    picks = np.empty(count, np.int64)
    penalties = np.zeros(count, np.float32)
    relaxed = np.zeros(count, np.uint8)
    weight = np.float32(relevance_weight)
    penalty = np.float32(1.0) - weight
    threshold = np.float32(duplicate_from)

    # An item is compared with the picks only as far as it must be: its bound is never below its score, as more picks
    # only ever take more off. What is never compared is never fetched, which is most of a large table's part of the
    # time: every row is a few cache misses.
    units = np.empty((n, dim), np.float32)
    fetched = np.zeros(n, np.bool_)
    gains = np.empty(n, np.float32)
    bounds = np.empty(n, np.float32)
    closest = np.full(n, -np.inf, np.float32)  # largest cosine to the picks compared so far
    compared = np.zeros(n, np.int64)  # how many picks that is; -1 once picked, or fixed somewhere
    residuals = np.ones(n if determinantal else 0, np.float64)
    directions = np.empty((count if determinantal else 0, dim), np.float32)
    offsets = np.empty(count, np.float32)
    for i in range(n):
        finite = np.isfinite(relevance[i])
        gains[i] = weight * relevance[i] if finite else _SUNK
        # The first pick is the most relevant item, whatever the weight.
        bounds[i] = relevance[i] if finite else _SUNK

    # Until it is compared, an item may be as unlike the picks as can be.
    unlike = np.float32(0.0) if determinantal else penalty * np.float32(1.0 + _COSINE_SLACK)
    # The largest bound that any item from here on can have after the first pick.
    ceilings = np.empty(n, np.float32)
    ceiling = np.float32(-np.inf)
    for i in range(n - 1, -1, -1):
        ceiling = max(ceiling, gains[i] + unlike)
        ceilings[i] = ceiling

    codes = compact_groups(groups)
    placed = np.full((len(limits), count), -1, np.int32)
    counts = np.zeros(n, np.int64)
    full_at = np.full((len(limits), n), -1, np.int64)
    required = required_members(members, min_shares, fixed)
    have = np.zeros(len(min_shares), np.int64)
    short = np.zeros(len(min_shares), np.bool_)
    for position in range(count):
        if fixed[position] >= 0:
            compared[fixed[position]] = -1
            for cap in range(len(limits)):
                placed[cap, position] = codes[fixed[position], cap]

    for position in range(count):
        for cap in range(len(limits)):
            mark_full(position, placed[cap], limits[cap], windows[cap], counts, full_at[cap])
        for share in range(len(short)):
            short[share] = have[share] < required[share, position + 1]

        first, last = 0, n
        if fixed[position] >= 0:
            first, last = fixed[position], fixed[position] + 1
            compared[first] = 0
        best = -1
        best_broken = np.uint8(0)
        best_score = np.float32(-np.inf)
        for i in range(first, last):
            seen = compared[i]
            bound = bounds[i]
            # On a tie the item already found has the lower index.
            if best >= 0 and best_broken == 0 and position > 0 and ceilings[i] <= best_score:
                break
            if seen < 0 or (best >= 0 and best_broken == 0 and bound <= best_score):
                continue
            near = closest[i]
            broken = broken_rules(i, position, codes, full_at, members, short)
            if near >= threshold:
                broken |= np.uint8(RELAXED_DUPLICATE)
            if best >= 0 and broken > best_broken:
                continue
            beaten = best_score if best >= 0 and broken == best_broken else np.float32(-np.inf)
            if not fetched[i] and seen < position and bound > beaten:
                fetched[i] = True
                units[i] = embeddings[rows[i]]
                scale_to_unit(units[i])
            while seen < position and bound > beaten:
                other = picks[seen]
                cosine = np.float32(0.0)
                if determinantal:
                    part = offsets[seen]
                    for d in range(dim):
                        cosine += units[i, d] * units[other, d]
                        part += units[i, d] * directions[seen, d]
                    residuals[i] = max(residuals[i] - np.float64(part) * part, _RESIDUAL_FLOOR)
                    bound = gains[i] + penalty * np.float32(np.log(residuals[i]))
                else:
                    for d in range(dim):
                        cosine += units[i, d] * units[other, d]
                near = max(near, cosine)
                if not determinantal:
                    bound = gains[i] - penalty * near
                seen += 1
            compared[i] = seen
            closest[i] = near
            bounds[i] = bound
            if near >= threshold:
                broken |= np.uint8(RELAXED_DUPLICATE)
            if best < 0 or broken < best_broken or (broken == best_broken and bound > best_score):
                best = i
                best_broken = broken
                best_score = bound

        picks[position] = best
        compared[best] = -1
        if not fetched[best]:
            fetched[best] = True
            units[best] = embeddings[rows[best]]
            scale_to_unit(units[best])
        if determinantal:
            _add_direction(position, best, units, residuals, directions, offsets)
        relaxed[position] = best_broken
        for share in range(len(short)):
            have[share] += members[share, best] != 0
            if have[share] < required[share, position + 1]:
                relaxed[position] |= np.uint8(RELAXED_SHARE)
        for cap in range(len(limits)):
            placed[cap, position] = codes[best, cap]
        if position == 0:
            for i in range(n):
                bounds[i] = gains[i] + unlike
        elif determinantal:
            penalties[position] = penalty * np.float32(-np.log(residuals[best]))
        else:
            penalties[position] = penalty * closest[best]
    return picks, penalties, relaxed
