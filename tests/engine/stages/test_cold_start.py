"""Candidates for strangers: popular, steered by the session, and not the same for everybody."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.bundle.popularity import Popularity, PopularityList, surface_key
from engine.stages.cold_start import append_backfill, popular_candidates, randomize, rerank_by_session
from engine.types import Candidates, Demographics, ItemSource, Strategy

RNG = np.random.default_rng(0)
VECTORS = RNG.normal(size=(400, 8)).astype(np.float32)


def popular(count: int) -> Candidates:
    scores = (1.0 / np.arange(2, count + 2)).astype(np.float32)
    return Candidates.of(np.arange(count, dtype=np.int64), scores, ItemSource.SEGMENT_POPULARITY)


def near(rows: list[int]) -> Candidates:
    return Candidates.of(np.array(rows, np.int64), np.ones(len(rows), np.float32), ItemSource.SESSION)


def test_a_coarser_list_goes_on_where_a_finer_one_ends() -> None:
    def ranked(*rows: int, top: float) -> PopularityList:
        scores = (top / np.arange(1, len(rows) + 1)).astype(np.float32)
        return PopularityList(np.array(rows, np.int32), scores)

    lists = Popularity(ranked(5, 4, 3, 2, 1, 0, top=0.9), {surface_key("home"): ranked(0, 1, top=0.01)})
    found, strategy = popular_candidates(lists, Demographics(), "home", np.full(1, 0xFF, np.uint8), 5)
    assert strategy is Strategy.POPULARITY
    assert found.rows.tolist() == [0, 1, 5, 4, 3]
    # Shares of different lists do not compare: nobody who sorts by score may bring the coarser list to the front.
    assert (np.diff(found.scores) <= 0).all()
    assert found.sources.tolist() == [ItemSource.SURFACE_POPULARITY] * 2 + [ItemSource.GLOBAL_POPULARITY] * 3


def test_without_weight_popularity_decides_and_with_all_of_it_nearness_does() -> None:
    vector = VECTORS[350].copy()
    candidates = near([350, 3, 360, 100])
    only_popular = rerank_by_session(popular(100), candidates, vector, VECTORS, 0.0)
    assert only_popular.rows[:99].tolist() == list(range(99))
    assert set(only_popular.rows.tolist()) == {*range(100), 350, 360, 100}
    only_near = rerank_by_session(popular(100), candidates, vector, VECTORS, 1.0)
    units = VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)
    cosines = units[only_near.rows] @ vector
    assert (np.diff(cosines) <= 1e-5).all()
    assert only_near.rows[0] == 350
    assert only_near.sources[0] == ItemSource.SESSION
    # An item of both roads says that it is popular.
    assert only_near.sources[only_near.rows.tolist().index(3)] == ItemSource.SEGMENT_POPULARITY


@given(st.floats(0, 1), st.sets(st.integers(0, 60), max_size=10), st.integers(0, 40))
def test_scores_of_the_mix_are_those_that_are_promised(weight: float, close: set[int], count: int) -> None:
    """exp(mix - 1) with each part brought to [0, 1]: falling, above 0.36, and 1 for what is best in both."""
    vector = VECTORS[0].copy()
    found = rerank_by_session(popular(count), near(sorted(close)), vector, VECTORS, weight)
    rows = [*range(count), *sorted(close - set(range(count)))]
    if not rows:
        assert len(found) == 0
        return
    units = VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)
    cosines = units[rows] @ vector
    shares = np.log(1.0 / np.arange(2, count + 2)) if count else np.empty(0)
    parts = []
    for values, missing in ((shares, len(rows) - count), (cosines, 0)):
        low, high = min(values, default=0.0), max(values, default=1.0)
        scaled = (values - low) / (high - low) if high > low else np.ones(len(values))
        parts.append(np.concatenate([scaled, np.zeros(missing)]))
    expected = dict(zip(rows, np.exp((1 - weight) * parts[0] + weight * parts[1] - 1), strict=True))
    assert sorted(found.rows.tolist()) == sorted(rows)
    assert found.scores == pytest.approx([expected[row] for row in found.rows.tolist()], rel=1e-4)
    assert (np.diff(found.scores) <= 0).all()
    # What is in both says that it is popular.
    for row, source in zip(found.rows.tolist(), found.sources.tolist(), strict=True):
        assert source == (ItemSource.SEGMENT_POPULARITY if row < count else ItemSource.SESSION)


def test_more_evidence_moves_the_slate_further() -> None:
    vector = VECTORS[350].copy()
    candidates = near(list(range(300, 400)))
    units = VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)
    closeness = [
        float((units[rerank_by_session(popular(100), candidates, vector, VECTORS, weight).rows[:20]] @ vector).mean())
        for weight in (0.0, 0.3, 0.6, 1.0)
    ]
    assert closeness == sorted(closeness)
    assert closeness[0] < closeness[-1]


@given(st.integers(0, 60), st.integers(1, 50), st.floats(0, 0.5), st.text(max_size=5), st.integers(0, 5))
def test_rotation_is_bounded_and_steady(count: int, slate: int, share: float, user: str, period: int) -> None:
    given_ones = popular(count)
    turned = randomize(given_ones, slate, share, user, period)
    assert sorted(turned.rows.tolist()) == list(range(count))
    assert (np.diff(turned.scores) <= 0).all()
    changed = set(turned.rows[:slate].tolist()) - set(range(slate))
    assert len(changed) <= int(share * slate)
    assert all(row < 3 * slate for row in changed)
    again = randomize(given_ones, slate, share, user, period)
    assert again.rows.tolist() == turned.rows.tolist()


def test_people_and_hours_get_different_lists() -> None:
    lists = {tuple(randomize(popular(200), 50, 0.2, f"user-{number}", 0).rows[:50].tolist()) for number in range(50)}
    assert len(lists) == 50
    hours = {tuple(randomize(popular(200), 50, 0.2, "user", hour).rows[:50].tolist()) for hour in range(50)}
    assert len(hours) == 50
    # Everything that may come up does, and nothing does always but what rotation leaves alone.
    shown = np.bincount(np.concatenate([list(one) for one in lists]), minlength=200)
    assert (shown[:50] > 0).all()
    assert (shown[50:150] > 0).sum() > 90
    assert not shown[150:].any()


@given(
    st.lists(st.floats(-2, 2, width=32), max_size=5),
    st.lists(st.floats(0, 1, width=32), min_size=1, max_size=5),
)
def test_what_is_put_behind_stays_behind(first: list[float], more: list[float]) -> None:
    there = Candidates.of(
        np.arange(len(first)), np.array(sorted(first, reverse=True), np.float32), ItemSource.RETRIEVAL
    )
    extra = Candidates.of(
        np.arange(100, 100 + len(more)), np.array(sorted(more, reverse=True), np.float32), ItemSource.BACKFILL
    )
    joined = append_backfill(there, extra)
    assert joined.rows.tolist() == [*there.rows.tolist(), *extra.rows.tolist()]
    assert (np.diff(joined.scores) <= 0).all()
    if first and first != [0.0] and min(first) > 1e-30:
        assert joined.scores[len(first)] < there.scores[-1]
