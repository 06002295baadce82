"""Slow, obvious oracles for the kernels: float64 and plain loops, written to be read."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.generic]


def unit(vector: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """The vector at length 1; zeros where it has no finite direction."""
    values = np.asarray(vector, dtype=np.float64)
    length = math.sqrt(float(np.sum(values * values)))
    return values / length if 0 < length < math.inf else np.zeros_like(values)


def mmr_scores(
    relevance: npt.ArrayLike, embeddings: npt.ArrayLike, relevance_weight: float, picked: Sequence[int]
) -> dict[int, float]:
    """The score of every item with finite relevance that is not picked yet."""
    gains = np.asarray(relevance, dtype=np.float64)
    vectors = np.asarray(embeddings, dtype=np.float64)
    scores = {}
    for item in range(len(gains)):
        if item in picked or not math.isfinite(gains[item]):
            continue
        similarity = max((float(vectors[item] @ vectors[other]) for other in picked), default=0.0)
        # The first pick is the most relevant item, even where relevance weighs nothing.
        weight = relevance_weight if picked else 1.0
        scores[item] = weight * float(gains[item]) - (1.0 - weight) * similarity
    return scores


def mmr_select(relevance: npt.ArrayLike, embeddings: npt.ArrayLike, relevance_weight: float, k: int) -> list[int]:
    count = len(np.asarray(relevance))
    picked: list[int] = []
    while len(picked) < min(k, count):
        scores = mmr_scores(relevance, embeddings, relevance_weight, picked)
        if not scores:
            break
        picked.append(max(scores, key=lambda item: (scores[item], -item)))
    sunk = [item for item in range(count) if not math.isfinite(np.asarray(relevance)[item])]
    return (picked + sunk)[: min(k, count)]


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
) -> tuple[npt.NDArray[np.float64], float]:
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


def blend(
    long_term: npt.ArrayLike, session: npt.ArrayLike, evidence: float, evidence_half: float
) -> npt.NDArray[np.float64]:
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
