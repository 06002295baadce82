"""Stage: what is known of the user, in one round trip, with the last known state for when the store fails."""

import asyncio
import logging
from typing import Protocol

from cachetools import LRUCache

from engine.errors import DependencyUnavailable
from engine.features.state import UserState
from engine.logs import OncePerInterval
from engine.types import DegradedReason

log = logging.getLogger(__name__)
log.addFilter(OncePerInterval())

_GRACE_S = 0.001
# The objects around a state's arrays.
_STATE_OVERHEAD_BYTES = 1500


class FeatureStore(Protocol):
    """Where user states live."""

    async def fetch(self, user_id: str, generation: int) -> UserState:
        """One user's state, whose record is of this embedding generation or None. Raises DependencyUnavailable."""
        ...


class FetchFeatures:
    """Reads states, remembers the last ones (bounded), and never raises for a store that fails or is late.

    Source of the ladder: stored state, last known state, unknown user.
    """

    def __init__(self, store: FeatureStore, timeout_s: float, stale_cache_bytes: int) -> None:
        self._store = store
        self._timeout_s = timeout_s
        self._last_known: LRUCache[tuple[str, int], UserState] = LRUCache(stale_cache_bytes, getsizeof=_size_of)

    async def __call__(
        self, user_id: str, generation: int, remaining_s: float
    ) -> tuple[UserState, DegradedReason | None]:
        """The state, and what it was replaced by, if it was. Of a visitor without a user id nothing is known."""
        if not user_id:
            return UserState.unknown(), None
        if remaining_s <= 0:
            return self._without_store(user_id, generation)
        loop, patience_s = asyncio.get_running_loop(), min(self._timeout_s, remaining_s)
        try:
            async with asyncio.timeout(None) as cutoff:
                # In two steps: where the loop itself was held up, a reply that has come meanwhile is read before its
                # time counts as up.
                timer = loop.call_later(patience_s, lambda: cutoff.reschedule(loop.time() + _GRACE_S))
                try:
                    state = await self._store.fetch(user_id, generation)
                finally:
                    timer.cancel()
        except (DependencyUnavailable, TimeoutError, ValueError) as error:
            # ValueError: bytes that do not unpack. One broken record must not fail its user's requests.
            log.warning("no stored features: %s", str(error) or f"no reply within {patience_s * 1000:.0f} ms")
            return self._without_store(user_id, generation)
        if _size_of(state) <= self._last_known.maxsize:
            self._last_known[user_id, generation] = state
        return state, None

    def _without_store(self, user_id: str, generation: int) -> tuple[UserState, DegradedReason]:
        stale = self._last_known.get((user_id, generation))
        if stale is not None:
            return stale, DegradedReason.FEATURES_STALE
        return UserState.unknown(), DegradedReason.FEATURES_UNAVAILABLE


def _size_of(state: UserState) -> int:
    """About how many bytes a remembered state takes."""
    size = _STATE_OVERHEAD_BYTES + state.seen.nbytes + 17 * len(state.session.item_keys)
    if state.record is not None:
        size += state.record.embedding.nbytes + state.record.collaborative.nbytes + state.record.profile.nbytes
    return size
