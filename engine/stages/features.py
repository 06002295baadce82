"""Stage: what is known of the user, in one round trip, with the last known state for when the store fails."""

import asyncio
import logging
from typing import Protocol

from cachetools import LRUCache

from engine.errors import DependencyUnavailable
from engine.logs import OncePerInterval
from engine.types import DegradedReason, UserState

log = logging.getLogger(__name__)
log.addFilter(OncePerInterval())

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
        key = (user_id, generation)
        try:
            async with asyncio.timeout(min(self._timeout_s, remaining_s)):
                state = await self._store.fetch(user_id, generation)
        except (DependencyUnavailable, TimeoutError, ValueError) as error:
            # ValueError: bytes that do not unpack. One broken record must not fail its user's requests.
            log.warning("no stored features: %s", error or "timeout")
            stale = self._last_known.get(key)
            if stale is not None:
                return stale, DegradedReason.FEATURES_STALE
            return UserState.unknown(), DegradedReason.FEATURES_UNAVAILABLE
        if _size_of(state) <= self._last_known.maxsize:
            self._last_known[key] = state
        return state, None


def _size_of(state: UserState) -> int:
    """About how many bytes a remembered state takes."""
    size = _STATE_OVERHEAD_BYTES + state.seen_keys.nbytes + 17 * len(state.session.item_keys)
    if state.record is not None:
        size += state.record.embedding.nbytes + state.record.collaborative.nbytes + state.record.profile.nbytes
    return size
