"""Times: of a message, of an event, and when an item came out."""

from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

from engine.contract.limits import (
    EARLIEST_EVENT_MS,
    EARLIEST_PUBLISHED_MS,
    NANOS_PER_SECOND,
    TIME_END_MS,
    TIME_END_S,
)
from engine.errors import InvalidRequest


def timestamp_ms(field: str, moment: Timestamp | None) -> int:
    """A message's time in milliseconds since 1970; InvalidRequest where it is absent or no date."""
    if moment is None:
        raise InvalidRequest(field, "is required")
    seconds, nanos = moment.seconds, moment.nanos
    if not 0 <= nanos < NANOS_PER_SECOND:
        raise InvalidRequest(field, f"nanos must be between 0 and 999999999, got {nanos}")
    if not 0 <= seconds < TIME_END_S:
        raise InvalidRequest(field, f"must lie in the years 1970 to 2100, got {seconds} seconds since 1970")
    return seconds * 1000 + nanos // 1_000_000


def check_event_time(time_ms: int, now_ms: int, max_ahead_ms: int) -> None:
    """Refuse a time that only a mistake of units or a wrong clock can explain. Raises InvalidRequest.

    Called where events are accepted, not where the log is read: an accepted event stays valid.
    """
    if time_ms < EARLIEST_EVENT_MS:
        raise InvalidRequest("time", f"must not lie before {shown(EARLIEST_EVENT_MS)}, is {shown(time_ms)}")
    if time_ms - now_ms > max_ahead_ms:
        ahead_s = (time_ms - now_ms) // 1000
        raise InvalidRequest(
            "time", f"must be at most {max_ahead_ms // 1000} s ahead of the server, is {ahead_s} s ahead"
        )


def check_published(moment: Timestamp) -> None:
    """Refuse what cannot be when an item came out: InvalidRequest."""
    if not 0 <= moment.nanos < NANOS_PER_SECOND:
        raise InvalidRequest("published", f"nanos must be between 0 and 999999999, got {moment.nanos}")
    time_ms = moment.seconds * 1000 + moment.nanos // 1_000_000
    if not EARLIEST_PUBLISHED_MS <= time_ms < TIME_END_MS:
        raise InvalidRequest(
            "published", f"must lie in the years 1582 to 2100, got {moment.seconds} seconds since 1970"
        )


def shown(time_ms: int) -> str:
    """A time as a user reads it, to the second, in UTC."""
    return datetime.fromtimestamp(time_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
