"""What every diversifier promises, whatever it takes for alike; a new one joins the fixture."""

import dataclasses

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.kernels.slate import Slate
from engine.stages.diversify import (
    RELAXED_CAP,
    RELAXED_DUPLICATE,
    RELAXED_SHARE,
    Diversifier,
    DppDiversifier,
    MmrDiversifier,
    SlateConstraints,
)
from tests.kernels.slates import SlateProblem, random_problem

# The fixture's diversifiers keep nothing between examples.
SETTINGS = settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
SEEDS = st.integers(0, 2**32 - 1)
WEIGHTS = st.sampled_from([0.0, 0.1, 0.5, 1.0])


@pytest.fixture(scope="module", params=["mmr", "dpp"])
def diversifier(request: pytest.FixtureRequest) -> Diversifier:
    return {"mmr": MmrDiversifier(), "dpp": DppDiversifier()}[request.param]


def select(diversifier: Diversifier, problem: SlateProblem, weight: float) -> Slate:
    return diversifier.select(
        problem.relevance, problem.embeddings, np.arange(len(problem.embeddings)), weight,
        problem.duplicate_similarity, problem.slate_size, problem.constraints,
    )  # fmt: skip


@given(seed=SEEDS, weight=WEIGHTS)
@SETTINGS
def test_a_slate_is_never_short_and_names_nothing_twice(diversifier: Diversifier, seed: int, weight: float) -> None:
    problem = random_problem(np.random.default_rng(seed))
    slate = select(diversifier, problem, weight)
    assert (slate.picks.dtype, slate.penalties.dtype, slate.relaxed.dtype) == (np.int64, np.float32, np.uint8)
    assert len(slate.picks) == len(slate.penalties) == len(slate.relaxed) == problem.count
    assert len(np.unique(slate.picks)) == problem.count
    assert ((slate.picks >= 0) & (slate.picks < len(problem.relevance))).all()
    assert np.isfinite(slate.penalties).all()


@given(seed=SEEDS, weight=WEIGHTS)
@SETTINGS
def test_what_is_fixed_stands_where_it_is_fixed(diversifier: Diversifier, seed: int, weight: float) -> None:
    problem = random_problem(np.random.default_rng(seed))
    slate = select(diversifier, problem, weight)
    fixed = problem.constraints.fixed[: problem.count]
    np.testing.assert_array_equal(slate.picks[fixed >= 0], fixed[fixed >= 0])


@given(seed=SEEDS, weight=WEIGHTS)
@SETTINGS
def test_caps_hold_wherever_none_is_reported_as_relaxed(diversifier: Diversifier, seed: int, weight: float) -> None:
    problem = random_problem(np.random.default_rng(seed))
    slate = select(diversifier, problem, weight)
    rules = problem.constraints
    for groups, limit, window in zip(rules.groups, rules.cap_limits, rules.cap_windows, strict=True):
        placed = groups[slate.picks]
        for position in np.flatnonzero((slate.relaxed & RELAXED_CAP) == 0):
            behind = placed[max(0, position - window + 1) : position + 1]
            assert placed[position] < 0 or (behind == placed[position]).sum() <= limit


@given(seed=SEEDS, weight=WEIGHTS)
@SETTINGS
def test_shares_hold_after_every_prefix_that_is_not_reported(
    diversifier: Diversifier, seed: int, weight: float
) -> None:
    problem = random_problem(np.random.default_rng(seed))
    slate = select(diversifier, problem, weight)
    rules = problem.constraints
    for members, min_share in zip(rules.members, rules.min_shares, strict=True):
        have = np.cumsum(members[slate.picks])
        for position in np.flatnonzero((slate.relaxed & RELAXED_SHARE) == 0):
            assert have[position] >= np.floor(min_share * (position + 1) + 1e-9)


@given(seed=SEEDS, weight=WEIGHTS)
@SETTINGS
def test_near_duplicates_are_absent_wherever_not_reported(diversifier: Diversifier, seed: int, weight: float) -> None:
    problem = random_problem(np.random.default_rng(seed))
    slate = select(diversifier, problem, weight)
    placed = problem.embeddings[slate.picks].astype(np.float64)
    for position in np.flatnonzero((slate.relaxed & RELAXED_DUPLICATE) == 0):
        assert (placed[:position] @ placed[position] < problem.duplicate_similarity).all()


@given(seed=SEEDS)
@SETTINGS
def test_no_weight_is_relevance_order_with_ties_and_what_is_not_finite_in_index_order(
    diversifier: Diversifier, seed: int
) -> None:
    problem = random_problem(np.random.default_rng(seed))
    relevance = np.round(problem.relevance, 1)
    constraints = SlateConstraints.none(len(relevance), problem.slate_size)
    rows = np.arange(len(relevance))
    slate = diversifier.select(relevance, problem.embeddings, rows, 0.0, np.inf, problem.slate_size, constraints)
    order = np.argsort(np.where(np.isfinite(relevance), -relevance, np.inf), kind="stable")
    np.testing.assert_array_equal(slate.picks, order[: problem.count])
    assert not slate.penalties.any()
    assert not slate.relaxed.any()


@given(seed=SEEDS, weight=WEIGHTS)
@SETTINGS
def test_the_same_problem_has_the_same_slate_in_any_memory(diversifier: Diversifier, seed: int, weight: float) -> None:
    problem = random_problem(np.random.default_rng(seed))
    rules = problem.constraints
    writable = {name: np.array(getattr(rules, name)) for name in SlateConstraints.__slots__}
    writable["members"] = writable["members"].view(np.uint8)
    copied = dataclasses.replace(
        problem,
        relevance=problem.relevance.copy(),
        embeddings=problem.embeddings.copy(),
        constraints=SlateConstraints(**writable),
    )
    first, second = select(diversifier, problem, weight), select(diversifier, copied, weight)
    np.testing.assert_array_equal(first.picks, second.picks)
    np.testing.assert_array_equal(first.penalties, second.penalties)
    np.testing.assert_array_equal(first.relaxed, second.relaxed)


def test_diversity_makes_a_slate_less_alike(diversifier: Diversifier) -> None:
    """The most relevant hundred stand around one centre, the rest anywhere."""
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((500, 16))
    vectors[:100] = vectors[0] + 0.5 * vectors[:100]
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    relevance = np.linspace(1, 0, 500, dtype=np.float32)
    likeness = []
    for weight in (0.0, 0.1, 0.5):
        constraints = SlateConstraints.none(500, 20)
        slate = diversifier.select(relevance, vectors, np.arange(500), weight, np.inf, 20, constraints)
        picked = vectors[slate.picks]
        likeness.append(float((picked @ picked.T)[np.triu_indices(20, 1)].mean()))
    assert likeness == sorted(likeness, reverse=True)
    assert likeness[0] - likeness[-1] > 0.3
