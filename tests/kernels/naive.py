"""Slow, obvious oracles for the kernels: float64 and plain loops, written to be read."""

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from engine.kernels.constraints import RELAXED_CAP, RELAXED_DUPLICATE, RELAXED_SHARE, SlateConstraints
from engine.types import Float64Array, UInt8Array

Array = npt.NDArray[np.generic]


def unit(vector: npt.ArrayLike) -> Float64Array:
    """The vector at length 1; zeros where it has no finite direction."""
    values = np.asarray(vector, dtype=np.float64)
    length = math.sqrt(float(np.sum(values * values)))
    return values / length if 0 < length < math.inf else np.zeros_like(values)


def slate_scores(
    determinantal: bool, relevance: npt.ArrayLike, embeddings: npt.ArrayLike, relevance_weight: float,
    picked: Sequence[int],
) -> list[float]:  # fmt: skip
    """The score of every item beside what is picked: minus infinity where its relevance is not finite."""
    gains = np.asarray(relevance, dtype=np.float64)
    vectors = np.asarray(embeddings, dtype=np.float64)
    scores = []
    for item, gain in enumerate(gains.tolist()):
        if not math.isfinite(gain):
            scores.append(-math.inf)
        elif not picked:
            # The first pick is the most relevant item, even where relevance weighs nothing.
            scores.append(gain)
        else:
            scores.append(
                relevance_weight * gain - slate_penalty(determinantal, vectors, relevance_weight, picked, item)
            )
    return scores


def slate_penalty(
    determinantal: bool, embeddings: npt.ArrayLike, relevance_weight: float, picked: Sequence[int], item: int
) -> float:
    """What diversity takes off an item's score, beside at least one pick."""
    vectors = np.asarray(embeddings, dtype=np.float64)
    if not determinantal:
        return (1.0 - relevance_weight) * max(float(vectors[item] @ vectors[other]) for other in picked)
    kernel = dpp_kernel(vectors)
    beside = kernel[item, list(picked)]
    # det(picked and the item) over det(picked), by Schur's complement; singular where two of the picked are the same.
    residual = 1.0 - beside @ np.linalg.solve(kernel[np.ix_(picked, picked)], beside)
    return -(1.0 - relevance_weight) * math.log(max(float(residual), 1e-5))


def dpp_kernel(embeddings: npt.ArrayLike) -> Float64Array:
    """(1 + cosine) / 2, 1 on the diagonal for zero vectors too."""
    vectors = np.asarray(embeddings, dtype=np.float64)
    kernel = (1.0 + vectors @ vectors.T) / 2.0
    np.fill_diagonal(kernel, 1.0)
    return kernel


def broken_rules(
    slate: Sequence[int], position: int, item: int, embeddings: npt.ArrayLike, duplicate_similarity: float,
    rules: SlateConstraints,
) -> int:  # fmt: skip
    """The RELAXED_ bits of an item at a position, the earlier items of the slate being known, and the fixed ones."""
    vectors = np.asarray(embeddings, dtype=np.float64)
    count = min(len(rules.fixed), len(vectors))
    planned = [*slate[:position], item, *rules.fixed[position + 1 : count].tolist()]
    broken = 0
    if any(float(vectors[item] @ vectors[other]) >= duplicate_similarity for other in planned[:position]):
        broken |= RELAXED_DUPLICATE
    for groups, limit, window in zip(rules.groups.tolist(), rules.cap_limits, rules.cap_windows, strict=True):
        if groups[item] < 0:
            continue
        for start in range(count):
            places = range(start, min(start + window, count))
            alike = [p for p in places if planned[p] >= 0 and groups[planned[p]] == groups[item]]
            if position in places and len(alike) > limit:
                broken |= RELAXED_CAP
    for members, min_share in zip(rules.members.tolist(), rules.min_shares.tolist(), strict=True):
        have = sum(members[other] for other in slate[:position])
        if have < needed_members(min_share, position + 1, planned, members) and not members[item]:
            broken |= RELAXED_SHARE
    return broken


def needed_members(min_share: float, prefix: int, planned: Sequence[int], members: Sequence[int]) -> int:
    """What this prefix needs, for itself and for longer ones whose other positions cannot bring enough."""
    needs = []
    for longer in range(prefix, len(planned) + 1):
        bringing = sum(planned[p] < 0 or bool(members[planned[p]]) for p in range(prefix, longer))
        needs.append(math.floor(min_share * longer + 1e-9) - bringing)
    return max(needs)


def relaxed_rules(
    slate: Sequence[int], position: int, embeddings: npt.ArrayLike, duplicate_similarity: float, rules: SlateConstraints
) -> int:
    """What the item placed at a position breaks: as above, and a share that is short even after a member came."""
    broken = broken_rules(slate, position, slate[position], embeddings, duplicate_similarity, rules)
    planned = [*slate[: position + 1], *rules.fixed[position + 1 : len(slate)].tolist()]
    for members, min_share in zip(rules.members.tolist(), rules.min_shares.tolist(), strict=True):
        have = sum(bool(members[other]) for other in slate[: position + 1])
        if have < needed_members(min_share, position + 1, planned, members):
            broken |= RELAXED_SHARE
    return broken


def select_slate(
    determinantal: bool, relevance: npt.ArrayLike, embeddings: npt.ArrayLike, relevance_weight: float,
    duplicate_similarity: float, rules: SlateConstraints,
) -> list[int]:  # fmt: skip
    """At each position the fixed item, or of those that break least the best one, the first of several."""
    count = min(len(rules.fixed), len(np.asarray(relevance)))
    fixed = rules.fixed[:count].tolist()
    slate: list[int] = []
    for position in range(count):
        if fixed[position] >= 0:
            slate.append(fixed[position])
            continue
        scores = slate_scores(determinantal, relevance, embeddings, relevance_weight, slate)
        free = [item for item in range(len(scores)) if item not in slate and item not in fixed]
        broken = {i: broken_rules(slate, position, i, embeddings, duplicate_similarity, rules) for i in free}
        slate.append(min(free, key=lambda item: (broken[item], -scores[item], item)))
    return slate


def session_vector(
    table: npt.ArrayLike,
    dim: int,
    rows: Array,
    event_types: Array,
    timestamps_ms: Array,
    now_ms: int,
    half_life_s: float,
    type_weights: Array,
    window_s: float,
) -> tuple[Float64Array, float]:
    vectors = np.asarray(table)[:, :dim]
    total = np.zeros(dim)
    evidence = 0.0
    for row, kind, timestamp_ms in zip(rows.tolist(), event_types.tolist(), timestamps_ms.tolist(), strict=True):
        age_s = max(now_ms - timestamp_ms, 0) / 1000
        if not 0 <= row < len(vectors) or kind >= len(type_weights) or age_s > window_s:
            continue
        direction = unit(vectors[row])
        if not direction.any():
            continue
        weight = float(type_weights[kind]) * math.pow(2.0, -age_s / half_life_s)
        total += weight * direction
        evidence += weight
    return (total / evidence if evidence > 0 else total), evidence


def blend(long_term: npt.ArrayLike, session: npt.ArrayLike, evidence: float, evidence_half: float) -> Float64Array:
    base = np.asarray(long_term, dtype=np.float64)
    recent = np.asarray(session, dtype=np.float64)
    if evidence == 0 or not recent.any():
        return base
    if not base.any():
        return recent
    length = np.linalg.norm(base)
    share = evidence / (evidence + evidence_half)
    return unit((1 - share) * base + share * length * unit(recent)) * length


def rows_of_keys(sorted_keys: Array, sorted_rows: Array, keys: Array) -> list[int]:
    known = dict(zip(sorted_keys.tolist(), sorted_rows.tolist(), strict=True))
    return [known.get(key, -1) for key in keys.tolist()]


def mask_of(bitmap: Array) -> list[bool]:
    """Bit by bit: row r is bit r % 8 of byte r // 8."""
    return [bool(byte >> bit & 1) for byte in bitmap.tolist() for bit in range(8)]


def top_k(scores: Array, k: int) -> list[int]:
    values = scores.tolist()
    finite = sorted((p for p in range(len(values)) if math.isfinite(values[p])), key=lambda p: (-values[p], p))
    return (finite + [p for p in range(len(values)) if not math.isfinite(values[p])])[:k]


def first_eligible(order: Array, bitmap: Array, limit: int, skip_rows: Array) -> list[int]:
    mask = mask_of(bitmap)
    skipped = set(skip_rows.tolist())
    kept = [
        position
        for position, row in enumerate(order.tolist())
        if 0 <= row < len(mask) and mask[row] and row not in skipped
    ]
    return kept[: max(limit, 0)]


def scan_eligible(table: Array, query: Array, bitmap: Array) -> dict[int, float]:
    """Row to score of every row whose bit is set."""
    vectors = np.asarray(table, dtype=np.float64)[:, : len(query)]
    return {row: float(vectors[row] @ query) for row, member in enumerate(mask_of(bitmap)[: len(vectors)]) if member}


def count_moves(
    entries: Sequence[tuple[int, list[float]]], moves: Sequence[tuple[int, int, int]], lifetimes_ms: Sequence[float]
) -> list[tuple[int, list[float]]]:
    """Entries (reference time, counts) after moves (position, before, after), one after the other."""
    known = list(entries)
    for position, before_ms, after_ms in moves:
        if position == len(known):
            known.append((max(before_ms, after_ms), [0.0 for _ in lifetimes_ms]))
        # The older of what is there and the move decays to the moment of the younger.
        reference_ms, counts = known[position]
        latest_ms = max(reference_ms, before_ms, after_ms)

        def left(moment_ms: int, lifetime: float, latest_ms: int = latest_ms) -> float:
            return math.exp((moment_ms - latest_ms) / lifetime) if moment_ms >= 0 else 0.0

        moved = [
            count * left(reference_ms, lifetime) + left(after_ms, lifetime) - left(before_ms, lifetime)
            for count, lifetime in zip(counts, lifetimes_ms, strict=True)
        ]
        known[position] = latest_ms, [max(count, 0.0) for count in moved]
    return known


def expected_above(
    products: npt.ArrayLike,
    deviations: npt.ArrayLike,
    sizes: npt.ArrayLike,
    visited: npt.ArrayLike,
    threshold: float,
    density: float,
) -> list[float]:
    """Eligible items of each cell above the threshold, by the distribution function of the standard library."""
    return [
        0.0
        if seen
        else density
        * size
        * (1.0 - NormalDist(product, deviation).cdf(threshold) if deviation else product > threshold)
        for product, deviation, size, seen in zip(
            *(np.asarray(each).tolist() for each in (products, deviations, sizes, visited)), strict=True
        )
    ]


def scan_cells(
    cells: Sequence[tuple[Array, Array]], offsets: npt.ArrayLike, weights: npt.ArrayLike, bitmap: UInt8Array
) -> list[tuple[int, float]]:
    """Row and score of every eligible item of cells, each of them codes (n, dim) and rows (n,)."""
    scale = np.asarray(weights, dtype=np.float64)
    return [
        (row, float(offset) + float(code.astype(np.float64) @ scale))
        for (codes, rows), offset in zip(cells, np.asarray(offsets, dtype=np.float64), strict=True)
        for code, row in zip(codes, rows.tolist(), strict=True)
        if 0 <= row < 8 * len(bitmap) and (bitmap[row // 8] >> (row % 8)) & 1
    ]
