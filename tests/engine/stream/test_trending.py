import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from engine.bundle.popularity import Popularity, PopularityList, segment_key, surface_key
from engine.stream.popularity import ENTRY_DTYPE, OVERALL, scope_of_surface, scopes_of
from engine.stream.trending import (
    FLOOR,
    Evidence,
    blend,
    decay,
    dynamic_rows,
    evidence_of,
    joint_evidence,
    scopes_of_list,
    scopes_of_popularity,
    sum_entries,
)
from engine.types import Demographics
from tests.engine.stream.naive import Entry, counts_at, pack_entry, total_counts

NOW_MS = 1_764_000_000_000
ITEMS = 40
HOME = surface_key("home")
YOUNG = segment_key(("age_group",), Demographics("18-24", "", ""))
YOUNG_GERMAN = segment_key(("age_group", "location"), Demographics("18-24", "DE", ""))
GERMAN = segment_key(("location",), Demographics("", "DE", ""))
assert YOUNG is not None
assert YOUNG_GERMAN is not None
assert GERMAN is not None
SCOPES = (OVERALL, HOME, YOUNG, GERMAN)

entries = st.tuples(
    st.integers(NOW_MS - 40 * 86_400_000, NOW_MS + 1000), st.floats(0, 50), st.floats(0, 500), st.floats(0.01, 5000)
)


def a_list(rng: np.random.Generator, size: int) -> PopularityList:
    scores = np.sort(rng.pareto(1.5, size) + 0.01)[::-1]
    return PopularityList(
        rng.permutation(ITEMS)[:size].astype(np.int32), (scores / (2 * scores.sum())).astype(np.float32)
    )


def popularity(seed: int) -> Popularity:
    rng = np.random.default_rng(seed)
    return Popularity(a_list(rng, ITEMS), {name: a_list(rng, 10) for name in (HOME, YOUNG, YOUNG_GERMAN)})


def positions(known: Popularity) -> np.ndarray:
    return np.argsort(known.overall.rows).astype(np.int32)


def evidence(counts: dict[int, float]) -> Evidence:
    rows = sorted(row for row, events in counts.items() if events > 0)
    return Evidence(np.array(rows, np.int64), np.array([counts[row] for row in rows], np.float64))


@given(st.lists(st.dictionaries(st.integers(-(2**63), 2**63 - 1), entries, max_size=20), max_size=4))
def test_sums_are_those_of_the_entries_one_by_one(parts: list[dict[int, Entry]]) -> None:
    keys = np.array([key for part in parts for key in part], np.int64)
    packed = np.frombuffer(b"".join(pack_entry(entry) for part in parts for entry in part.values()), ENTRY_DTYPE)
    found = sum_entries(keys, packed, NOW_MS)
    expected = {key: counts for key, counts in total_counts(parts, NOW_MS).items() if counts[2] >= FLOOR}
    assert found.keys.tolist() == sorted(expected)
    for key, counts in zip(found.keys.tolist(), found.counts, strict=True):
        np.testing.assert_allclose(counts, expected[key], rtol=1e-9)


def test_counts_decay_between_two_reads_as_the_entries_do() -> None:
    entry: Entry = (NOW_MS, 3.0, 5.0, 8.0)
    counts = sum_entries(np.array([7]), np.frombuffer(pack_entry(entry), ENTRY_DTYPE), NOW_MS)
    later = decay(counts, 3_600_000)
    np.testing.assert_allclose(later.counts[0], counts_at(entry, NOW_MS + 3_600_000))
    assert len(decay(counts, 60 * 86_400_000).keys) == 0
    # A clock that was set back makes nothing more popular.
    np.testing.assert_array_equal(decay(counts, -3_600_000).counts, counts.counts)
    np.testing.assert_array_equal(decay(counts, -1).counts, counts.counts)


@given(
    hnp.arrays(np.float32, (6, 5), elements=st.floats(0, 12, width=32)),
    hnp.arrays(np.float64, (6, 3), elements=st.floats(0, 1e6)),
)
def test_an_event_never_lowers_what_the_ranker_sees(base: np.ndarray, counts: np.ndarray) -> None:
    shown = dynamic_rows(base, counts)
    assert shown.dtype == np.float32
    assert (shown >= base).all()
    for column, window in enumerate((0, 1, 2, 2, 2)):
        expected = [
            max(known, math.log1p(live)) for known, live in zip(base[:, column], counts[:, window], strict=True)
        ]
        np.testing.assert_allclose(shown[:, column], expected, rtol=1e-6, atol=1e-9)


def test_evidence_is_in_row_order_without_strangers() -> None:
    counts = np.arange(12, dtype=np.float64).reshape(4, 3)
    found = evidence_of(np.array([5, -1, 0, 3]), counts)
    assert found.rows.tolist() == [0, 3, 5]
    assert found.events.tolist() == [7.0, 10.0, 1.0]
    assert found.at(np.array([3, 4, 5, 9])).tolist() == [10.0, 0.0, 1.0, 0.0]
    assert found.head(1).rows.tolist() == [3]


def test_a_list_is_moved_by_the_scopes_that_the_processor_counts() -> None:
    user = Demographics("18-24", "DE", "ads")
    for name in (HOME, YOUNG, YOUNG_GERMAN):
        assert set(scopes_of_list(name)) <= {scope_of_surface("home"), *scopes_of(user)}
    assert set(scopes_of_popularity(popularity(0))) == set(SCOPES)
    assert scopes_of_popularity(popularity(0))[0] == OVERALL


def test_shared_segments_are_estimated_from_their_parts() -> None:
    young, german, overall = evidence({1: 50.0, 2: 8.0}), evidence({1: 20.0, 3: 5.0}), evidence({1: 100.0, 2: 9.0})
    both = joint_evidence([young, german], overall)
    assert both.rows.tolist() == [1]
    assert both.events.tolist() == [pytest.approx(50 * 20 / 100)]
    assert joint_evidence([young], overall) is young
    # Counts that the overall list has dropped: never more than the smaller part.
    assert joint_evidence([young, german], evidence({2: 9.0})).events.tolist() == [pytest.approx(20.0)]


def oracle(known: Popularity, live: dict[str, dict[int, float]], prior_events: float) -> dict[str, dict[int, float]]:
    """Each list's scores, row by row, from the definition."""
    share = dict(zip(known.overall.rows.tolist(), known.overall.scores.tolist(), strict=True))
    overall = live[OVERALL]
    strength, total = prior_events / max(share.values()), sum(overall.values())
    scores = {
        OVERALL: {
            row: (strength * share[row] + overall.get(row, 0.0)) / (strength + total)
            for row in known.overall.rows.tolist()
        }
    }
    for name, entry in known.lists.items():
        listed = dict(zip(entry.rows.tolist(), entry.scores.tolist(), strict=True))
        parts = [live.get(json.dumps({key: value}), {}) for key, value in json.loads(name).items()]
        own = {}
        for row in set.intersection(*map(set, parts)):
            everyone = max(overall.get(row, 0.0), *(part[row] for part in parts))
            own[row] = math.prod(part[row] for part in parts) / everyone ** (len(parts) - 1)
        pull = 100.0 / (strength + total)
        list_strength = prior_events / max(listed.values())
        whole = list_strength + sum(own.values()) + pull * total
        last = min(listed.values())
        found = {}
        for row in set(listed) | set(own) | set(overall):
            known_share = listed.get(row, min(share[row], last))
            events = own.get(row, 0.0) + pull * overall.get(row, 0.0)
            found[row] = (list_strength * known_share + events) / whole
        new = sorted((row for row in found if row not in listed), key=lambda row: (-found[row], row))
        scores[name] = {row: score for row, score in found.items() if row not in new[len(listed) :]}
    return scores


@given(
    st.integers(0, 50),
    st.fixed_dictionaries(
        {scope: st.dictionaries(st.integers(0, ITEMS - 1), st.floats(0.1, 500), max_size=25) for scope in SCOPES}
    ),
    st.floats(1, 200),
)
def test_lists_are_those_of_the_definition(seed: int, live: dict[str, dict[int, float]], prior_events: float) -> None:
    known = popularity(seed)
    blended = blend(known, positions(known), {scope: evidence(counts) for scope, counts in live.items()}, prior_events)
    if not live[OVERALL]:
        assert blended is known
        return
    expected = oracle(known, live, prior_events)
    for name, before, entry in [
        (OVERALL, known.overall, blended.overall),
        *((name, known.lists[name], entry) for name, entry in blended.lists.items()),
    ]:
        assert entry.rows.dtype == np.int32
        assert entry.scores.dtype == np.float32
        assert set(before.rows.tolist()) <= set(entry.rows.tolist())
        assert len(set(entry.rows.tolist())) == len(entry.rows) <= 2 * len(before.rows)
        assert (np.diff(entry.scores) <= 1e-7).all()
        assert ((entry.scores > 0) & (entry.scores <= 1)).all()
        np.testing.assert_allclose(np.sort(entry.scores), sorted(expected[name].values()), rtol=1e-4)
        for row, score in zip(entry.rows.tolist(), entry.scores.tolist(), strict=True):
            # Which of two equal strangers comes in is open.
            assert score == pytest.approx(expected[name].get(row, score), rel=1e-4)
    assert set(blended.lists) == set(known.lists)
    assert len(blended.overall.rows) == ITEMS


def test_a_handful_of_clicks_cannot_upend_a_list_and_a_trend_can() -> None:
    known = popularity(1)
    last = int(known.overall.rows[-1])

    def first(events: float) -> int:
        live = {OVERALL: evidence({last: events}), HOME: evidence({last: events})}
        blended = blend(known, positions(known), live, 50.0)
        assert (blended.overall.rows[0] == last) == (blended.lists[HOME].rows[0] == last)
        return int(blended.overall.rows[0])

    assert first(5.0) == known.overall.rows[0]
    assert first(60.0) == last
