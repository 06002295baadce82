"""What the scan tells of a message is what the protobuf library tells; that it does not tell much less is held here."""

import numpy as np
import pytest

from engine.kernels.event_scan import (
    COLUMNS,
    EVENT_FIELDS,
    EVENT_ID,
    ITEM_ID,
    SURFACE,
    TIME_MS,
    TYPE,
    USER_ID,
    scan_events,
)
from engine_client.v1 import event_pb2 as pb

VERSION, POSITIONS, TIME_END_S = 1, 200, 4_133_980_800
LIMITS = np.zeros(EVENT_FIELDS, np.int64)
LIMITS[[1, 2, 4, 6, 7, 8, 9, 12]] = 8
LIMITS.flags.writeable = False


def message(**fields: object) -> pb.LoggedEvent:
    event = pb.Event(event_id="e", user_id="user", item_id="item", type=pb.EVENT_TYPE_CLICK, surface="home")
    for name, value in fields.items():
        setattr(event, name, value)
    event.time.FromMilliseconds(1_000_123)
    logged = pb.LoggedEvent(schema_version=VERSION, event=event)
    logged.received.FromMilliseconds(2_000_456)
    return logged


def scan(*payloads: bytes) -> np.ndarray:
    buffer = np.frombuffer(b"".join(payloads), np.uint8)
    return scan_events(
        buffer, np.cumsum([len(payload) for payload in payloads]), VERSION, LIMITS, POSITIONS, TIME_END_S
    )


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"surface": ""},
        {"session_id": "s", "device": "d", "country": "c", "request_id": "r", "position": 200},
        {"type": pb.EVENT_TYPE_IMPRESSION},
        {"type": pb.EVENT_TYPE_PURCHASE, "value": 0.0},
        {"type": pb.EVENT_TYPE_DWELL, "dwell_ms": 2**62},
        {"type": pb.EVENT_TYPE_RETURN, "value": 9.5},
        {"user_id": " ~[]{}%\x20"},
    ],
)
def test_what_is_plain_is_read(fields: dict[str, object]) -> None:
    logged = message(**fields)
    payload = logged.SerializeToString()
    # Between two others, so that no place is one of the message by itself.
    found = scan(message().SerializeToString(), payload, message().SerializeToString())
    everything = message().SerializeToString() + payload
    event, row = logged.event, found[1].tolist()
    texts = {EVENT_ID: event.event_id, USER_ID: event.user_id, ITEM_ID: event.item_id, SURFACE: event.surface}
    assert {column: everything[row[column] : row[column + 1]].decode() for column in texts} == texts
    assert (row[TYPE], row[TIME_MS]) == (event.type, 1_000_123)
    assert (found[:, TYPE] > 0).all()


def test_a_time_behind_the_arrival_is_the_arrival() -> None:
    logged = message()
    logged.received.FromMilliseconds(1_000_100)
    assert scan(logged.SerializeToString())[0, TIME_MS] == 1_000_100


def test_what_is_not_plain_is_told_and_harms_no_neighbour() -> None:
    good = message().SerializeToString()
    other = pb.LoggedEvent.FromString(good)
    other.schema_version = 2
    later = pb.LoggedEvent(received=other.received, event=other.event).SerializeToString()
    strange = [
        b"", b"\xff", good[:-1], good + b"\x08\x01", good + b"\x28\x01", later, later + b"\x08\x02", later + b"\x0d",
        message(user_id="ü").SerializeToString(), message(user_id="").SerializeToString(),
        message(surface="nine byte").SerializeToString(), message(position=201).SerializeToString(),
        message(position=-1).SerializeToString(), message(type=8).SerializeToString(),
        message(value=1.0).SerializeToString(), message(type=pb.EVENT_TYPE_PURCHASE).SerializeToString(),
        message(type=pb.EVENT_TYPE_PURCHASE, value=float("nan")).SerializeToString(),
        message(type=pb.EVENT_TYPE_PURCHASE, value=-1.0).SerializeToString(),
        message(type=pb.EVENT_TYPE_RETURN).SerializeToString(),
        message(type=pb.EVENT_TYPE_RETURN, value=-1.0).SerializeToString(),
        message(type=pb.EVENT_TYPE_RETURN, value=1.0, dwell_ms=1).SerializeToString(),
        message(type=pb.EVENT_TYPE_DWELL, dwell_ms=0).SerializeToString(), other.SerializeToString(),
    ]  # fmt: skip
    found = scan(good, *(payload for one in strange for payload in (one, good)))
    assert (found[::2, TYPE] == pb.EVENT_TYPE_CLICK).all()
    assert not found[1::2, TYPE].any()


def test_no_messages_are_no_rows() -> None:
    assert scan_events(np.zeros(0, np.uint8), np.zeros(0, np.int64), VERSION, LIMITS, 1, 1).shape == (0, COLUMNS)


@pytest.mark.parametrize("ends", [[4], [2, 1], [-1, 2]])
def test_ends_outside_of_the_buffer_are_refused(ends: list[int]) -> None:
    with pytest.raises(ValueError, match="end outside"):
        scan_events(np.zeros(3, np.uint8), np.array(ends), VERSION, LIMITS, POSITIONS, TIME_END_S)


def test_limits_are_those_of_the_fields() -> None:
    with pytest.raises(ValueError, match="limits"):
        scan_events(np.zeros(0, np.uint8), np.zeros(0, np.int64), VERSION, LIMITS[1:], POSITIONS, TIME_END_S)
    fields = pb.Event.DESCRIPTOR.fields_by_number
    assert max(fields) == EVENT_FIELDS - 1
    assert all((fields[number].type == fields[number].TYPE_STRING) == (LIMITS[number] > 0) for number in fields)
