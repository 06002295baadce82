"""Every kernel at the size of a request (1000 candidates, slate of 50, vectors of 64) beside plain NumPy."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from engine.kernels import cells, dpp, membership, mmr, scan, session, topk, unit_rows
from engine.kernels.constraints import SlateConstraints
from engine.kernels.warmup import warm_up

CANDIDATES, SLATE, DIM, CATALOGUE = 1000, 50, 64, 200_000
NOW_MS = 1_750_000_000_000
RNG = np.random.default_rng(0)
TABLE = RNG.standard_normal((CATALOGUE, DIM)).astype(np.float32)
ROWS = RNG.choice(CATALOGUE, CANDIDATES, replace=False)
UNITS = unit_rows.gather_unit_rows(TABLE, ROWS, DIM)
WIDE_UNITS = unit_rows.gather_unit_rows(RNG.standard_normal((CANDIDATES, 128)), np.arange(CANDIDATES), 128)
RELEVANCE = RNG.random(CANDIDATES, dtype=np.float32)
MASK = RNG.random(CATALOGUE) < 0.01
BITMAP = membership.pack_mask(MASK)
KEYS = np.unique(RNG.integers(-(2**63), 2**63 - 1, CATALOGUE))
KEY_ROWS = RNG.permutation(len(KEYS))
ASKED = RNG.choice(KEYS, CANDIDATES)
ORDER = RNG.permutation(CATALOGUE)
# What a search of an index visits: cells of 8-bit codes, of which nearly all items are eligible.
CELLS, CELL_SIZE = 24, 512
CELL_ROWS = ORDER[: CELLS * CELL_SIZE]
CODES = RNG.integers(0, 256, (CELLS * CELL_SIZE, DIM)).astype(np.uint8)
CELL_MEMORY = np.concatenate([CELL_ROWS.view(np.uint8), CODES.reshape(-1)])
CELL_NUMBERS = np.arange(CELLS)
CELL_PLACES = (
    CELL_ROWS.nbytes + CELL_NUMBERS * CELL_SIZE * DIM,
    CELL_NUMBERS * CELL_SIZE * 8,
    np.full(CELLS, CELL_SIZE),
)
OFFSETS = RNG.standard_normal(CELLS).astype(np.float32)
STEPS = (RNG.standard_normal(DIM) / 255).astype(np.float32)
NEARLY_ALL = membership.pack_mask(RNG.random(CATALOGUE) < 0.9)
MANY = RNG.standard_normal(CELLS * CELL_SIZE).astype(np.float32)
EVENTS = (ROWS[:50], np.ones(50, np.uint8), NOW_MS - RNG.integers(0, 1_800_000, 50))
TYPE_WEIGHTS = np.ones(6, np.float32)


def slate_constraints() -> SlateConstraints:
    """What a busy surface asks for: three of a category in any ten, two of a brand, 30% new, and two places sold."""
    fixed = np.full(SLATE, -1)
    fixed[[3, 13]] = [700, 800]
    members = RNG.random((1, CANDIDATES)) < 0.2
    members[0, [700, 800]] = True  # the plain version does not make up for fixed items that are not members
    return SlateConstraints(
        groups=np.stack([RNG.integers(0, 40, CANDIDATES), RNG.integers(0, 300, CANDIDATES)]).astype(np.int32),
        cap_limits=np.array([3, 2]),
        cap_windows=np.array([10, SLATE]),
        members=members,
        min_shares=np.array([0.3]),
        fixed=fixed,
    )


CONSTRAINTS = slate_constraints()


def numpy_mmr(units: np.ndarray) -> np.ndarray:
    picks = [int(np.argmax(RELEVANCE))]
    closest = units @ units[picks[0]]
    while len(picks) < SLATE:
        scores = 0.5 * RELEVANCE - 0.5 * closest
        scores[picks] = -np.inf
        picks.append(int(np.argmax(scores)))
        np.maximum(closest, units @ units[picks[-1]], out=closest)
    return np.array(picks)


def numpy_mmr_constrained(units: np.ndarray) -> np.ndarray:
    """The constraints above, in this data never in each other's way, with near-duplicates from a cosine of 0.95."""
    rules = CONSTRAINTS
    members, (category, brand) = rules.members[0], rules.groups
    slate = rules.fixed.copy()
    open_ = np.ones(CANDIDATES, bool)
    open_[slate[slate >= 0]] = False
    closest = np.full(CANDIDATES, -np.inf, np.float32)
    for position in range(SLATE):
        if slate[position] < 0:
            allowed = open_ & (closest < 0.95)
            for groups, limit, window in ((category, 3, 10), (brand, 2, SLATE)):
                starts = range(max(0, position - window + 1), min(position, SLATE - window) + 1)
                for start in starts:
                    near = slate[start : start + window]
                    codes, counts = np.unique(groups[near[near >= 0]], return_counts=True)
                    allowed &= ~np.isin(groups, codes[counts >= limit])
            if members[slate[:position]].sum() < np.floor(0.3 * (position + 1) + 1e-9):
                allowed &= members
            scores = 0.5 * RELEVANCE - 0.5 * closest if position else RELEVANCE.copy()
            scores[~allowed] = -np.inf
            slate[position] = np.argmax(scores)
        open_[slate[position]] = False
        np.maximum(closest, units @ units[slate[position]], out=closest)
    return slate


def numpy_dpp(units: np.ndarray) -> np.ndarray:
    """Algorithm 1 of the paper, a column of the Cholesky factor at a time, over kernel (1 + cosine) / 2."""
    factor = np.zeros((SLATE, CANDIDATES))
    residual = np.ones(CANDIDATES)
    picks: list[int] = []
    scores = RELEVANCE.astype(np.float64)
    while True:
        picks.append(int(np.argmax(scores)))
        if len(picks) == SLATE:
            return np.array(picks)
        row, last = len(picks) - 1, picks[-1]
        explained = factor[:row, last] @ factor[:row]
        factor[row] = (0.5 + 0.5 * (units @ units[last]) - explained) / np.sqrt(residual[last])
        residual = np.maximum(residual - factor[row] ** 2, 1e-5)
        scores = 0.5 * RELEVANCE + 0.5 * np.log(residual)
        scores[picks] = -np.inf


def numpy_gather() -> np.ndarray:
    vectors = TABLE[ROWS]
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def numpy_top_k(scores: np.ndarray, count: int) -> np.ndarray:
    chosen = np.argpartition(-scores, count)[:count]
    return chosen[np.argsort(-scores[chosen])]


def numpy_scan_cells() -> tuple[np.ndarray, np.ndarray]:
    kept = (NEARLY_ALL[CELL_ROWS >> 3] >> (CELL_ROWS & 7)) & 1 == 1
    return CELL_ROWS[kept], (CODES @ STEPS + np.repeat(OFFSETS, CELL_SIZE))[kept]


def numpy_rows_of_keys() -> np.ndarray:
    places = np.minimum(np.searchsorted(KEYS, ASKED), len(KEYS) - 1)
    return np.where(KEYS[places] == ASKED, KEY_ROWS[places], -1)


def numpy_session() -> np.ndarray:
    rows, kinds, times_ms = EVENTS
    weights = TYPE_WEIGHTS[kinds] * 2.0 ** (-(NOW_MS - times_ms) / 1000 / 300)
    vectors = TABLE[rows] / np.linalg.norm(TABLE[rows], axis=1, keepdims=True)
    return weights @ vectors / weights.sum()


def numpy_scan() -> tuple[np.ndarray, np.ndarray]:
    rows = np.flatnonzero(np.unpackbits(BITMAP, count=CATALOGUE, bitorder="little"))
    return rows, TABLE[rows] @ TABLE[0]


def numpy_first_eligible() -> np.ndarray:
    members = (BITMAP[ORDER >> 3] >> (ORDER & 7)) & 1
    return np.flatnonzero(members)[:SLATE]


CASES: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "gather_unit_rows": (lambda: unit_rows.gather_unit_rows(TABLE, ROWS, DIM), numpy_gather),
    "top_k": (lambda: topk.top_k(RELEVANCE, SLATE), lambda: numpy_top_k(RELEVANCE, SLATE)),
    "top_k of many": (lambda: topk.top_k(MANY, CANDIDATES), lambda: numpy_top_k(MANY, CANDIDATES)),
    "scan_cells": (
        lambda: cells.scan_cells(CELL_MEMORY, *CELL_PLACES, CELL_NUMBERS, OFFSETS, STEPS, NEARLY_ALL),
        numpy_scan_cells,
    ),
    "first_eligible": (lambda: topk.first_eligible(ORDER, BITMAP, SLATE), numpy_first_eligible),
    "rows_of_keys": (lambda: membership.rows_of_keys(KEYS, KEY_ROWS, ASKED), numpy_rows_of_keys),
    "first_members": (
        lambda: membership.first_members(BITMAP, ROWS, len(BITMAP) * 8, 100),
        lambda: np.flatnonzero((BITMAP[ROWS >> 3] >> (ROWS & 7)) & 1 == 1)[:100],
    ),
    "test_rows": (lambda: membership.test_rows(BITMAP, ROWS), lambda: (BITMAP[ROWS >> 3] >> (ROWS & 7)) & 1 == 1),
    "count_rows": (lambda: membership.count_rows(BITMAP, CATALOGUE), lambda: int(MASK.sum())),
    "session_vector": (
        lambda: session.session_vector(TABLE, DIM, *EVENTS, NOW_MS, 300.0, TYPE_WEIGHTS)[0],
        numpy_session,
    ),
    "scan_eligible": (lambda: scan.scan_eligible(TABLE, TABLE[0], BITMAP), numpy_scan),
}


def slate_cases(units: np.ndarray) -> dict[str, tuple[Callable[[], Any], Callable[[], Any]]]:
    dim = units.shape[1]
    return {
        f"mmr_slate plain, dim {dim}": (
            lambda: mmr.mmr_slate(RELEVANCE, units, 0.5, SLATE).picks,
            lambda: numpy_mmr(units),
        ),
        f"mmr_slate constrained, dim {dim}": (
            lambda: mmr.mmr_slate(RELEVANCE, units, 0.5, SLATE, 0.95, CONSTRAINTS).picks,
            lambda: numpy_mmr_constrained(units),
        ),
        f"dpp_slate plain, dim {dim}": (
            lambda: dpp.dpp_slate(RELEVANCE, units, 0.5, SLATE).picks,
            lambda: numpy_dpp(units),
        ),
    }


CASES |= slate_cases(UNITS) | slate_cases(WIDE_UNITS)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("implementation", ["kernel", "numpy"])
def test_kernel(benchmark: Any, name: str, implementation: str) -> None:
    """Both are first shown to agree: a fast wrong answer is worth nothing."""
    warm_up()
    kernel, plain = CASES[name]
    for ours, theirs in zip(_parts(kernel()), _parts(plain()), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
    benchmark.group = name
    benchmark(kernel if implementation == "kernel" else plain)


def _parts(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)
