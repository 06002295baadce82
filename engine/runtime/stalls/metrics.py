"""What a process says of its pauses to Prometheus."""

from typing import Final

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram

from engine.runtime.stalls.cause import Cause, Stall
from engine.runtime.stalls.collector import Collection

_BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0)
_GENERATIONS: Final = 3


class StallMetrics:
    """The figures of one process; one instance a registry. See engine.rpc.metrics for several processes."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        collections = Histogram(
            "engine_collector_pause_seconds",
            "Garbage collections, which stop everything in their process.",
            ("generation",),
            buckets=_BUCKETS_S,
            registry=registry,
        )
        self._lag_s = Histogram(
            "engine_event_loop_lag_seconds",
            "How late an event loop ran what was due, looked at every stalls.period_ms.",
            buckets=_BUCKETS_S,
            registry=registry,
        )
        stalls = Counter(
            "engine_stalls", "Pauses of an event loop of stalls.log_ms or more.", ("cause",), registry=registry
        )
        self._collections = [collections.labels(generation) for generation in range(_GENERATIONS)]
        self._stalls = {cause: stalls.labels(cause.value) for cause in Cause}

    def collected(self, collection: Collection) -> None:
        self._collections[min(collection.generation, _GENERATIONS - 1)].observe(collection.ended - collection.started)

    def lagged(self, seconds: float) -> None:
        self._lag_s.observe(seconds)

    def stalled(self, stall: Stall) -> None:
        self._stalls[stall.cause].inc()
