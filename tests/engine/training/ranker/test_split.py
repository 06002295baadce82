import numpy as np
import pytest

from engine.data.dataset import Dataset
from engine.features.history import Histories
from engine.training.config import RankerConfig, TrainingConfig
from engine.training.ranker.split import split_for_ranker
from engine.types import EventType
from tests.engine.training.worlds import dataset_of, items_frame


def random_world(seed: int) -> Dataset:
    rng = np.random.default_rng(seed)
    dataset = dataset_of(rng.integers(0, 12, 400), rng.integers(0, 60, 400), rng.integers(0, 10**9, 400), 12,
                         items_frame(60, 4))  # fmt: skip
    dataset.interactions.event_types[rng.random(400) < 0.2] = EventType.IMPRESSION
    return dataset


def events_of(histories: Histories, user: int) -> slice:
    return slice(histories.offsets[user], histories.offsets[user + 1])


@pytest.mark.parametrize("kind", ["per-user-tail", "global-time"])
def test_examples_are_new_items_after_their_state(kind: str) -> None:
    dataset = random_world(0)
    split = split_for_ranker(dataset, RankerConfig.model_validate({"split": kind}), seed=0)
    assert len(split) > 10
    for user, length, positive, moment_ms in zip(
        split.states.users, split.states.lengths, split.positives, split.moments_ms, strict=True
    ):
        rows = split.histories.rows[events_of(split.histories, user)]
        times = split.histories.timestamps_ms[events_of(split.histories, user)]
        assert length > 0
        assert times[length] == moment_ms
        assert positive not in rows[:length]
        # The item is that of the moment's event, or of a later one of the same session.
        session = np.flatnonzero(np.append(np.diff(times[length:]) > 1_800_000, True))[0] + 1
        assert positive in rows[length : length + session]


def test_per_user_tail_takes_a_bounded_share_of_each_user() -> None:
    dataset = random_world(1)
    config = RankerConfig(split="per-user-tail", tail_fraction=0.2, tail_events=5)
    split = split_for_ranker(dataset, config, seed=0)
    whole, head = dataset.histories(), dataset.with_interactions(split.head).histories()
    for user in range(dataset.user_count):
        rows = whole.rows[events_of(whole, user)]
        tail = min(5, int(np.ceil(0.2 * len(rows))))
        np.testing.assert_array_equal(head.rows[events_of(head, user)], rows[: len(rows) - tail])
        # What is no interest of its own stays out of the head from the user's first tail event on.
        own = split.head.timestamps_ms[split.head.users == user]
        assert own.max() < whole.timestamps_ms[events_of(whole, user)][len(rows) - tail]


def test_global_time_keeps_the_head_strictly_before_every_example() -> None:
    split = split_for_ranker(random_world(2), RankerConfig(split="global-time"), seed=0)
    assert split.head.timestamps_ms.max() < split.moments_ms.min()


@pytest.mark.parametrize(("share", "expected"), [(0.0, {3, 4, 5}), (1.0, {3})])
def test_examples_are_asked_for_before_their_session(share: float, expected: set[int]) -> None:
    # Two sessions of three events: a day lies between them.
    times = np.array([0, 60_000, 120_000, 86_400_000, 86_460_000, 86_520_000])
    dataset = dataset_of(
        np.repeat(np.arange(20), 6), np.tile(np.arange(6), 20), np.tile(times, 20), 20, items_frame(6, 2)
    )
    config = RankerConfig(tail_fraction=0.5, session_start_share=share)
    split = split_for_ranker(dataset, config, seed=0)
    assert set(split.states.lengths.tolist()) == expected
    assert set(split.positives.tolist()) == {3, 4, 5}
    np.testing.assert_array_equal(split.moments_ms, times[split.states.lengths])


def test_repeats_are_asked_for_once_the_policy_lets_them_come_again() -> None:
    # To the same item a minute later, and a day later.
    times = np.array([0, 1_000, 60_000, 86_400_000])
    rows = np.array([0, 1, 1, 1])
    dataset = dataset_of(np.repeat(np.arange(20), 4), np.tile(rows, 20), np.tile(times, 20), 20, items_frame(6, 2))
    config = RankerConfig(tail_fraction=0.9, session_start_share=0.0)
    assert set(split_for_ranker(dataset, config, seed=0).moments_ms.tolist()) == {1_000}
    policy = TrainingConfig(repeats=True)
    again = split_for_ranker(dataset, config, seed=0, quiet_s=policy.quiet_s())
    assert set(again.moments_ms.tolist()) == {1_000, 86_400_000}


def test_sampling_is_bounded_and_seeded() -> None:
    dataset = random_world(3)
    config = RankerConfig(max_examples=100, tail_fraction=0.9, tail_events=100)
    first, again, other = (split_for_ranker(dataset, config, seed) for seed in (1, 1, 2))
    assert len(first) == 100
    np.testing.assert_array_equal(first.positives, again.positives)
    assert not np.array_equal(first.positives, other.positives)
