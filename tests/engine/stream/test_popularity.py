import math
import struct
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.features.popularity import PopularityTimeline
from engine.stream.popularity import OVERALL, Scope, scope_of_surface, scopes_of
from engine.types import Demographics
from tests.engine.stream.naive import counted, pack_entry, total_counts, unpack_entries

HOUR_MS = 3_600_000
times = st.lists(st.integers(0, 30 * 24 * HOUR_MS), min_size=1, max_size=30)
streams = st.lists(st.tuples(st.integers(-15, 15), st.integers(0, 10**9)), max_size=80)


@settings(deadline=None)
@given(times, st.randoms())
def test_counts_are_those_that_training_computes_in_whatever_order_events_come(
    times_ms: list[int], random: object
) -> None:
    now = max(times_ms) + 1
    users, rows = np.arange(len(times_ms)), np.zeros(len(times_ms), np.int64)
    table = PopularityTimeline.build(users, rows, np.array(times_ms), 1).table(now)
    random.shuffle(times_ms)  # type: ignore[attr-defined]
    scope = Scope.unpack({})
    count(scope, [(7, moment) for moment in times_ms], 5)
    counts = total_counts([unpack_entries(everything(scope))], now)[7]
    np.testing.assert_allclose(np.log1p(counts), table[0, :3], rtol=1e-4, atol=1e-6)


def count(scope: Scope, events: Sequence[tuple[int, int]], limit: int) -> None:
    """Of events by as many users."""
    items, times_ms = (np.array([event[part] for event in events], np.int64) for part in (0, 1))
    scope.count(items, np.full(len(events), -1), times_ms, limit)


def everything(scope: Scope) -> dict[bytes, bytes]:
    return scope.packed(np.arange(len(scope.index)))


def store(scope: Scope, stored: dict[bytes, bytes]) -> None:
    """As the store does."""
    stored |= scope.packed_changes()
    for item in scope.packed_removals():
        stored.pop(item, None)
    scope.stored()


@settings(deadline=None)
@given(streams)
def test_a_list_is_what_counting_one_by_one_leaves(stream: list[tuple[int, int]]) -> None:
    scope = Scope.unpack({})
    count(scope, stream, 5)
    found, expected = unpack_entries(everything(scope)), counted(stream, 5)
    assert found.keys() == expected.keys()
    assert len(found) < 10
    for item, entry in expected.items():
        assert found[item][0] == entry[0]
        np.testing.assert_allclose(found[item][1:], entry[1:], rtol=1e-12)


@settings(deadline=None)
@given(streams, st.lists(st.integers(0, 80), max_size=6), st.booleans())
def test_storing_and_loading_at_any_moment_gives_the_same_bytes(
    stream: list[tuple[int, int]], cuts: list[int], loses_memory: bool
) -> None:
    whole, scope, stored = Scope.unpack({}), Scope.unpack({}), dict[bytes, bytes]()
    count(whole, stream, 5)
    for start, end in pairwise([0, *sorted(cuts), len(stream)]):
        count(scope, stream[start:end], 5)
        store(scope, stored)
        if loses_memory:
            # In whatever order a hash gives its fields.
            scope = Scope.unpack(dict(reversed(stored.items())))
    assert stored == everything(whole)


def test_what_goes_depends_on_no_batching_even_for_an_item_that_comes_back() -> None:
    # The second event of item 3 finds it gone: it is a new item with one event.
    events = [(1, 0), (1, 0), (2, 0), (2, 0), (3, 0), (4, 0), (3, 0)]
    batch, single = Scope.unpack({}), Scope.unpack({})
    count(batch, events, 2)
    for event in events:
        count(single, [event], 2)
    assert everything(batch) == everything(single)
    assert unpack_entries(everything(batch))[3] == (0, 1.0, 1.0, 1.0)


def test_the_least_popular_go_first() -> None:
    scope = Scope.unpack({})
    count(scope, [(item, 0) for item in (1, 1, 2, 2, 3, 4)], 2)
    assert set(scope.index) == {1, 2}
    assert scope.removed == {3, 4}
    count(scope, [(3, 1)], 2)
    assert unpack_entries(scope.packed_changes()).keys() == {1, 2, 3}
    assert scope.removed == {4}
    assert scope.packed_removals() == [(4).to_bytes(8, "little")]
    scope.stored()
    assert not scope.packed_changes()
    assert not scope.packed_removals()


def test_a_list_longer_than_a_new_limit_is_cut_at_its_next_event() -> None:
    scope = Scope.unpack({})
    count(scope, [(item, 0) for item in range(20) for _ in range(item + 1)], 50)
    count(scope, [(19, 0), (0, 0)], 4)
    assert set(scope.index) == {16, 17, 18, 19, 0}


def test_keys_and_entries_are_stored_as_they_ever_were() -> None:
    scope = Scope.unpack({})
    count(scope, [(-2, 7), (2**63 - 1, 8)], 5)
    assert everything(scope) == {
        struct.pack("<q", -2): pack_entry((7, 1.0, 1.0, 1.0)),
        struct.pack("<q", 2**63 - 1): pack_entry((8, 1.0, 1.0, 1.0)),
    }


@pytest.mark.parametrize("stored", [{b"1234567": bytes(32)}, {b"12345678": bytes(31)}, {b"": b""}])
def test_what_is_no_list_is_refused(stored: dict[bytes, bytes]) -> None:
    with pytest.raises(ValueError, match="another form"):
        Scope.unpack(stored)


def test_partitions_add_up() -> None:
    totals = total_counts([{1: (0, 1.0, 1.0, 1.0)}, {1: (HOUR_MS, 2.0, 2.0, 2.0), 2: (0, 1.0, 1.0, 1.0)}], HOUR_MS)
    assert totals[1][0] == pytest.approx(2 + math.exp(-1))
    assert totals[2][1] == pytest.approx(math.exp(-1 / 24))


def test_a_person_counts_overall_in_known_segments_and_on_the_surface() -> None:
    assert scopes_of(Demographics()) == (OVERALL,)
    assert scopes_of(Demographics("25-34", "", "ads")) == (
        OVERALL, '{"age_group": "25-34"}', '{"signup_source": "ads"}',
    )  # fmt: skip
    assert scope_of_surface("home") == '{"surface": "home"}'


def test_what_a_wrong_clock_has_left_does_not_freeze_an_item() -> None:
    scope = Scope.unpack({})
    count(scope, [(1, 4_070_908_800_000), (2, 50)], 5)
    back = Scope.unpack(everything(scope), 100)
    assert unpack_entries(back.packed_changes()) == {1: (100, 1.0, 1.0, 1.0)}
    count(back, [(1, 200)], 5)
    assert unpack_entries(everything(back))[1][1] == pytest.approx(2.0, rel=1e-4)
