import numpy as np

from engine.data.dataset import Interactions
from engine.training.ranker.exposure import Exposures
from engine.types import EventType

DAY_MS = 86_400_000
NOW = np.array([10 * DAY_MS])


def shown(rows: list[int], surface: int, time_ms: int, kind: EventType = EventType.IMPRESSION) -> Interactions:
    count = len(rows)
    zeros = np.zeros(count, np.int16)
    return Interactions(
        np.zeros(count, np.int32), np.array(rows, np.int32), np.full(count, kind, np.uint8),
        np.full(count, time_ms, np.int64), np.full(count, np.nan, np.float32), np.full(count, surface, np.int16),
        zeros, zeros,
    )  # fmt: skip


def exposure(events: Interactions, surface: int, now_ms: np.ndarray = NOW) -> np.ndarray:
    """Of four items, against that of the last one, which nobody is shown."""
    found = Exposures.of(events, 4).at(np.arange(4)[None], np.array([surface]), now_ms)[0]
    assert (found > 0).all()
    return found / found[3]


def test_without_impressions_every_item_has_the_same() -> None:
    np.testing.assert_allclose(exposure(shown([], 0, 0), 1), 1.0)
    np.testing.assert_allclose(exposure(shown([0, 0, 0], 1, 9 * DAY_MS, EventType.CLICK), 1), 1.0)


def test_many_impressions_count_in_proportion() -> None:
    events = shown([0] * 800 + [1] * 200 + [2] * 200, 1, int(NOW[0]) - DAY_MS)
    found = exposure(events, 1)
    assert 3.6 < found[0] / found[1] < 4.4
    assert found[1] == found[2] > 20


def test_a_surface_without_impressions_is_like_all_together() -> None:
    found = exposure(shown([0] * 800 + [1] * 200, 1, int(NOW[0]) - DAY_MS), 2)
    assert 3.6 < found[0] / found[1] < 4.4


def test_what_was_long_ago_counts_less_and_the_slate_itself_and_the_future_do_not_count() -> None:
    recent, older = (exposure(shown([0] * 50, 1, int(NOW[0]) - days * DAY_MS), 1) for days in (1, 9))
    assert recent[0] / recent[1] > 2 * older[0] / older[1] > 2
    for time_ms in (int(NOW[0]) - 60_000, int(NOW[0]), int(NOW[0]) + DAY_MS):
        np.testing.assert_allclose(exposure(shown([0] * 50, 1, time_ms), 1), 1.0)
