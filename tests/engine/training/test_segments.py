import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.training.popular import OVERALL_STRENGTH, STRENGTHS, Segments, _LeftOut, smooth

ITEMS = 40


def users(seed: int, users: int, taste: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes (users, 3), and ten events a user: with the share `taste` on items of the user's age, else on any."""
    rng = np.random.default_rng(seed)
    codes = np.stack([rng.integers(0, 5, users), rng.integers(0, 3, users), np.zeros(users, np.int64)], axis=1)
    who = np.repeat(np.arange(users), 10)
    own = rng.random(len(who)) < taste
    rows = np.where(own, codes[who, 0] * 8 + rng.integers(0, 8, len(who)), rng.integers(0, ITEMS, len(who)))
    return codes, who, rows


def overall_of(rows: np.ndarray) -> np.ndarray:
    return smooth(np.bincount(rows, minlength=ITEMS), np.full(ITEMS, 1 / ITEMS), OVERALL_STRENGTH)


def test_a_segment_that_differs_is_believed_and_one_that_does_not_equals_its_parent() -> None:
    codes, who, rows = users(1, 600, taste=0.5)
    segments = Segments.of(codes, who, rows, overall_of(rows))
    strengths = {names: level.strength for names, level in segments.levels.items()}
    assert ("signup_source",) not in strengths
    assert strengths["age_group",] < 1_000
    assert strengths["location",] > 10 * strengths["age_group",]
    overall = overall_of(rows)
    for level, level_codes, shares in segments.shares(100):
        assert shares.sum() == pytest.approx(1.0)
        assert (shares > 0).all()
        if level == ("age_group",):
            best = np.argsort(-shares)[:8]
            assert set(best.tolist()) == set(range(level_codes[0] * 8, level_codes[0] * 8 + 8))
        if level == ("location",):
            np.testing.assert_allclose(shares, overall, rtol=0.35)
    pure_noise = Segments.of(*users(2, 600, taste=0.0), overall_of(users(2, 600, taste=0.0)[2]))
    assert pure_noise.levels["age_group",].strength > 3_000


def test_a_tiny_segment_nearly_equals_its_parents_without_a_cut() -> None:
    codes, who, rows = users(3, 400, taste=0.5)
    codes[:, 1] = 1
    codes[7] = (4, 2, 0)
    segments = Segments.of(codes, who, rows, overall_of(rows))
    shares = {(level, tuple(level_codes.tolist())): share for level, level_codes, share in segments.shares(100)}
    tiny = shares[("age_group", "location"), (4, 2)]
    parents = np.mean([shares[("age_group",), (4,)], shares[("location",), (2,)]], axis=0)
    strength = segments.levels["age_group", "location"].strength
    np.testing.assert_allclose(tiny, smooth(np.bincount(rows[who == 7], minlength=ITEMS), parents, strength))
    assert np.abs(tiny - parents).max() <= 10 / (10 + strength)


def test_the_limit_keeps_the_segments_with_the_most_people() -> None:
    codes, who, rows = users(4, 300, taste=0.2)
    kept = [codes_ for level, codes_, _ in Segments.of(codes, who, rows, overall_of(rows)).shares(2) if len(level) == 1]
    ages = np.bincount(codes[:, 0], minlength=5)[1:]
    assert {int(code[0]) for code in kept[:2]} == {int(age) + 1 for age in np.argsort(-ages)[:2]}


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), strength=st.sampled_from(STRENGTHS.tolist()))
def test_a_person_is_left_out_of_what_others_took(seed: int, strength: float) -> None:
    codes, who, rows = users(seed, 25, taste=0.3)
    pairs = _LeftOut.of(who, rows, ITEMS)
    of_user = codes[:, 0] - 1
    parent = np.random.default_rng(seed).random(len(pairs.users))
    found = pairs.smoothed(of_user, parent, strength)
    for pair in range(0, len(found), 5):
        user, row = pairs.users[pair], pairs.rows[pair]
        if of_user[user] < 0:
            assert found[pair] == 0
            continue
        others = np.isin(who, np.flatnonzero((of_user == of_user[user]) & (np.arange(25) != user)))
        expected = (np.count_nonzero(rows[others] == row) + strength * parent[pair]) / (others.sum() + strength)
        assert found[pair] == pytest.approx(expected)


def test_nobody_known_gives_no_level() -> None:
    codes, who, rows = users(5, 20, taste=0.3)
    assert not Segments.of(0 * codes, who, rows, overall_of(rows)).levels
    assert not Segments.of(codes, who[:0], rows[:0], np.full(ITEMS, 1 / ITEMS)).levels
