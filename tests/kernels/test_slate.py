"""Both objectives under constraints, held against the oracle; what each objective is, is tested beside it."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from engine.kernels.constraints import RELAXED_CAP, RELAXED_DUPLICATE, RELAXED_SHARE, SlateConstraints
from engine.kernels.slate import Slate, select_slate
from engine.kernels.unit_rows import gather_unit_rows
from tests.kernels import naive
from tests.kernels.slates import SlateProblem, random_constraints, random_problem

OBJECTIVES = pytest.mark.parametrize("determinantal", [False, True], ids=["mmr", "dpp"])


@OBJECTIVES
@given(seed=st.integers(0, 2**32 - 1), relevance_weight=st.sampled_from([0.0, 0.3, 0.7, 1.0]))
@settings(deadline=None, max_examples=80)
def test_every_pick_breaks_least_and_is_then_the_greedy_one(
    determinantal: bool, seed: int, relevance_weight: float
) -> None:
    """Steps are compared, and not whole slates: float32 may swap two near ties, and all later steps then differ."""
    problem = random_problem(np.random.default_rng(seed))
    rules = problem.constraints
    near = problem.embeddings @ problem.embeddings.T
    # A cosine that lies on the threshold may fall to either side. At 1 the kernel means "identical", rounding aside.
    duplicate_similarity = problem.duplicate_similarity - 1e-6
    assume(not (np.abs(near - duplicate_similarity) < 5e-7).any())
    slate = select_slate(
        determinantal, problem.relevance, problem.embeddings, relevance_weight, problem.slate_size,
        problem.duplicate_similarity, rules,
    )  # fmt: skip
    picks = slate.picks.tolist()
    assert len(set(picks)) == len(picks) == len(slate.penalties) == len(slate.relaxed) == problem.count
    fixed = rules.fixed[: problem.count].tolist()
    for position, pick in enumerate(picks):
        relaxed = naive.relaxed_rules(picks, position, problem.embeddings, duplicate_similarity, rules)
        assert slate.relaxed[position] == relaxed
        if fixed[position] >= 0:
            assert pick == fixed[position]
            free = [pick]
        else:
            free = [item for item in range(len(problem.relevance)) if item not in {*picks[:position], *fixed}]
        broken = {
            item: naive.broken_rules(picks, position, item, problem.embeddings, duplicate_similarity, rules)
            for item in free
        }
        assert broken[pick] == min(broken.values())
        rivals = [item for item in free if broken[item] == broken[pick]]
        _assert_best(determinantal, problem, relevance_weight, slate, position, rivals)


def _assert_best(
    determinantal: bool,
    problem: SlateProblem,
    relevance_weight: float,
    slate: Slate,
    position: int,
    rivals: list[int],
) -> None:
    """The pick scores highest of its rivals and its penalty is right, as far as float32 can tell."""
    pick, penalty, earlier = slate.picks[position], slate.penalties[position], slate.picks[:position].tolist()
    if not earlier:
        assert penalty == 0.0
    elif determinantal and np.linalg.eigvalsh(naive.dpp_kernel(problem.embeddings[earlier]))[0] < 1e-2:
        return  # what the picks leave unexplained is the difference of two nearly equal numbers
    scores = naive.slate_scores(determinantal, problem.relevance, problem.embeddings, relevance_weight, earlier)
    tolerance = {}
    for item in rivals:
        tolerance[item] = 5e-6
        if earlier:
            expected = naive.slate_penalty(determinantal, problem.embeddings, relevance_weight, earlier, item)
            if determinantal and relevance_weight < 1.0:
                # The logarithm of a residual is off by the residual's error over the residual.
                diversity_weight = 1.0 - relevance_weight
                tolerance[item] += diversity_weight * 1e-5 * math.exp(expected / diversity_weight)
            if item == pick:
                assert penalty == pytest.approx(expected, abs=tolerance[item])
    for item in rivals:
        assert scores[item] <= scores[pick] or scores[item] - scores[pick] <= tolerance[item] + tolerance[pick]


@given(data=st.data(), count=st.integers(1, 12), k=st.integers(0, 14), weight=st.sampled_from([0.0, 0.25, 0.5, 1.0]))
@settings(deadline=None, max_examples=200)
def test_exact_arithmetic_gives_the_oracles_slate_ties_included(
    data: st.DataObject, count: int, k: int, weight: float
) -> None:
    """Axis vectors and quarters are exact in both precisions, so that ties are real and the slates must be equal."""
    embeddings = np.zeros((count, 3), np.float32)
    for item, axis in enumerate(data.draw(st.lists(st.integers(-1, 2), min_size=count, max_size=count))):
        if axis >= 0:  # -1 leaves a zero vector
            embeddings[item, axis] = data.draw(st.sampled_from([1.0, -1.0]))
    quarters = data.draw(st.lists(st.integers(-4, 4), min_size=count, max_size=count))
    relevance = np.array(quarters, np.float32) / 4
    rules = random_constraints(np.random.default_rng(data.draw(st.integers(0, 1000))), count, k)
    duplicate_similarity = data.draw(st.sampled_from([0.5, 1.0, np.inf]))
    picks = select_slate(False, relevance, embeddings, weight, k, duplicate_similarity, rules).picks
    assert picks.tolist() == naive.select_slate(False, relevance, embeddings, weight, duplicate_similarity, rules)


def rules_for(count: int, slate_size: int, **changes: np.ndarray) -> SlateConstraints:
    return dataclasses.replace(SlateConstraints.none(count, slate_size), **changes)


def falling(count: int) -> np.ndarray:
    return np.linspace(1, 0, count, dtype=np.float32)


@OBJECTIVES
def test_a_near_duplicate_gives_way_before_a_share_and_a_share_before_a_cap(determinantal: bool) -> None:
    """After the first item, each of the others breaks one rule; the fourth is a member, though no longer wanted."""
    embeddings = np.eye(4, dtype=np.float32)[[0, 1, 2, 0]]
    rules = rules_for(
        4, 4, groups=np.array([[7, 7, 8, 9]], np.int32), cap_limits=np.array([1]), cap_windows=np.array([4]),
        members=np.array([[1, 1, 0, 1]], np.uint8), min_shares=np.array([1.0]),
    )  # fmt: skip
    slate = select_slate(determinantal, falling(4), embeddings, 1.0, 4, 0.9, rules)
    assert slate.picks.tolist() == [0, 3, 2, 1]
    assert slate.relaxed.tolist() == [0, RELAXED_DUPLICATE, RELAXED_SHARE, RELAXED_CAP | RELAXED_SHARE]


@OBJECTIVES
def test_a_window_lets_a_group_back_in(determinantal: bool) -> None:
    rules = rules_for(
        6, 6, groups=np.array([[0, 0, 0, 1, 1, -1]], np.int32), cap_limits=np.array([1]), cap_windows=np.array([2])
    )
    slate = select_slate(determinantal, falling(6), np.eye(6, dtype=np.float32), 1.0, 6, np.inf, rules)
    assert slate.picks.tolist() == [0, 3, 1, 4, 2, 5]
    assert not slate.relaxed.any()


@OBJECTIVES
def test_caps_and_shares_make_room_for_what_is_fixed_further_on(determinantal: bool) -> None:
    rules = rules_for(
        5, 3, groups=np.array([[0, 1, 0, 1, 1]], np.int32), cap_limits=np.array([1]), cap_windows=np.array([2]),
        fixed=np.array([-1, -1, 2]),
    )  # fmt: skip
    slate = select_slate(determinantal, falling(5), np.eye(5, dtype=np.float32), 1.0, 3, np.inf, rules)
    assert slate.picks.tolist() == [0, 1, 2]
    rules = rules_for(
        5, 2, members=np.array([[0, 0, 0, 1, 1]], np.uint8), min_shares=np.array([0.5]), fixed=np.array([-1, 0])
    )
    slate = select_slate(determinantal, falling(5), np.eye(5, dtype=np.float32), 1.0, 2, np.inf, rules)
    assert slate.picks.tolist() == [3, 0]
    assert not slate.relaxed.any()


@OBJECTIVES
def test_a_place_past_the_end_of_a_short_slate_fixes_nothing(determinantal: bool) -> None:
    rules = rules_for(2, 4, fixed=np.array([-1, -1, -1, 0]))
    slate = select_slate(determinantal, falling(2), np.eye(2, dtype=np.float32), 0.5, 4, np.inf, rules)
    assert slate.picks.tolist() == [0, 1]


@OBJECTIVES
def test_relevance_that_is_not_finite_sinks_but_rules_come_first(determinantal: bool) -> None:
    relevance = np.array([np.nan, 0.5, 0.4, np.inf], np.float32)
    embeddings = np.eye(4, dtype=np.float32)
    assert select_slate(determinantal, relevance, embeddings, 0.5, 4, np.inf, None).picks.tolist() == [1, 2, 0, 3]
    rules = rules_for(
        4, 4, groups=np.array([[1, 0, 0, 1]], np.int32), cap_limits=np.array([1]), cap_windows=np.array([2])
    )
    slate = select_slate(determinantal, relevance, embeddings, 0.5, 4, np.inf, rules)
    assert slate.picks.tolist() == [1, 0, 2, 3]
    assert not slate.relaxed.any()


BAD = {
    "cap_limits": {"groups": np.zeros((1, 3), np.int32), "cap_limits": np.array([-1]), "cap_windows": np.array([1])},
    "cap_windows": {"groups": np.zeros((1, 3), np.int32), "cap_limits": np.array([1]), "cap_windows": np.array([0])},
    "do not match over": {"groups": np.zeros((1, 3), np.int32)},
    "members of shape": {"members": np.zeros((1, 3), np.uint8)},
    "min_shares must": {"members": np.zeros((1, 3), np.uint8), "min_shares": np.array([np.nan])},
    "different ones": {"fixed": np.array([1, 1])},
    "of 3 candidates": {"fixed": np.array([-1, 3])},
    "positions": {"fixed": np.array([-1])},
}


@pytest.mark.parametrize("message", BAD)
def test_constraints_that_do_not_fit_are_refused(message: str) -> None:
    with pytest.raises(ValueError, match=message):
        select_slate(False, falling(3), np.eye(3, dtype=np.float32), 0.5, 2, np.inf, rules_for(3, 2, **BAD[message]))


def test_a_threshold_that_is_not_a_number_is_refused() -> None:
    with pytest.raises(ValueError, match="duplicate_similarity"):
        select_slate(False, falling(3), np.eye(3, dtype=np.float32), 0.5, 2, np.nan, None)


@OBJECTIVES
@given(seed=st.integers(0, 2**32 - 1), relevance_weight=st.sampled_from([0.0, 0.5, 0.9, 1.0]))
@settings(deadline=None, max_examples=80)
def test_rows_of_a_table_give_the_slate_of_their_unit_vectors(
    determinantal: bool, seed: int, relevance_weight: float
) -> None:
    """Of a strided table, of rows of any length, in any order and more than once."""
    rng = np.random.default_rng(seed)
    problem = random_problem(rng)
    items, dim = 2 * len(problem.relevance) + 1, problem.embeddings.shape[1]
    rows = rng.integers(0, items, len(problem.relevance))
    table = rng.standard_normal((items, dim + 3)).astype(np.float32)
    table[rows, 1 : dim + 1] = problem.embeddings * rng.uniform(0.1, 10.0, (len(rows), 1)).astype(np.float32)
    table.flags.writeable = False
    arguments = (relevance_weight, problem.slate_size, problem.duplicate_similarity, problem.constraints)
    units = gather_unit_rows(table[:, 1 : dim + 1], rows, dim)
    expected = select_slate(determinantal, problem.relevance, units, *arguments)
    found = select_slate(determinantal, problem.relevance, table[:, 1 : dim + 1], *arguments, rows)
    # Scaled once or twice, a component may differ in its last bit; where that decides, either order is right.
    near = units @ units.T
    assume(not (np.abs(near - (problem.duplicate_similarity - 1e-6)) < 5e-7).any())
    np.testing.assert_allclose(found.penalties, expected.penalties, atol=1e-5)
    np.testing.assert_array_equal(found.relaxed, expected.relaxed)


@pytest.mark.parametrize("row", [-1, 3])
def test_a_row_outside_the_table_is_refused(row: int) -> None:
    with pytest.raises(IndexError, match=r"\[0, 3\)"):
        select_slate(False, falling(2), np.eye(3, dtype=np.float32), 0.5, 2, np.inf, None, np.array([0, row]))
