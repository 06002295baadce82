import numpy as np
import pytest

from engine.features.popularity import PopularityTimeline
from engine.features.schema import ITEM_DYNAMIC, POPULARITY_WINDOWS_S

HOUR_MS = 3_600_000


def oracle(users: np.ndarray, rows: np.ndarray, timestamps_ms: np.ndarray, row: int, moment_ms: int) -> np.ndarray:
    """From the definition: each user as of their latest event before the moment."""
    latest: dict[int, int] = {}
    for user, r, t in zip(users.tolist(), rows.tolist(), timestamps_ms.tolist(), strict=True):
        if r == row and t < moment_ms:
            latest[user] = max(t, latest.get(user, t))
    ages_s = [(moment_ms - t) / 1000.0 for t in latest.values()]
    decayed = [sum(np.exp(-age / lifetime) for age in ages_s) for lifetime in POPULARITY_WINDOWS_S.values()]
    return np.log1p([*decayed, len(ages_s)])


@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_the_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    users, rows = rng.integers(0, 4, 60), rng.integers(0, 5, 60)
    timestamps_ms = 1_500_000_000_000 + rng.integers(0, 200, 60) * HOUR_MS  # hours, so that moments hit events exactly
    timeline = PopularityTimeline.build(users, rows, timestamps_ms, item_count=7)
    asked_rows = rng.integers(0, 7, (20, 4))
    moments_ms = 1_500_000_000_000 + rng.integers(-10, 210, 20) * HOUR_MS
    found = timeline.at(asked_rows, moments_ms[:, None])
    assert found.shape == (20, 4, len(ITEM_DYNAMIC))
    assert found.dtype == np.float32
    for i, moment_ms in enumerate(moments_ms):
        for j, row in enumerate(asked_rows[i]):
            expected = oracle(users, rows, timestamps_ms, row, moment_ms)
            np.testing.assert_allclose(found[i, j], expected, rtol=1e-5, atol=1e-6)


def test_later_events_change_nothing() -> None:
    rng = np.random.default_rng(0)
    rows, timestamps_ms = rng.integers(0, 10, 500), np.sort(rng.integers(0, 10**9, 500))
    users = rng.integers(0, 20, 500)
    cut_ms = int(timestamps_ms[300])
    early = timestamps_ms < cut_ms
    whole = PopularityTimeline.build(users, rows, timestamps_ms, 10)
    only_early = PopularityTimeline.build(users[early], rows[early], timestamps_ms[early], 10)
    np.testing.assert_allclose(whole.table(cut_ms), only_early.table(cut_ms), rtol=1e-6)


def test_an_event_does_not_count_at_its_own_moment() -> None:
    timeline = PopularityTimeline.build(np.array([0]), np.array([0]), np.array([1000]), 1)
    assert timeline.table(1000)[0, -1] == 0
    assert timeline.table(1001)[0, -1] == pytest.approx(np.log(2))


def test_no_events() -> None:
    timeline = PopularityTimeline.build(*[np.empty(0, np.int64)] * 3, 3)
    np.testing.assert_array_equal(timeline.table(10**12), np.zeros((3, len(ITEM_DYNAMIC))))
