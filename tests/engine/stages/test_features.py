import asyncio
import time

import numpy as np

from engine.errors import DependencyUnavailable, RecordError
from engine.features.state import SeenItems, Session, UserState
from engine.stages.features import FetchFeatures
from engine.types import DegradedReason, EventType

KNOWN = UserState(None, Session.empty(), SeenItems.of(np.arange(3), EventType.VIEW, 0))


class Store:
    """A store that can be told to fail, to hang or to hold broken bytes."""

    def __init__(self) -> None:
        self.mood = "well"

    async def fetch(self, user_id: str, generation: int) -> UserState:
        if self.mood == "gone":
            raise DependencyUnavailable("connection refused")
        if self.mood == "broken":
            raise RecordError("truncated")
        if self.mood == "hanging":
            await asyncio.sleep(60)
        return KNOWN


async def test_the_ladder_is_stored_then_last_known_then_unknown() -> None:
    store = Store()
    features = FetchFeatures(store, 0.05, 1 << 20)
    assert await features("u", 1, 10) == (KNOWN, None)
    for mood in ("gone", "broken", "hanging"):
        store.mood = mood
        assert await features("u", 1, 10) == (KNOWN, DegradedReason.FEATURES_STALE)
        state, reason = await features("stranger", 1, 10)
        assert reason is DegradedReason.FEATURES_UNAVAILABLE
        assert state.record is None
    # What is remembered belongs to one embedding space.
    assert (await features("u", 2, 10))[1] is DegradedReason.FEATURES_UNAVAILABLE
    store.mood = "well"
    assert await features("u", 1, 10) == (KNOWN, None)


async def test_a_store_that_hangs_costs_no_more_than_the_time_that_is_left() -> None:
    store = Store()
    store.mood = "hanging"
    started = time.perf_counter()
    await FetchFeatures(store, 30.0, 0)("u", 1, 0.05)
    assert time.perf_counter() - started < 5


async def test_memory_is_bounded_in_bytes() -> None:
    class Large:
        async def fetch(self, user_id: str, generation: int) -> UserState:
            return UserState(None, Session.empty(), SeenItems.of(np.zeros(40_000, np.int64), EventType.VIEW, 0))

    features = FetchFeatures(Large(), 1.0, 2 << 20)
    for user in range(50):
        await features(f"u{user}", 1, 10)
    assert len(features._last_known) == 2
    tiny = FetchFeatures(Large(), 1.0, 1000)
    assert (await tiny("u", 1, 10))[1] is None


async def test_a_visitor_without_a_user_id_is_nobody_and_nothing_is_asked() -> None:
    store = Store()
    store.mood = "gone"
    state, reason = await FetchFeatures(store, 0.05, 1 << 20)("", 1, 10)
    assert reason is None
    assert state.record is None
