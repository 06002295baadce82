"""Overload: as many requests at once as are answered in time, cheaper answers before refusals, and cheap refusals."""

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from engine.errors import Overloaded
from engine.rpc.interceptors import RETRY_AFTER_S
from engine.rpc.servicer import Recommender
from engine.types import DegradedReason, Priority, Recommendation, RecommendQuery

# Critical requests may be this many times what `most` says: they are answered by popularity, which takes no thread.
CRITICAL_SHARE: Final = 2
# How much of the candidates a request gets: all, while nobody is turned away.
_EFFORTS: Final = (1.0, 0.5, 0.25)
# So long the share of refused requests is counted before the effort changes.
_PERIOD_S: Final = 0.5
_REFUSED_AT_MOST: Final = 0.05
# Below this use of the limit, in the mean of a period, the effort may rise again.
_IDLE_SHARE: Final = 0.5
_SMOOTHING: Final = 0.1
# Of the time that a request has, how much its answer may take before there are too many requests.
_TARGET: Final = 0.4
_DECREASE: Final = 0.9


class ConcurrencyLimit:
    """How many requests may run at once: as many as are answered well within their time.

    Additive increase and multiplicative decrease (Chiu and Jain, 1989), as the AIMD limit of Netflix's
    concurrency-limits: the limit grows while answers take at most _TARGET of the server's time for them, and shrinks
    while they take more. A burst that is answered in time is no overload, however long its queue; and a client that
    allows less time than the server does says nothing of the server.

    Args:
        threads: that compute; the limit never falls below.
        most: where the limit begins, and what it never exceeds.
        allowed_s: the server's time for a request, whatever its client allows.
    """

    def __init__(self, threads: int, most: int, allowed_s: float) -> None:
        self._threads = min(threads, most)
        self._most = most
        self._target_s = _TARGET * allowed_s
        self._limit = float(most)
        self._work_s = 0.0

    @property
    def value(self) -> int:
        return int(self._limit)

    def ended(self, latency_s: float, waited_s: float | None) -> None:
        """A request has been answered.

        Args:
            waited_s: for a thread and for the event loop, of its latency_s; None where it was not computed to its end.
        """
        if waited_s is not None:
            self._work_s += _SMOOTHING * (latency_s - waited_s - self._work_s)
        if latency_s > self._target_s:
            self._limit = max(float(self._threads), self._limit * _DECREASE)
        elif waited_s is not None:
            self._limit = min(float(self._most), self._limit + self._threads / 8)

    def expected_s(self, in_flight: int) -> float:
        """How long one more request would take beside so many others."""
        return self._work_s * max(1.0, (in_flight + 1) / self._threads)


class EffortControl:
    """How much work an answer gets: less while requests are refused, so that fewer are."""

    def __init__(self) -> None:
        self._level = 0
        self._until = 0.0
        self._asked = self._refused = 0
        self._used = 0.0

    @property
    def value(self) -> float:
        return _EFFORTS[self._level]

    def note(self, refused: bool, used: float, now_s: float) -> None:
        """A request has come. used: the share of the limit that is taken. now_s: time.monotonic()."""
        if now_s >= self._until:
            if self._asked and self._refused > _REFUSED_AT_MOST * self._asked:
                self._level = min(self._level + 1, len(_EFFORTS) - 1)
            elif self._used < _IDLE_SHARE * self._asked or not self._asked:
                self._level = max(self._level - 1, 0)
            self._until = now_s + _PERIOD_S
            self._asked = self._refused = 0
            self._used = 0.0
        self._asked += 1
        self._refused += refused
        self._used += used


class LimitedRecommender:
    """A recommender that takes no more requests than it answers in time. For one event loop.

    Priorities: sheddable requests may use half of the limit, default ones all of it, critical ones one place a thread
    more. Past that, critical ones are answered by popularity (up to CRITICAL_SHARE of `most`), and others are refused.

    Args:
        threads: of the recommender. most: requests at once, whatever the limit says. allowed_s: for a request.
        priorities: by surface, of requests that do not say; DEFAULT for a surface that is not there.
    """

    def __init__(
        self,
        recommender: Recommender,
        threads: int,
        most: int,
        allowed_s: float,
        priorities: Mapping[str, Priority] | None = None,
    ) -> None:
        self._recommender = recommender
        self._priorities = priorities or {}
        self._threads = threads
        self._most = most
        self.limit = ConcurrencyLimit(threads, most, allowed_s)
        self.effort = EffortControl()
        self._in_flight = 0

    async def recommend(
        self, query: RecommendQuery, answer_by: float, deadline: float = float("inf")
    ) -> Recommendation:
        """As `Recommender.recommend`. Raises Overloaded where the request would not be answered in time."""
        began = time.monotonic()
        priority = query.priority or self._priorities.get(query.surface, Priority.DEFAULT)
        limit, in_flight = self.limit.value, self._in_flight
        late = in_flight >= self._threads and began + self.limit.expected_s(in_flight) > answer_by
        refused = late or in_flight >= self._places(priority, limit)
        self.effort.note(refused, in_flight / limit, began)
        effort = self.effort.value
        if refused:
            if priority is not Priority.CRITICAL or in_flight >= CRITICAL_SHARE * self._most:
                raise Overloaded("the server has as many requests as it can answer in time", RETRY_AFTER_S)
            effort = 0.0
        if effort != 1.0:
            query = replace(query, effort=effort)
        self._in_flight += 1
        try:
            recommendation = await self._recommender.recommend(query, answer_by, deadline)
        finally:
            self._in_flight -= 1
        if effort:
            self._learn(recommendation, time.monotonic() - began)
        return recommendation

    def _places(self, priority: Priority, limit: int) -> int:
        if priority is Priority.SHEDDABLE:
            return max(1, limit // 2)
        return limit + self._threads if priority is Priority.CRITICAL else limit

    def _learn(self, recommendation: Recommendation, latency_s: float) -> None:
        if DegradedReason.BUDGET_EXHAUSTED in recommendation.degraded_reasons:
            self.limit.ended(latency_s, None)
            return
        took = {timing.stage: timing.duration_ms / 1000.0 for timing in recommendation.timings}
        # What is outside of the engine's own clock is the wait for the event loop.
        waited_s = took.get("queue", 0.0) + max(0.0, latency_s - took.get("total", latency_s))
        self.limit.ended(latency_s, min(waited_s, latency_s))
