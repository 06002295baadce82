"""Which events could have been recommendations, against a loop over each user's past."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config.seen import SeenConfig
from engine.features.history import Histories
from engine.features.seen_history import EVERYTHING_S, offered, windows_by_type
from engine.types import EventType

kinds = st.sampled_from([EventType.VIEW, EventType.CART, EventType.PURCHASE])
moments = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), kinds, st.integers(0, 300)), max_size=40)


@settings(deadline=None)
@given(moments, st.sampled_from([0, 1, 60, 10**9]), st.sampled_from([0, 60]))
def test_an_event_is_on_offer_unless_an_earlier_one_hides_its_item(
    events: list[tuple[int, int, EventType, int]], purchase_s: int, view_s: int
) -> None:
    users, rows, types, seconds = np.array(events, np.int64).reshape(-1, 4).T
    histories = Histories.build(users, rows, types.astype(np.uint8), 1_700_000_000_000 + 1000 * seconds, 3)
    hide_s = np.zeros(256, np.int64)
    hide_s[EventType.PURCHASE], hide_s[EventType.VIEW] = purchase_s, view_s
    found = offered(histories, hide_s)
    for user in range(3):
        own = range(histories.offsets[user], histories.offsets[user + 1])
        for event in own:
            hidden = any(
                histories.rows[earlier] == histories.rows[event]
                and (histories.timestamps_ms[event] - histories.timestamps_ms[earlier]) // 1000
                < hide_s[histories.event_types[earlier]]
                for earlier in own
                if earlier < event
            )
            assert found[event] == (not hidden)
    np.testing.assert_array_equal(offered(histories, EVERYTHING_S), histories.first_events())


def test_what_everybody_shares_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        EVERYTHING_S[EventType.VIEW] = 0


def test_windows_are_by_the_code_of_the_type() -> None:
    hide_s = windows_by_type(SeenConfig().hide)
    assert hide_s[EventType.PURCHASE] == 30 * 86_400
    assert hide_s.sum() == 30 * 86_400
