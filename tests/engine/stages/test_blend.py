import numpy as np

from engine.config import BlendConfig
from engine.stages.blend import BlendSettings, query_vector
from engine.types import EventType, Float32Array, Session

NOW_MS = 1_800_000_000_000
SETTINGS = BlendSettings.of(BlendConfig())
ITEMS = np.random.default_rng(1).normal(size=(20, 8)).astype(np.float32)
LONG_TERM = np.random.default_rng(2).normal(size=8).astype(np.float32)
AGES_S = (900, 300, 60, 5)


def mixed(until_ms: int, count: int = len(AGES_S)) -> Float32Array:
    """Clicks on the items 0, 1, …, of which the last `count` are known."""
    times = NOW_MS - 1000 * np.array(AGES_S, np.int64)[-count:]
    rows = np.arange(len(AGES_S))[-count:]
    session = Session(rows, np.full(count, EventType.CLICK, np.uint8), times)
    return query_vector(LONG_TERM, until_ms, session, rows, ITEMS, NOW_MS, SETTINGS)


def test_events_that_the_vector_has_read_are_not_mixed_in_again() -> None:
    np.testing.assert_array_equal(mixed(NOW_MS - 300_000), mixed(0, count=2))
    assert not np.array_equal(mixed(NOW_MS - 300_000), mixed(0))
    # One more millisecond, and the second event is news.
    np.testing.assert_array_equal(mixed(NOW_MS - 300_001), mixed(0, count=3))


def test_a_vector_that_has_read_everything_is_left_as_it_is() -> None:
    assert mixed(NOW_MS - 5000) is LONG_TERM
    assert query_vector(LONG_TERM, 0, Session.empty(), np.empty(0, np.int64), ITEMS, NOW_MS, SETTINGS) is LONG_TERM


def test_a_vector_that_has_read_nothing_takes_the_whole_session_and_keeps_its_length() -> None:
    vector = mixed(0)
    assert not np.array_equal(vector, LONG_TERM)
    np.testing.assert_allclose(np.linalg.norm(vector), np.linalg.norm(LONG_TERM), rtol=1e-5)
