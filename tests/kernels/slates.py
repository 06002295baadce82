"""Random slates to pick, hard enough that some rule must often give way."""

from dataclasses import dataclass

import numpy as np

from engine.kernels.constraints import SlateConstraints


@dataclass(frozen=True, slots=True)
class SlateProblem:
    """What a slate is picked from, and how; every array is read-only."""

    relevance: np.ndarray
    embeddings: np.ndarray
    duplicate_similarity: float
    constraints: SlateConstraints

    @property
    def slate_size(self) -> int:
        return len(self.constraints.fixed)

    @property
    def count(self) -> int:
        return min(self.slate_size, len(self.relevance))


def random_problem(rng: np.random.Generator) -> SlateProblem:
    """Up to 40 candidates around a few centres, some sunk, some copies of each other; up to two caps and shares."""
    count = int(rng.integers(1, 41))
    slate_size = int(rng.integers(0, 46))
    dim = int(rng.choice([2, 16, 64]))
    relevance = rng.uniform(-1, 1, count).astype(np.float32)
    relevance[rng.random(count) < 0.05] = rng.choice([np.nan, np.inf, -np.inf])
    centres = rng.standard_normal((6, dim))
    vectors = centres[rng.integers(0, 6, count)] + rng.uniform(0.1, 1.0) * rng.standard_normal((count, dim))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[rng.random(count) < 0.05] = 0.0
    copies = np.flatnonzero(rng.random(count) < 0.1)
    vectors[copies] = vectors[rng.integers(0, count, len(copies))]
    problem = SlateProblem(
        relevance,
        vectors.astype(np.float32),
        float(rng.choice([0.8, 0.95, 1.0, np.inf])),
        random_constraints(rng, count, slate_size),
    )
    for array in (problem.relevance, problem.embeddings):
        array.flags.writeable = False
    return problem


def random_constraints(rng: np.random.Generator, count: int, slate_size: int) -> SlateConstraints:
    caps, shares = rng.integers(0, 3, 2)
    # Groups are codes of any size, as vocabularies of brands have them.
    codes = np.append(rng.integers(0, 2**31 - 1, 7), -1)
    fixed = np.full(slate_size, -1, np.int64)
    pins = min(int(rng.integers(0, 5)), count, slate_size)
    fixed[rng.permutation(slate_size)[:pins]] = rng.permutation(count)[:pins]
    constraints = SlateConstraints(
        groups=codes[rng.integers(0, 8, (caps, count))].astype(np.int32),
        cap_limits=rng.integers(0, 5, caps),
        cap_windows=rng.integers(1, 20, caps),
        members=rng.random((shares, count)) < rng.uniform(0, 1),
        min_shares=rng.uniform(0, 1, shares),
        fixed=fixed,
    )
    for name in SlateConstraints.__slots__:
        getattr(constraints, name).flags.writeable = False
    return constraints
