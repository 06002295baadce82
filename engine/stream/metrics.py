"""What a processor says of itself to Prometheus."""

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

_BATCH_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class ProcessorMetrics:
    """The figures of one sink; one instance a registry and process, `labels` chooses the sink."""

    def __init__(self, sink: str, registry: CollectorRegistry = REGISTRY) -> None:
        families = _families(registry)
        self._events: Counter = families[0].labels(sink)
        self._poison: Counter = families[1].labels(sink)
        self._batch_s: Histogram = families[2].labels(sink)
        self.lag: Gauge = families[3].labels(sink)
        self.interruptions: Counter = families[4].labels(sink)

    def applied(self, messages: int, poison: int, seconds: float) -> None:
        """One batch is through."""
        self._events.inc(messages - poison)
        self._poison.inc(poison)
        self._batch_s.observe(seconds)


_known: dict[CollectorRegistry, tuple[Counter, Counter, Histogram, Gauge, Counter]] = {}


def _families(registry: CollectorRegistry) -> tuple[Counter, Counter, Histogram, Gauge, Counter]:
    """Made once a registry: a second family of one name would be refused."""
    if registry not in _known:
        _known[registry] = (
            Counter("engine_processor_events", "Events taken from the log.", ("sink",), registry=registry),
            Counter("engine_processor_poison", "Messages that cannot be read.", ("sink",), registry=registry),
            Histogram(
                "engine_processor_batch_seconds", "From messages in hand to everything stored.", ("sink",),
                buckets=_BATCH_BUCKETS_S, registry=registry,
            ),
            Gauge("engine_processor_lag", "Messages behind the end of the log.", ("sink",), registry=registry),
            Counter(
                "engine_processor_interruptions", "Returns to what is stored, after a failure.", ("sink",),
                registry=registry,
            ),
        )  # fmt: skip
    return _known[registry]
