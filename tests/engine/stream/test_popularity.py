import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.features.popularity import PopularityTimeline
from engine.stream.popularity import (
    OVERALL,
    Entry,
    Scope,
    add,
    counts_at,
    pack_entry,
    scopes_of,
    unpack_entry,
)
from engine.types import Demographics
from tests.engine.stream.naive import total_counts

HOUR_MS = 3_600_000
times = st.lists(st.integers(0, 30 * 24 * HOUR_MS), min_size=1, max_size=30)


@given(times, st.randoms())
def test_counts_are_those_that_training_computes_in_whatever_order_events_come(
    times_ms: list[int], random: object
) -> None:
    now = max(times_ms) + 1
    table = PopularityTimeline.build(np.zeros(len(times_ms), np.int64), np.array(times_ms), 1).table(now)
    random.shuffle(times_ms)  # type: ignore[attr-defined]
    entry: Entry | None = None
    for moment in times_ms:
        entry = add(entry, moment)
    assert entry is not None
    np.testing.assert_allclose(np.log1p(counts_at(entry, now)), table[0, :3], rtol=1e-4, atol=1e-6)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 10**9)), max_size=80), st.integers(0, 80))
def test_storing_at_any_moment_gives_the_same_entries(stream: list[tuple[int, int]], cut: int) -> None:
    whole, first = Scope({}), Scope({})
    stored: dict[int, bytes] = {}
    for item, time_ms in stream:
        whole.count(item, time_ms, 5)
    for item, time_ms in stream[:cut]:
        first.count(item, time_ms, 5)
    stored = {item: pack_entry(first.entries[item]) for item in first.changed}
    second = Scope({item: unpack_entry(blob) for item, blob in stored.items()})
    for item, time_ms in stream[cut:]:
        second.count(item, time_ms, 5)
    for item in second.removed:
        stored.pop(item, None)
    stored |= {item: pack_entry(second.entries[item]) for item in second.changed}
    assert stored == {item: pack_entry(entry) for item, entry in whole.entries.items()}
    assert len(whole.entries) < 10


def test_the_least_popular_go_first() -> None:
    scope = Scope({})
    for item in (1, 1, 2, 2, 3, 4):
        scope.count(item, 0, 2)
    assert set(scope.entries) == {1, 2}
    assert scope.removed == {3, 4}
    scope.count(3, 1, 2)
    assert scope.changed == {1, 2, 3}
    assert scope.removed == {4}
    scope.stored()
    assert not scope.changed | scope.removed


def test_partitions_add_up() -> None:
    totals = total_counts([{1: (0, 1.0, 1.0, 1.0)}, {1: (HOUR_MS, 2.0, 2.0, 2.0), 2: (0, 1.0, 1.0, 1.0)}], HOUR_MS)
    assert totals[1][0] == pytest.approx(2 + math.exp(-1))
    assert totals[2][1] == pytest.approx(math.exp(-1 / 24))


def test_an_event_counts_overall_on_its_surface_and_in_known_segments() -> None:
    assert scopes_of("", Demographics()) == (OVERALL,)
    assert scopes_of("home", Demographics("25-34", "", "ads")) == (
        OVERALL, '{"surface": "home"}', '{"age_group": "25-34"}', '{"signup_source": "ads"}',
    )  # fmt: skip
