"""What is popular now, in what is being served: follow the live counts, and show them to the lists and the ranker."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

from engine.errors import DependencyUnavailable
from engine.logs import OncePerInterval
from engine.request.model import Serving, ServingModel
from engine.stream.trending import ItemCounts

log = logging.getLogger(__name__)
log.addFilter(OncePerInterval(interval_s=30.0))

# However many items are live, updates take at most this share of a thread's time: they get rarer instead.
_MAX_SHARE: Final = 0.1


class CountsSource(Protocol):
    """Where live counts come from; may block. Raises DependencyUnavailable."""

    def read(self, scopes: Sequence[str], now_ms: int) -> Mapping[str, ItemCounts]:
        """Decayed counts of each scope as of a moment."""
        ...


class Trending:
    """Brings live counts into models. Safe to call from several threads; they take turns."""

    def __init__(self, source: CountsSource, prior_events: float, clock: Callable[[], float] = time.time) -> None:
        self._source = source
        self._prior_events = prior_events
        self._clock = clock
        self._lock = threading.Lock()

    def refresh(self, model: ServingModel) -> None:
        """Read the counts and show them in a model. Blocks; where they cannot be read, the model stays as it is."""
        with self._lock:
            try:
                live = self._source.read(model.popularity.scopes, round(self._clock() * 1000))
            except DependencyUnavailable as error:
                log.warning("popularity stays as it was: %s", error)
                return
            model.popularity.apply(live, self._prior_events)


async def follow_trending(trending: Trending, serving: Serving, poll_s: float) -> None:
    """Refresh what serves every `poll_s` seconds, forever, in a thread of its own.

    Whatever goes wrong, popularity as it was keeps serving, and the next round tries again.
    """
    while True:
        started = time.monotonic()
        try:
            await _refresh_all(trending, serving)
        except Exception:  # or it would end this task silently
            log.exception("live counts could not be shown")
        took_s = time.monotonic() - started
        await asyncio.sleep(max(poll_s, took_s * (1 / _MAX_SHARE - 1)))


async def _refresh_all(trending: Trending, serving: Serving) -> None:
    # A function of its own: between two rounds nothing here holds on to a model that has been replaced.
    for model in serving.models:
        await asyncio.to_thread(trending.refresh, model)
