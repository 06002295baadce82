"""Every kernel at the size of a request (1000 candidates, slate of 50, vectors of 64) beside plain NumPy."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from kernels import membership, mmr, scan, session, topk
from kernels.warmup import warm_up

CANDIDATES, SLATE, DIM, CATALOGUE = 1000, 50, 64, 200_000
NOW_MS = 1_750_000_000_000
RNG = np.random.default_rng(0)
TABLE = RNG.standard_normal((CATALOGUE, DIM)).astype(np.float32)
ROWS = RNG.choice(CATALOGUE, CANDIDATES, replace=False)
UNITS = mmr.gather_unit_rows(TABLE, ROWS, DIM)
RELEVANCE = RNG.random(CANDIDATES, dtype=np.float32)
MASK = RNG.random(CATALOGUE) < 0.01
BITMAP = membership.pack_mask(MASK)
KEYS = np.unique(RNG.integers(-(2**63), 2**63 - 1, CATALOGUE))
KEY_ROWS = RNG.permutation(len(KEYS))
ASKED = RNG.choice(KEYS, CANDIDATES)
ORDER = RNG.permutation(CATALOGUE)
EVENTS = (ROWS[:50], np.ones(50, np.uint8), NOW_MS - RNG.integers(0, 1_800_000, 50))
TYPE_WEIGHTS = np.ones(6, np.float32)


def numpy_mmr() -> np.ndarray:
    picks = [int(np.argmax(RELEVANCE))]
    closest = UNITS @ UNITS[picks[0]]
    while len(picks) < SLATE:
        scores = 0.5 * RELEVANCE - 0.5 * closest
        scores[picks] = -np.inf
        picks.append(int(np.argmax(scores)))
        np.maximum(closest, UNITS @ UNITS[picks[-1]], out=closest)
    return np.array(picks)


def numpy_gather() -> np.ndarray:
    vectors = TABLE[ROWS]
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def numpy_top_k() -> np.ndarray:
    chosen = np.argpartition(-RELEVANCE, SLATE)[:SLATE]
    return chosen[np.argsort(-RELEVANCE[chosen])]


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
    "mmr_select": (lambda: mmr.mmr_select(RELEVANCE, UNITS, 0.5, SLATE), numpy_mmr),
    "gather_unit_rows": (lambda: mmr.gather_unit_rows(TABLE, ROWS, DIM), numpy_gather),
    "top_k": (lambda: topk.top_k(RELEVANCE, SLATE), numpy_top_k),
    "first_eligible": (lambda: topk.first_eligible(ORDER, BITMAP, SLATE), numpy_first_eligible),
    "rows_of_keys": (lambda: membership.rows_of_keys(KEYS, KEY_ROWS, ASKED), numpy_rows_of_keys),
    "test_rows": (lambda: membership.test_rows(BITMAP, ROWS), lambda: (BITMAP[ROWS >> 3] >> (ROWS & 7)) & 1 == 1),
    "count_rows": (lambda: membership.count_rows(BITMAP, CATALOGUE), lambda: int(MASK.sum())),
    "session_vector": (
        lambda: session.session_vector(TABLE, DIM, *EVENTS, NOW_MS, 300.0, TYPE_WEIGHTS)[0],
        numpy_session,
    ),
    "scan_eligible": (lambda: scan.scan_eligible(TABLE, TABLE[0], BITMAP), numpy_scan),
}


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
