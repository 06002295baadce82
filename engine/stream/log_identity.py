"""Which log an offset is of, and where reading goes on in the log that is there now.

Offsets compare within one log only. A topic that is deleted and made again, or a broker that is replaced, begins at 0
again under the same name: a position of the old log would skip what the new one holds. So every stored position says
which log it is of, and is held against the log that is there before anything is read. Pure.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from engine.errors import LogMismatch, LogShorter

# Which new logs are read from their beginning without asking; see processor.accept_new_log.
AcceptNewLog = Literal["topic", "cluster", "never"]


class LogIdentity(NamedTuple):
    """One log: Kafka's cluster id, and its topic id, which is empty where a broker gives none (before Kafka 2.8)."""

    cluster: str
    topic: str

    def __str__(self) -> str:
        return f"{self.cluster}/{self.topic}"

    @staticmethod
    def parse(text: str) -> "LogIdentity":
        """The identity of `str`."""
        cluster, _, topic = text.partition("/")
        return LogIdentity(cluster, topic)


class Place(NamedTuple):
    """How far a sink got in a partition. next: the offset to go on at. log: whose; None where nobody wrote it down."""

    next: int
    log: LogIdentity | None


class Extent(NamedTuple):
    """What a partition holds: offsets from `first` to before `end`."""

    first: int
    end: int


@dataclass(frozen=True, slots=True)
class LogNow:
    """The log as it is now. name: of its topic. brokers: where. extents: of the partitions that were asked for."""

    name: str
    brokers: str
    identity: LogIdentity
    extents: Mapping[int, Extent] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Start:
    """Where to read from.

    offsets: by partition. expired: by partition (first, end) of what retention removed before it was read. renewed:
    partitions whose position was of another log, and which are read from their beginning.
    """

    offsets: Mapping[int, int]
    expired: Mapping[int, Extent]
    renewed: tuple[int, ...]


def start_of(places: Mapping[int, Place | None], now: LogNow, accept: AcceptNewLog) -> Start:
    """Where to go on, by what is stored and what is there.

    - Nothing stored: at the beginning.
    - A position of this log: there; or, where retention was faster, at what is left.
    - A position of another log: at the beginning, where `accept` allows it: "topic" a topic made again in the same
      cluster, "cluster" another cluster, too, "never" neither.
    - A position without a log, from before positions said so: it is taken for one of this log where it fits.

    Raises:
        LogShorter: the log, by its identity the same, ends before the position.
        LogMismatch: another log, and `accept` does not allow it.
    """
    offsets: dict[int, int] = {}
    expired: dict[int, Extent] = {}
    renewed: list[int] = []
    for partition, place in places.items():
        first, end = now.extents[partition]
        if place is None:
            offsets[partition] = first
        elif place.log is not None and place.log != now.identity:
            if not _accepted(place.log, now.identity, accept):
                raise LogMismatch(_other_log(partition, place, now, accept))
            renewed.append(partition)
            offsets[partition] = first
        elif place.next > end:
            if place.log is not None or accept != "cluster":
                raise LogShorter(_shorter_log(partition, place, now))
            renewed.append(partition)
            offsets[partition] = first
        else:
            if place.next < first:
                expired[partition] = Extent(place.next, first)
            offsets[partition] = max(first, place.next)
    return Start(offsets, expired, tuple(renewed))


def _accepted(stored: LogIdentity, now: LogIdentity, accept: AcceptNewLog) -> bool:
    return accept == "cluster" or (accept == "topic" and stored.cluster == now.cluster)


_REMEDY = "If nothing else is to be mended, a new name in processor.log has it read from its beginning"
_COUNTED = "events that it holds and that were counted before are counted again"


def _other_log(partition: int, place: Place, now: LogNow, accept: AcceptNewLog) -> str:
    stored = place.log
    assert stored is not None
    what = "cluster" if stored.cluster != now.identity.cluster else "topic"
    return (
        f"{now.name} at {now.brokers} is another log than the stored one (partition {partition}, up to offset "
        f"{place.next - 1}): {what} {getattr(now.identity, what)} instead of {getattr(stored, what)}. Is kafka.brokers "
        f'right? If so, set processor.accept_new_log = "{what}" (it is "{accept}"), or give processor.log a new name: '
        f"both read the new log from its beginning; {_COUNTED}"
    )


def _shorter_log(partition: int, place: Place, now: LogNow) -> str:
    _, end = now.extents[partition]
    return (
        f"{now.name} at {now.brokers} is shorter than what is stored: partition {partition} ends before offset {end}, "
        f"and is stored up to {place.next - 1}. The broker has lost messages, or another log has taken its place. "
        f"{_REMEDY}; {_COUNTED}"
    )
