from dataclasses import replace

import numpy as np
import pytest

from engine.config.serving import BlendConfig
from engine.features.history import Histories
from engine.features.session import SessionSettings, session_before, session_inputs, session_signal
from engine.types import EventType
from tests.kernels import naive

NOW_MS = 1_767_000_000_000
WINDOW_MS = 1_800_000
SETTINGS = SessionSettings.of(BlendConfig())
LIMIT = 6
VECTORS = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)


def events(kinds: list[EventType], ages_s: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """Types and times of events that old."""
    return np.array(kinds, np.uint8), (NOW_MS - np.array(ages_s, np.float64) * 1000).astype(np.int64)


def histories(seed: int, users: int = 12, count: int = 400) -> Histories:
    """Events of every kind within two hours, many of them at the same second."""
    rng = np.random.default_rng(seed)
    times = NOW_MS + rng.integers(-7200, 0, count) * 1000
    kinds = rng.integers(0, len(EventType), count).astype(np.uint8)
    return Histories.build(rng.integers(0, users, count), rng.integers(0, len(VECTORS), count), kinds, times, users)


def some_moments(world: Histories, seed: int, count: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Moments at which events happened, and their users."""
    chosen = np.random.default_rng(seed).choice(len(world.rows), count, replace=False)
    return np.repeat(np.arange(world.user_count), world.lengths())[chosen], world.timestamps_ms[chosen]


@pytest.mark.parametrize("seed", range(3))
def test_inputs_are_the_sum_of_what_came_before_each_moment_and_of_nothing_else(seed: int) -> None:
    world = histories(seed)
    users, moments = some_moments(world, seed)
    vectors, dense = session_inputs(world, users, moments, VECTORS, SETTINGS, LIMIT)
    for user, moment_ms, vector, found in zip(users, moments.tolist(), vectors, dense, strict=True):
        own = slice(world.offsets[user], world.offsets[user + 1])
        earlier = np.flatnonzero(world.timestamps_ms[own] < moment_ms)
        kept = world.offsets[user] + earlier[world.timestamps_ms[own][earlier] >= moment_ms - WINDOW_MS][-LIMIT:]
        session = world.rows[kept], world.event_types[kept], world.timestamps_ms[kept]
        expected, evidence = naive.session_vector(
            VECTORS, 4, *session, moment_ms, SETTINGS.half_life_s, SETTINGS.type_weights, SETTINGS.window_s
        )
        counted = [t for kind, t in zip(*session[1:], strict=True) if SETTINGS.type_weights[kind] > 0]
        age_s = (moment_ms - max(counted)) / 1000 if counted else SETTINGS.window_s
        np.testing.assert_allclose(vector, expected, atol=1e-5)
        np.testing.assert_allclose(found, np.log1p([evidence, len(counted), age_s]), rtol=1e-5, atol=1e-6)


def test_the_future_of_a_moment_changes_nothing() -> None:
    world = histories(5)
    users = np.arange(world.user_count)
    moments = np.full(len(users), NOW_MS - 3_600_000)
    later = world.timestamps_ms >= moments[0]
    assert later.any()
    changed = replace(
        world,
        rows=np.where(later, (world.rows + 1) % len(VECTORS), world.rows),
        event_types=np.where(later, EventType.PURCHASE, world.event_types).astype(np.uint8),
    )
    before = session_inputs(world, users, moments, VECTORS, SETTINGS, LIMIT)
    for found, expected in zip(session_inputs(changed, users, moments, VECTORS, SETTINGS, LIMIT), before, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert before[0].any()


def test_training_reads_what_a_request_at_that_moment_would() -> None:
    world = histories(7)
    users, moments = some_moments(world, 7, 20)
    vectors, dense = session_inputs(world, users, moments, VECTORS, SETTINGS, 1000)
    for place, (user, moment_ms) in enumerate(zip(users.tolist(), moments.tolist(), strict=True)):
        # The store has everything that came before, however old, as the processor left it.
        own = slice(world.offsets[user], world.offsets[user] + np.searchsorted(
            world.timestamps_ms[world.offsets[user] : world.offsets[user + 1]], moment_ms
        ))  # fmt: skip
        signal = session_signal(
            world.rows[own], world.event_types[own], world.timestamps_ms[own], VECTORS, moment_ms, SETTINGS
        )
        np.testing.assert_allclose(vectors[place], signal.vector, atol=1e-6)
        np.testing.assert_allclose(dense[place], signal.dense, rtol=1e-6)


@pytest.mark.parametrize(
    ("kinds", "ages_s", "rows"),
    [
        ([], [], []),
        ([EventType.IMPRESSION], [5.0], [3]),
        ([EventType.CLICK], [1801.0], [3]),
        ([EventType.CLICK], [5.0], [-1]),
    ],
)
def test_events_that_do_not_count_are_no_session(kinds: list[EventType], ages_s: list[float], rows: list[int]) -> None:
    signal = session_signal(np.array(rows, np.int64), *events(kinds, ages_s), VECTORS, NOW_MS, SETTINGS)
    assert signal.evidence == 0
    assert not signal.vector.any()
    np.testing.assert_allclose(signal.dense, np.log1p([0, 0, 1800.0]), rtol=1e-6)


def test_evidence_number_and_age_are_of_the_events_that_count() -> None:
    kinds = [EventType.PURCHASE, EventType.CLICK, EventType.IMPRESSION]
    signal = session_signal(np.array([1, 2, 3]), *events(kinds, [600.0, 60.0, 1.0]), VECTORS, NOW_MS, SETTINGS)
    evidence = 3.0 * 0.5 + 2.0 ** (-60 / 600)
    np.testing.assert_allclose(signal.dense, np.log1p([evidence, 2, 60.0]), rtol=1e-6)


def test_a_session_ends_with_the_latest_events() -> None:
    world = histories(9, users=1)
    part = session_before(world, 0, NOW_MS, SETTINGS.window_s, LIMIT)
    assert part == slice(len(world.rows) - LIMIT, len(world.rows))


def test_a_session_begins_with_its_window() -> None:
    """An event that is just as old as the window is inside, and one of the moment itself is not."""
    ages_ms = np.array([WINDOW_MS + 1, WINDOW_MS, WINDOW_MS - 1, 1, 0])
    nothing = np.zeros(5, np.int64)
    world = Histories.build(nothing, nothing, nothing.astype(np.uint8), NOW_MS - ages_ms, 1)
    assert session_before(world, 0, NOW_MS, SETTINGS.window_s, 10) == slice(1, 4)


def test_every_byte_has_a_weight() -> None:
    """What is stored may hold any; a kernel that indexes with it checks nothing."""
    assert SETTINGS.type_weights.shape == (256,)
