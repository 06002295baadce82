"""What one user does counts once, live as in a bundle, however it comes; case 05-one-user-makes-a-bestseller."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.features.popularity import PopularityTimeline
from engine.features.returns import taken_back
from engine.features.schema import POPULARITY_WINDOWS_S
from engine.stream.fold import IS_POSITIVE, fold
from engine.stream.popularity import Scope
from engine.stream.state import Limits
from engine.types import EventType
from tests.engine.stream.folding import StreamEvent, batch_of
from tests.engine.stream.naive import User, total_counts, unpack_entries

HOUR_S = 3600
START_MS = 1_764_000_000_000
KINDS = [kind for kind in EventType if kind != EventType.IMPRESSION]
# As many purchases and returns as of all else, so that most draws have one that takes the other back.
OFTEN_RETURNED = [*KINDS, *[EventType.PURCHASE, EventType.RETURN] * 2]
Users = dict[str, bytes | None]
# (user, item, type, hour) of an event.
acts = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(1, 3), st.sampled_from(KINDS), st.integers(0, 30 * 24)), max_size=60
)


def stream(drawn: list[tuple[str, int, EventType, int]], in_order: bool = True) -> list[StreamEvent]:
    if in_order:
        drawn = sorted(drawn, key=lambda act: act[3])
    return [
        StreamEvent(place, item, kind, START_MS + 1000 * (HOUR_S * hour + place), user_id=user)
        for place, (user, item, kind, hour) in enumerate(drawn)
    ]


def count(scope: Scope, users: Users, events: list[StreamEvent], limits: Limits | None = None) -> None:
    """As the sink does, in one batch."""
    ids = list(dict.fromkeys(event.user_id for event in events))
    batch = batch_of(events)
    positions = np.array([ids.index(event.user_id) for event in events], np.int64)
    folded = fold([users.get(user) for user in ids], positions, "", batch, limits or Limits())
    users |= {ids[user]: state for user, state in folded.states.items()}
    before, after = folded.moves[:, 0], folded.moves[:, 1]
    moved = np.flatnonzero(before != after)
    times = [np.where(part < 0, -1, part * 1000)[moved] for part in (before, after)]
    scope.count(batch.item_keys[moved], *times, 1000)


def live(events: list[StreamEvent], now_ms: int, cuts: list[int] | None = None) -> dict[int, np.ndarray]:
    """Decayed counts by item, with the list stored, and read again, between any two batches."""
    scope, users, stored = Scope.unpack({}), Users(), dict[bytes, bytes]()
    for start, end in itertools.pairwise([0, *sorted(cuts or []), len(events)]):
        count(scope, users, events[start:end])
        # What has been applied comes again, as after a crash.
        count(scope, users, events[:end])
        stored |= scope.packed_changes()
        scope = Scope.unpack(stored)
    return {item: np.array(counts) for item, counts in total_counts([unpack_entries(stored)], now_ms).items()}


def in_bundle(events: list[StreamEvent], now_ms: int) -> np.ndarray:
    """The same by the rule of training: float64 (items, windows)."""
    users, rows = np.array([ord(one.user_id) for one in events], np.int64), np.array([one.item_key for one in events])
    kinds = np.array([int(one.event_type) for one in events])
    times_ms = np.array([one.time_ms for one in events]) // 1000 * 1000
    back = taken_back(users, rows, kinds == EventType.PURCHASE, kinds == EventType.RETURN)
    kept = IS_POSITIVE[kinds] & ~back
    timeline = PopularityTimeline.build(users[kept], rows[kept], times_ms[kept], 4)
    return np.expm1(timeline.table(now_ms).astype(np.float64))[:, :3]


def one_purchase_each(drawn: list[tuple[str, int, EventType, int]]) -> list[tuple[str, int, EventType, int]]:
    """Without a user's further purchases of an item: which of them a return takes back may differ."""
    bought: set[tuple[str, int]] = set()
    kept = []
    for user, item, kind, hour in drawn:
        if kind == EventType.PURCHASE:
            if (user, item) in bought:
                continue
            bought.add((user, item))
        kept.append((user, item, kind, hour))
    return kept


returned = st.lists(
    st.tuples(st.sampled_from("ab"), st.integers(1, 2), st.sampled_from(OFTEN_RETURNED), st.integers(0, 30 * 24)),
    min_size=4,
    max_size=30,
).map(one_purchase_each)


@settings(deadline=None, max_examples=150)
@given(acts.map(one_purchase_each) | returned, st.lists(st.integers(0, 60), max_size=4), st.integers(0, 200))
def test_live_counts_are_those_of_a_bundle(
    drawn: list[tuple[str, int, EventType, int]], cuts: list[int], hours: int
) -> None:
    events = stream(drawn)
    now_ms = START_MS + 1000 * HOUR_S * (30 * 24 + 1 + hours)
    found, expected = live(events, now_ms, cuts), in_bundle(events, now_ms) if events else np.zeros((4, 3))
    for item in range(4):
        np.testing.assert_allclose(found.get(item, np.zeros(3)), expected[item], rtol=1e-3, atol=1e-5)


@settings(deadline=None, max_examples=100)
@given(acts, st.randoms())
def test_in_whatever_order_they_come(drawn: list[tuple[str, int, EventType, int]], random: object) -> None:
    drawn = [act for act in drawn if act[2] != EventType.RETURN]
    now_ms = START_MS + 1000 * HOUR_S * 31 * 24
    expected = in_bundle(stream(drawn), now_ms) if drawn else np.zeros((4, 3))
    random.shuffle(drawn)  # type: ignore[attr-defined]
    found = live(stream(drawn, in_order=False), now_ms)
    for item in range(4):
        np.testing.assert_allclose(found.get(item, np.zeros(3)), expected[item], rtol=1e-3, atol=1e-5)


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.tuples(st.just("a"), st.integers(0, 9), st.sampled_from(KINDS), st.integers(0, 30 * 24)), max_size=80)
)
def test_however_many_items_one_person_turns_to_none_counts_for_more_than_one(
    drawn: list[tuple[str, int, EventType, int]],
) -> None:
    """Also where there is room for two of them: what makes room is a lifetime old, and 1 / (1 - 1/e) is the most."""
    scope, users = Scope.unpack({}), Users()
    for event in stream(drawn):
        count(scope, users, [event], Limits(counted_items=2))
        size = len(scope.index)
        assert scope.entries["counts"][:size].max(initial=0.0) <= 1.59
        assert scope.entries["counts"][:size, :2].max(initial=0.0) <= 1.01


@settings(deadline=None, max_examples=100)
@given(returned | acts)
def test_a_return_adds_nobody_anywhere(drawn: list[tuple[str, int, EventType, int]]) -> None:
    events = stream(drawn)
    users = np.array(["abc".index(event.user_id) for event in events], np.int64)
    folded = fold([None] * 3, users, "", batch_of(events), Limits())
    of_returns = folded.moves[[event.event_type == EventType.RETURN for event in events]]
    assert (of_returns[:, 1] <= of_returns[:, 0]).all()
    assert (of_returns[:, 3] <= of_returns[:, 2]).all()


def test_so_many_items_are_remembered_each_of_them_on_a_surface_too() -> None:
    clicks = [StreamEvent(place, place, time_ms=START_MS + 1000 * place) for place in range(7)]
    limits = Limits(counted_items=7)
    state = fold([None], np.zeros(7, np.int64), "", batch_of(clicks), limits).states[0]
    again = [click._replace(offset=click.offset + 7, time_ms=START_MS + 60_000) for click in clicks]
    moves = fold([state], np.zeros(7, np.int64), "", batch_of(again), limits).moves
    first, second = START_MS // 1000, START_MS // 1000 + 60
    assert moves.tolist() == [[first + place, second] * 2 for place in range(7)]


@settings(deadline=None, max_examples=200)
@given(
    st.lists(
        st.tuples(st.just("a"), st.integers(0, 9), st.sampled_from(OFTEN_RETURNED), st.integers(0, 30 * 24)),
        max_size=60,
    ),
    st.integers(1, 3),
    st.booleans(),
)
def test_the_item_that_was_longest_ago_makes_room_once_it_is_a_lifetime_ago(
    drawn: list[tuple[str, int, EventType, int]], items: int, in_order: bool
) -> None:
    events = [event._replace(surface="") for event in stream(drawn, in_order)]
    user = User(2 * items, int(POPULARITY_WINDOWS_S["7d"]))
    expected = []
    for event in events:
        # Within an hour every event has a second of its own, so that no two items are equally old.
        event_s = event.time_ms // 1000
        if event.event_type == EventType.RETURN:
            expected.append(user.give_back(event.item_key))
        elif IS_POSITIVE[event.event_type]:
            expected.append(user.turn_to(event.item_key, event_s, event.event_type == EventType.PURCHASE))
        else:
            expected.append((-1, -1))
    folded = fold([None], np.zeros(len(events), np.int64), "", batch_of(events), Limits(counted_items=items))
    assert [*map(tuple, folded.moves[:, :2].tolist())] == expected


def test_three_hundred_clicks_are_one_and_the_next_person_another() -> None:
    scope, users = Scope.unpack({}), Users()
    clicks = [StreamEvent(place, 7, time_ms=START_MS + place, name=f"{place}") for place in range(300)]
    for start in range(0, 300, 50):
        count(scope, users, clicks[start : start + 50])
    assert scope.entries["counts"][0] == pytest.approx([1, 1, 1], rel=1e-3)
    count(scope, users, [StreamEvent(300, 7, time_ms=START_MS + 300, user_id="v")])
    assert scope.entries["counts"][0] == pytest.approx([2, 2, 2], rel=1e-3)


def test_each_surface_has_its_people() -> None:
    """Who clicks at home and buys in the cart is one of each surface's users, and one overall."""
    events = [
        StreamEvent(0, 7, EventType.CLICK, START_MS, surface="home"),
        StreamEvent(1, 7, EventType.PURCHASE, START_MS + 60_000, surface="cart"),
        StreamEvent(2, 7, EventType.VIEW, START_MS + 61_000, surface=""),
        StreamEvent(3, 7, EventType.RETURN, START_MS + 62_000, surface="cart"),
    ]
    moves = fold([None], np.zeros(4, np.int64), "", batch_of(events), Limits()).moves
    first = START_MS // 1000
    assert moves.tolist() == [
        [-1, first, -1, first],
        [first, first + 60, -1, first + 60],
        [first + 60, first + 61, -1, -1],
        [first + 61, first + 61, first + 60, -1],
    ]


def test_a_log_made_anew_counts_nobody_twice() -> None:
    """Its counts go on where those of the old log are, in the same lists; so does what a user has counted for."""
    clicks = [StreamEvent(place, 7, time_ms=START_MS + place, name=f"{place}") for place in range(2)]
    first = fold([None], np.zeros(1, np.int64), "old", batch_of(clicks[:1]), Limits())
    again = fold([first.states[0]], np.zeros(1, np.int64), "new", batch_of(clicks[1:]), Limits())
    assert first.moves[0].tolist() == [-1, START_MS // 1000] * 2
    assert again.moves[0].tolist() == [START_MS // 1000] * 4


def test_an_event_that_comes_again_within_the_window_counts_once_whatever_came_between() -> None:
    day = 86_400
    many = [StreamEvent(place, place, name=f"{place}", received_s=START_MS // 1000 + place) for place in range(1, 900)]
    first = StreamEvent(0, 7, EventType.CLICK, START_MS, "first", received_s=START_MS // 1000)
    state = fold([None], np.zeros(900, np.int64), "", batch_of([first, *many]), Limits()).states[0]
    for later_s, counts in ((899, False), (day, False), (day + 1, True)):
        again = first._replace(offset=1000, received_s=START_MS // 1000 + later_s)
        assert fold([state], np.zeros(1, np.int64), "", batch_of([again]), Limits()).taken.tolist() == [counts]
    # The stated bound: past it the oldest id goes.
    full = fold([state], np.zeros(101, np.int64), "", batch_of(
        [StreamEvent(1000 + k, 1, name=f"more {k}", received_s=START_MS // 1000 + 900) for k in range(101)]
    ), Limits()).states[0]  # fmt: skip
    again = first._replace(offset=2000, received_s=START_MS // 1000 + 901)
    assert fold([full], np.zeros(1, np.int64), "", batch_of([again]), Limits()).taken.tolist() == [True]
