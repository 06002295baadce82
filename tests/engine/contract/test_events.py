"""The form of a message: there and back, and nothing but PoisonMessage for what is no good."""

from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine.contract.events import SCHEMA_VERSION, decode, encode
from engine.errors import PoisonMessage
from engine_client.v1 import event_pb2 as pb
from tests.kafka import click

NOW_MS = 1_764_000_000_123


def logged(change: Callable[[pb.LoggedEvent], None] = lambda _: None) -> bytes:
    message = pb.LoggedEvent.FromString(encode(click("u", "i", NOW_MS), NOW_MS))
    change(message)
    return message.SerializeToString()


def test_there_and_back() -> None:
    event = click("ü", "i", NOW_MS)
    event.type = pb.EVENT_TYPE_PURCHASE
    event.value = 12.5
    event.request_id = "r"
    event.position = 3
    message = decode(encode(event, NOW_MS + 7))
    assert message.event == event
    assert message.received_ms == NOW_MS + 7
    assert message.fields == (event.event_id, "ü", pb.EVENT_TYPE_PURCHASE, "i", NOW_MS, "home")
    assert pb.LoggedEvent.FromString(encode(event, NOW_MS)).schema_version == SCHEMA_VERSION == 1


def test_an_event_is_written_as_the_same_bytes_each_time() -> None:
    event = click("u", "i", NOW_MS)
    assert encode(event, NOW_MS) == encode(event, NOW_MS)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "schema version 0"),
        (b"\xff", "not a LoggedEvent"),
        (logged()[:-1], "not a LoggedEvent"),
        (logged(lambda message: setattr(message, "schema_version", 2)), "schema version 2"),
        (logged(lambda message: message.ClearField("received")), "received: is required"),
        (logged(lambda message: setattr(message.received, "nanos", -1)), "received: nanos"),
        (logged(lambda message: message.ClearField("event")), "event_id: must not be empty"),
        (logged(lambda message: setattr(message.event, "user_id", "")), "user_id: "),
        (logged(lambda message: setattr(message.event, "type", 99)), "type: "),
        (logged(lambda message: message.event.ClearField("time")), "time: is required"),
        (logged(lambda message: setattr(message.event, "value", float("nan"))), "value: "),
    ],
    ids=lambda value: value if isinstance(value, str) else "",  # events have ids of their own in each process
)
def test_poison(payload: bytes, reason: str) -> None:
    with pytest.raises(PoisonMessage, match=reason):
        decode(payload)


def test_text_that_is_not_utf8_is_poison() -> None:
    payload = encode(click("a-user", "i", NOW_MS), NOW_MS).replace(b"a-user", b"a-\xff\xff\xff\xff")
    with pytest.raises(PoisonMessage):
        decode(payload)


def decodes_or_is_poison(payload: bytes) -> None:
    try:
        message = decode(payload)
    except PoisonMessage:
        return
    # Whatever is let through can be logged again, and is then still let through.
    assert decode(encode(message.event, message.received_ms)).event == message.event


@given(st.binary(max_size=200))
@example(b"\x12\x00")
def test_no_bytes_raise_anything_else(payload: bytes) -> None:
    decodes_or_is_poison(payload)


@given(st.integers(0), st.integers(0, 255), st.binary(max_size=4))
def test_no_damage_to_a_good_message_raises_anything_else(place: int, value: int, more: bytes) -> None:
    payload = bytearray(logged())
    payload[place % len(payload)] = value
    decodes_or_is_poison(bytes(payload) + more)
