from dataclasses import replace

import numpy as np

from engine.config.serving import BlendConfig
from engine.features.session import session_signal
from engine.features.state import Session
from engine.stages.blend import BlendSettings, blend_session
from engine.types import EventType, Float32Array

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
    return blend_session(LONG_TERM, until_ms, session, rows, ITEMS, NOW_MS, SETTINGS, SETTINGS.session)[0]


def test_events_that_the_vector_has_read_are_not_mixed_in_again() -> None:
    np.testing.assert_array_equal(mixed(NOW_MS - 300_000), mixed(0, count=2))
    assert not np.array_equal(mixed(NOW_MS - 300_000), mixed(0))
    # One more millisecond, and the second event is news.
    np.testing.assert_array_equal(mixed(NOW_MS - 300_001), mixed(0, count=3))


def test_a_vector_that_has_read_everything_is_left_as_it_is() -> None:
    np.testing.assert_array_equal(mixed(NOW_MS - 5000), LONG_TERM)
    nothing = Session.empty(), np.empty(0, np.int64)
    vector, signal = blend_session(LONG_TERM, 0, *nothing, ITEMS, NOW_MS, SETTINGS, SETTINGS.session)
    np.testing.assert_array_equal(vector, LONG_TERM)
    assert signal.evidence == 0


def test_a_vector_of_the_future_has_read_nothing_that_is_known() -> None:
    """A wrong clock once said what the vector has read; nothing that its user does may be taken for read by that."""
    np.testing.assert_array_equal(mixed(4_070_908_800_000), mixed(0))
    # A request that asks as of an earlier moment is not a wrong clock of the vector.
    rows, times = np.arange(len(AGES_S)), NOW_MS - 1000 * np.array(AGES_S, np.int64)
    session = Session(rows, np.full(len(rows), EventType.CLICK, np.uint8), times)
    asked_ms = NOW_MS - 30 * 86_400_000
    vector = blend_session(LONG_TERM, NOW_MS, session, rows, ITEMS, asked_ms, SETTINGS, SETTINGS.session)[0]
    np.testing.assert_array_equal(vector, LONG_TERM)


def test_the_clock_of_a_vector_is_held_against_the_latest_event() -> None:
    """A user who was away for days has read up to today; asked as of last month, that is still no wrong clock."""
    times = NOW_MS - 86_400_000 * np.array([9, 8, 0], np.int64)
    session = Session(np.arange(3), np.full(3, EventType.CLICK, np.uint8), times)
    asked_ms = NOW_MS - 30 * 86_400_000
    vector = blend_session(LONG_TERM, NOW_MS, session, np.arange(3), ITEMS, asked_ms, SETTINGS, SETTINGS.session)[0]
    np.testing.assert_array_equal(vector, LONG_TERM)
    # A day ahead of all that is known is a clock that is off; more than that is a wrong one.
    np.testing.assert_array_equal(mixed(NOW_MS + 86_400_000), LONG_TERM)
    np.testing.assert_array_equal(mixed(NOW_MS + 86_400_001), mixed(0))


def test_the_ranker_reads_all_of_the_session_by_settings_of_its_own() -> None:
    reading = replace(SETTINGS.session, half_life_s=50.0, window_s=400.0)
    rows, times = np.arange(len(AGES_S)), NOW_MS - 1000 * np.array(AGES_S, np.int64)
    session = Session(rows, np.full(len(rows), EventType.CLICK, np.uint8), times)
    vector, signal = blend_session(LONG_TERM, NOW_MS - 60_000, session, rows, ITEMS, NOW_MS, SETTINGS, reading)
    np.testing.assert_array_equal(vector, mixed(NOW_MS - 60_000))
    expected = session_signal(rows, session.event_types, times, ITEMS, NOW_MS, reading)
    np.testing.assert_array_equal(signal.vector, expected.vector)
    np.testing.assert_array_equal(signal.dense, expected.dense)
    assert signal.evidence == expected.evidence


def test_a_vector_that_has_read_nothing_takes_the_whole_session_and_keeps_its_length() -> None:
    vector = mixed(0)
    assert not np.array_equal(vector, LONG_TERM)
    np.testing.assert_allclose(np.linalg.norm(vector), np.linalg.norm(LONG_TERM), rtol=1e-5)
