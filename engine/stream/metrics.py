"""What a processor says of itself to Prometheus."""

from typing import NamedTuple

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

_BATCH_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class ProcessorMetrics:
    """The figures of one sink; one instance a registry and process, `sink` chooses the labels."""

    def __init__(self, sink: str, registry: CollectorRegistry = REGISTRY) -> None:
        families = _families(registry)
        self.sink = sink
        self._events: Counter = families.events.labels(sink)
        self._poison: Counter = families.poison.labels(sink)
        self._batch_s: Histogram = families.batch_s.labels(sink)
        self.lag: Gauge = families.lag.labels(sink)
        self.interruptions: Counter = families.interruptions.labels(sink)
        self.expired: Counter = families.expired.labels(sink)
        self.new_logs: Counter = families.new_logs.labels(sink)
        self.log_mismatch: Gauge = families.log_mismatch.labels(sink)

    def applied(self, messages: int, poison: int, seconds: float) -> None:
        """One batch is through."""
        self._events.inc(messages - poison)
        self._poison.inc(poison)
        self._batch_s.observe(seconds)


class _Families(NamedTuple):
    events: Counter
    poison: Counter
    batch_s: Histogram
    lag: Gauge
    interruptions: Counter
    expired: Counter
    new_logs: Counter
    log_mismatch: Gauge


_known: dict[CollectorRegistry, _Families] = {}


def _families(registry: CollectorRegistry) -> _Families:
    """Made once a registry: a second family of one name would be refused."""
    if registry not in _known:
        _known[registry] = _Families(
            Counter("engine_processor_events", "Events taken from the log.", ("sink",), registry=registry),
            Counter("engine_processor_poison", "Messages that cannot be read.", ("sink",), registry=registry),
            Histogram(
                "engine_processor_batch_seconds", "From messages in hand to everything stored.", ("sink",),
                buckets=_BATCH_BUCKETS_S, registry=registry,
            ),
            Gauge("engine_processor_lag", "Messages of the log still to be read.", ("sink",), registry=registry),
            Counter(
                "engine_processor_interruptions", "Returns to what is stored, after a failure.", ("sink",),
                registry=registry,
            ),
            Counter(
                "engine_processor_expired", "Messages that retention removed before they were read.", ("sink",),
                registry=registry,
            ),
            Counter(
                "engine_processor_new_logs", "Partitions read from their beginning, since their log is another one.",
                ("sink",), registry=registry,
            ),
            Gauge(
                "engine_processor_log_mismatch", "1 where the log is not the one that is stored, and nothing is read.",
                ("sink",), registry=registry,
            ),
        )  # fmt: skip
    return _known[registry]
