"""What a policy makes of events, against loops; and what the kernels refuse."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.kernels.membership import pack_mask
from engine.kernels.membership import test_rows as rows_in
from engine.kernels.seen_items import SeenColumns, pack_seen, unpack_seen
from engine.kernels.seen_policy import demotions, judge, resolve_rows, within_limit

NOW_S = 10_000
# Impressions, and two types of events with windows of their own.
HIDE_S, DEMOTE_S = np.zeros(256, np.int64), np.zeros(256, np.int64)
HIDE_S[4], DEMOTE_S[1], DEMOTE_S[4] = 100, 50, 200

entry = st.tuples(st.integers(0, 30), st.sampled_from([0, 1, 4, 5]), st.integers(9_700, 10_020), st.integers(1, 40))
entries = st.lists(entry, max_size=60).map(lambda drawn: sorted(drawn, key=lambda one: one[1:3]))


def columns(drawn: list[tuple[int, int, int, int]]) -> SeenColumns:
    keys, kinds, times, counts = np.array(drawn, np.int64).reshape(-1, 4).T
    showings = np.where(kinds == 0, counts, 1).astype(np.float32)
    made = SeenColumns(np.ascontiguousarray(keys), kinds.astype(np.uint8), np.ascontiguousarray(times), showings)
    for column in made:
        column.flags.writeable = False
    return made


@settings(deadline=None)
@given(entries, st.sets(st.integers(0, 30)), st.sampled_from([0.0, 1.0, 5.0]))
def test_judged_and_settled_as_loops_do(drawn: list[tuple[int, int, int, int]], shown: set[int], free: float) -> None:
    seen = columns(drawn)
    judged = judge(seen, NOW_S, HIDE_S, DEMOTE_S, free, 60.0)
    # An item's row is its key, less ten: some are unknown, and some beyond the bitmap.
    rows = seen.item_keys[judged.places] - 10
    eligible = pack_mask(np.isin(np.arange(16), sorted(shown)))
    before = rows_in(eligible, np.arange(16))
    resolved = resolve_rows(judged, rows, eligible)
    hidden, recent, tired = set(), set(), {}
    for place, (key, kind, time_s, count) in enumerate(drawn):
        age_s, row = max(NOW_S - time_s, 0), key - 10
        if not 0 <= row < 16 or not before[row]:
            continue
        if kind == 0:
            left = count * 0.5 ** (age_s / 60.0)
            if free and left > free:
                tired[place] = (row, max(0.5 ** ((left - free) / free), 0.05))
        elif age_s < HIDE_S[kind]:
            hidden.add(place)
        elif age_s < DEMOTE_S[kind]:
            recent.add(place)
    gone = {drawn[place][0] - 10 for place in hidden}
    recent = {place for place in recent if drawn[place][0] - 10 not in gone}
    assert set(judged.places[resolved.hidden].tolist()) == hidden
    assert set(judged.places[resolved.recent].tolist()) == recent
    assert (np.diff(rows[resolved.hidden]) >= 0).all()
    assert (np.diff(rows[resolved.recent]) >= 0).all()
    assert sorted(resolved.tired.tolist()) == resolved.tired.tolist() == sorted(row for row, _ in tired.values())
    found = sorted(zip(resolved.tired.tolist(), resolved.factors.tolist(), strict=True))
    expected = np.array(sorted(tired.values())).reshape(-1, 2)
    np.testing.assert_allclose(np.array(found).reshape(-1, 2), expected, rtol=1e-5)
    assert {row for row in range(16) if before[row]} - gone == set(np.flatnonzero(rows_in(eligible, np.arange(16))))


# Some with the same low bits.
row = st.integers(0, 20_000) | st.sampled_from([7, 4_103, 8_199])
row_sets = st.sets(row, max_size=20).map(sorted)


@settings(deadline=None)
@given(st.lists(row, unique=True, max_size=60), row_sets, row_sets, st.integers(0, 5))
def test_factors_and_limits(rows: list[int], recent: list[int], tired: list[int], limit: int) -> None:
    asked = np.array(rows, np.int64)
    worn = np.linspace(0.1, 0.9, len(tired)).astype(np.float32)
    found = demotions(asked, np.array(recent, np.int64), 0.5, np.array(tired, np.int64), worn)
    left = dict(zip(tired, worn.tolist(), strict=True))
    np.testing.assert_allclose(found, [(0.5 if row in recent else 1.0) * left.get(row, 1.0) for row in rows], rtol=1e-6)
    kept = within_limit(asked, np.array(recent, np.int64), limit)
    places = [place for place, row in enumerate(rows) if row in recent]
    assert kept.tolist() == [place for place in range(len(rows)) if place not in places[limit:]]


@settings(deadline=None)
@given(entries, st.binary(max_size=40))
def test_what_is_packed_is_read_and_nothing_else(drawn: list[tuple[int, int, int, int]], blob: bytes) -> None:
    seen = columns(drawn)
    back = unpack_seen(pack_seen(seen))
    assert back is not None
    for ours, theirs in zip(back, seen, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    read = unpack_seen(np.frombuffer(blob, np.uint8))
    if read is not None:
        assert pack_seen(read).tobytes() == blob or 0 in blob[1:5]


def test_what_does_not_fit_is_refused() -> None:
    seen = columns([(1, 1, 5, 1), (2, 1, 6, 1)])
    with pytest.raises(ValueError, match="columns"):
        judge(seen._replace(counts=np.ones(1, np.float32)), 1, HIDE_S, DEMOTE_S, 1.0, 1.0)
    with pytest.raises(ValueError, match="256"):
        judge(seen, 1, HIDE_S[:9], DEMOTE_S, 1.0, 1.0)
    with pytest.raises(ValueError, match="rows for"):
        resolve_rows(judge(seen, 10, HIDE_S, DEMOTE_S, 1.0, 1.0), np.zeros(1, np.int64), np.zeros(1, np.uint8))
    with pytest.raises(ValueError, match="factors"):
        demotions(np.zeros(1, np.int64), np.zeros(1, np.int64), 1.0, np.zeros(1, np.int64), np.zeros(2, np.float32))
    for wrong, reason in ((seen.times_s[::-1].copy(), "times"), (seen.times_s[:1], "columns")):
        with pytest.raises(ValueError, match=reason):
            pack_seen(seen._replace(times_s=wrong))
    with pytest.raises(ValueError, match="types"):
        pack_seen(seen._replace(event_types=np.array([2, 1], np.uint8)))
