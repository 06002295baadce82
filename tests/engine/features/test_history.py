import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.features.history import Histories, HistoryStates, window_of


def histories_of(users: list[int], user_count: int, seed: int) -> Histories:
    rng = np.random.default_rng(seed)
    count = len(users)
    return Histories.build(
        np.array(users, np.int64), rng.integers(0, 50, count), rng.integers(1, 5, count).astype(np.uint8),
        rng.integers(0, 20, count) * 1000, user_count,
    )  # fmt: skip


def test_build_groups_by_user_in_time_order_and_keeps_ties() -> None:
    histories = Histories.build(
        np.array([1, 0, 1, 1]), np.array([10, 11, 12, 13]), np.array([1, 2, 3, 4], np.uint8),
        np.array([500, 7, 500, 100]), user_count=3,
    )  # fmt: skip
    assert histories.offsets.tolist() == [0, 1, 4, 4]
    assert histories.rows.tolist() == [11, 13, 10, 12]
    assert histories.event_types.tolist() == [2, 4, 1, 3]
    assert histories.lengths().tolist() == [1, 3, 0]
    assert histories.latest().lengths.tolist() == [1, 3, 0]


@settings(max_examples=60, deadline=None)
@given(users=st.lists(st.integers(0, 4), max_size=40), window=st.integers(1, 12), seed=st.integers(0, 99))
def test_window_is_the_naive_slice(users: list[int], window: int, seed: int) -> None:
    histories = histories_of(users, 5, seed)
    every = [(user, length) for user in range(5) for length in range(int(histories.lengths()[user]) + 1)]
    states = HistoryStates(np.array([user for user, _ in every]), np.array([length for _, length in every]))
    got = window_of(histories, states, window)
    assert got.rows.shape == got.event_types.shape == got.ages_s.shape == (len(every), window)
    for position, (user, length) in enumerate(every):
        start = histories.offsets[user]
        taken = slice(start + max(0, length - window), start + length)
        padding = window - min(length, window)
        times = histories.timestamps_ms[taken]
        assert got.rows[position].tolist() == [-1] * padding + histories.rows[taken].tolist()
        assert got.event_types[position].tolist() == [0] * padding + histories.event_types[taken].tolist()
        ages = [(times[-1] - time) / 1000 for time in times]
        assert got.ages_s[position].tolist() == [0.0] * padding + ages


@given(users=st.lists(st.integers(0, 3), max_size=20), seed=st.integers(0, 99))
def test_a_state_ends_with_its_latest_event(users: list[int], seed: int) -> None:
    histories = histories_of(users, 4, seed)
    every = [(user, length) for user in range(4) for length in range(int(histories.lengths()[user]) + 1)]
    states = HistoryStates(np.array([user for user, _ in every]), np.array([length for _, length in every]))
    times = [histories.timestamps_ms[histories.offsets[user] :][:length].max(initial=0) for user, length in every]
    assert histories.last_times_ms(states).tolist() == times


def test_no_events_at_all() -> None:
    histories = histories_of([], 2, seed=0)
    got = window_of(histories, histories.latest(), 3)
    assert got.rows.tolist() == [[-1, -1, -1]] * 2
    assert got.ages_s.dtype == np.float32
