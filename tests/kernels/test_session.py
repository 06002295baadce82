import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.kernels import session
from tests.kernels import naive

NOW_MS = 1_750_000_000_000
WEIGHTS = np.array([0.0, 1.0, 2.0, 3.0], np.float32)


def frozen(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(0, 40), dim=st.sampled_from([1, 5, 64]))
@settings(deadline=None, max_examples=150)
def test_session_vector_matches_the_oracle(seed: int, count: int, dim: int) -> None:
    rng = np.random.default_rng(seed)
    # A slice of columns with a hole in the middle: the strided table of a wider file.
    table = rng.standard_normal((30, dim * 2)).astype(np.float32)[::2, : dim + dim // 2]
    table[3] = 0.0
    events = (
        frozen(rng.integers(-1, 17, count)),
        frozen(rng.integers(0, 6, count).astype(np.uint8)),
        frozen(NOW_MS + rng.integers(-2_500_000, 60_000, count)),
    )
    vector, evidence = session.session_vector(frozen(table), dim, *events, NOW_MS, 300.0, frozen(WEIGHTS.copy()))
    expected, expected_evidence = naive.session_vector(table, dim, *events, NOW_MS, 300.0, WEIGHTS, 1800.0)
    ages_s = [
        max(NOW_MS - timestamp_ms, 0) / 1000
        for row, kind, timestamp_ms in zip(*(values.tolist() for values in events), strict=True)
        if 0 <= row < len(table) and kind < len(WEIGHTS) and WEIGHTS[kind] > 0 and NOW_MS - timestamp_ms <= 1_800_000
    ]
    _, _, numbers = session.session_summary(table, dim, *events, NOW_MS, 300.0, WEIGHTS)
    assert numbers.dtype == np.float32
    told = np.log1p([expected_evidence, len(ages_s), min(ages_s, default=1800.0)])
    np.testing.assert_allclose(numbers, told, rtol=1e-6)
    # Both sum in float64; the result is rounded to float32 once, and 2 ** x differs by an ulp between libraries.
    np.testing.assert_allclose(vector, expected, atol=1e-6)
    assert evidence == pytest.approx(expected_evidence, rel=1e-9)
    assert vector.dtype == np.float32
    assert vector.shape == (dim,)


def one_event(row: int, kind: int, age_ms: int) -> tuple[np.ndarray, float]:
    return session.session_vector(
        np.diag(np.array([2, 5], np.float32)),
        2,
        np.array([row]),
        np.array([kind], np.uint8),
        np.array([NOW_MS - age_ms]),
        NOW_MS,
        600.0,
        WEIGHTS,
        window_s=1200.0,
    )


def test_an_event_halves_every_half_life_and_direction_is_unit_length() -> None:
    for age_ms, weight in ((0, 2.0), (600_000, 1.0), (1_200_000, 0.5)):
        vector, evidence = one_event(1, 2, age_ms)
        assert evidence == pytest.approx(weight)
        np.testing.assert_allclose(vector, [0, 1], atol=1e-6)


@pytest.mark.parametrize(
    ("row", "kind", "age_ms"),
    [(-1, 1, 0), (2, 1, 0), (0, 0, 0), (0, 9, 0), (0, 1, 1_200_001)],
    ids=["unknown item", "row past the table", "weightless type", "unknown type", "outside the window"],
)
def test_what_does_not_count_leaves_no_evidence(row: int, kind: int, age_ms: int) -> None:
    vector, evidence = one_event(row, kind, age_ms)
    assert evidence == 0.0
    assert vector.tolist() == [0.0, 0.0]


def test_an_event_from_the_future_counts_as_now() -> None:
    assert one_event(0, 1, -10_000_000)[1] == 1.0


def test_items_without_direction_are_skipped() -> None:
    table = np.array([[0, 0], [np.nan, 1], [np.inf, 0], [0, 4]], np.float32)
    rows = np.arange(4)
    kinds = np.ones(4, np.uint8)
    times = np.full(4, NOW_MS)
    vector, evidence = session.session_vector(table, 2, rows, kinds, times, NOW_MS, 60.0, WEIGHTS)
    assert evidence == 1.0
    assert vector.tolist() == [0.0, 1.0]


def test_bad_arguments_are_refused() -> None:
    rows, kinds, times = np.zeros(1, np.int64), np.ones(1, np.uint8), np.zeros(1, np.int64)
    table = np.ones((1, 2), np.float32)
    with pytest.raises(ValueError, match="no vectors of 3"):
        session.session_vector(table, 3, rows, kinds, times, 0, 1.0, WEIGHTS)
    with pytest.raises(ValueError, match="differ"):
        session.session_vector(table, 2, rows, kinds[:0], times, 0, 1.0, WEIGHTS)
    for half_life_s in (0.0, float("nan")):
        with pytest.raises(ValueError, match="positive"):
            session.session_vector(table, 2, rows, kinds, times, 0, half_life_s, WEIGHTS)


@given(
    seed=st.integers(0, 2**32 - 1),
    dim=st.sampled_from([2, 7, 64]),
    length=st.floats(1e-3, 1e3),
    evidence=st.floats(0, 100),
    evidence_half=st.floats(0.01, 10),
)
@settings(deadline=None, max_examples=200)
def test_blend_matches_the_oracle_and_keeps_the_length(
    seed: int, dim: int, length: float, evidence: float, evidence_half: float
) -> None:
    rng = np.random.default_rng(seed)
    long_term = frozen((naive.unit(rng.standard_normal(dim)) * length).astype(np.float32))
    recent = frozen(rng.standard_normal(dim).astype(np.float32))
    mixed = session.blend(long_term, recent, evidence, evidence_half)
    # The two may nearly cancel out, which magnifies the rounding of float32 inputs: 1e-4 of the length allows for it.
    np.testing.assert_allclose(mixed, naive.blend(long_term, recent, evidence, evidence_half), atol=1e-4 * length)
    assert np.linalg.norm(mixed) == pytest.approx(np.linalg.norm(long_term), rel=1e-5)


def test_no_evidence_returns_the_long_term_vector_bit_for_bit() -> None:
    long_term = np.random.default_rng(0).standard_normal(64).astype(np.float32)
    for recent, evidence in ((np.ones(64, np.float32), 0.0), (np.zeros(64, np.float32), 5.0)):
        mixed = session.blend(long_term, recent, evidence, 1.0)
        assert mixed.tobytes() == long_term.tobytes()
        assert not np.shares_memory(mixed, long_term)


def test_half_evidence_weighs_both_the_same() -> None:
    mixed = session.blend(np.array([4, 0], np.float32), np.array([0, 0.1], np.float32), 3.0, 3.0)
    np.testing.assert_allclose(mixed, np.array([4, 4]) / np.sqrt(2), rtol=1e-6)


def test_blend_edges() -> None:
    zero, x, minus_x = (np.array([value, 0], np.float32) for value in (0, 1, -1))
    assert session.blend(zero, x, 1.0, 1.0).tolist() == [1, 0]
    assert session.blend(zero, zero, 1.0, 1.0).tolist() == [0, 0]
    assert session.blend(x, minus_x, 1.0, 1.0).tolist() == [1, 0]
    assert session.blend(x, minus_x, 1.0, 0.0).tolist() == [-1, 0]
    assert session.blend(x, minus_x, float("inf"), 1.0).tolist() == [-1, 0]
    with pytest.raises(ValueError, match="differ"):
        session.blend(x, np.ones(3, np.float32), 1.0, 1.0)
    with pytest.raises(ValueError, match="negative"):
        session.blend(x, x, float("nan"), 1.0)


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(0, 20))
@settings(deadline=None, max_examples=50)
def test_a_blended_session_is_its_parts_one_by_one(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    table = rng.standard_normal((30, 12)).astype(np.float32)[:, :8]
    long_term = frozen(rng.standard_normal(8).astype(np.float32))
    rows, kinds = rng.integers(-1, 31, count), rng.integers(0, 6, count).astype(np.uint8)
    times = NOW_MS + rng.integers(-2_500_000, 60_000, count)
    read_until_ms = NOW_MS - 900_000
    mixed, *whole = session.blended_session(
        long_term, read_until_ms, frozen(table), frozen(rows), frozen(kinds), frozen(times), NOW_MS,
        300.0, WEIGHTS, 1500.0, 2.0, 60.0, frozen(WEIGHTS[::-1].copy()), 1200.0,
    )  # fmt: skip
    unread = np.where(times > read_until_ms, rows, -1)
    recent = session.session_vector(table, 8, unread, kinds, times, NOW_MS, 300.0, WEIGHTS, 1500.0)
    np.testing.assert_array_equal(mixed, session.blend(long_term, *recent, 2.0))
    summary = session.session_summary(table, 8, rows, kinds, times, NOW_MS, 60.0, WEIGHTS[::-1].copy(), 1200.0)
    for found, expected in zip(whole, summary, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_blended_session_refuses_what_its_parts_refuse() -> None:
    table, rows, kinds = np.ones((2, 3), np.float32), np.zeros(1, np.int64), np.zeros(1, np.uint8)

    def blended(dim: int = 3, half_life_s: float = 1.0, evidence_half: float = 1.0, window_s: float = 1.0) -> None:
        session.blended_session(
            np.ones(dim, np.float32), 0, table, rows, kinds, rows, 0, half_life_s, WEIGHTS, 1.0, evidence_half,
            1.0, WEIGHTS, window_s,
        )  # fmt: skip

    blended()
    with pytest.raises(ValueError, match="no vectors of 4"):
        blended(dim=4)
    with pytest.raises(ValueError, match="positive"):
        blended(half_life_s=0.0)
    with pytest.raises(ValueError, match="positive"):
        blended(window_s=0.0)
    with pytest.raises(ValueError, match="negative"):
        blended(evidence_half=-1.0)
