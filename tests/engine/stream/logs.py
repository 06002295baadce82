"""A log for sinks that are tried without a source."""

from collections.abc import Mapping

from engine.stream.log_identity import Extent, LogIdentity, LogNow, Place

IDENTITY = LogIdentity("cluster-a", "topic-a")
OTHER_TOPIC = LogIdentity("cluster-a", "topic-b")
OTHER_CLUSTER = LogIdentity("cluster-b", "topic-c")


def log_now(identity: LogIdentity = IDENTITY, first: int = 0, end: int = 1 << 40) -> LogNow:
    """A log of sixteen partitions that all hold the same offsets."""
    return LogNow("engine.events.v1", "broker:9092", identity, {part: Extent(first, end) for part in range(16)})


def nexts(places: Mapping[int, Place | None]) -> dict[int, int | None]:
    """Where each partition goes on."""
    return {partition: None if place is None else place.next for partition, place in places.items()}
