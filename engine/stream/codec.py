"""An event to the bytes of one Kafka message and back; what cannot be trusted is a poison message."""

from typing import Final, NamedTuple

from google.protobuf.message import DecodeError

from engine.contract.events import EventFields, check_event
from engine.contract.times import timestamp_ms
from engine.errors import InvalidRequest, PoisonMessage
from engine.v1 import event_pb2 as pb

SCHEMA_VERSION: Final = 1


class Logged(NamedTuple):
    """The event of one message, valid, and what reading it has shown. received_ms: milliseconds since 1970."""

    event: pb.Event
    fields: EventFields
    received_ms: int


def encode(event: pb.Event, received_ms: int) -> bytes:
    """The payload of one message.

    Args:
        event: a valid one; it is not looked at again.
        received_ms: the server's clock when it took the event in, in milliseconds since 1970.

    Cost: about 2 µs.
    """
    logged = pb.LoggedEvent(schema_version=SCHEMA_VERSION, event=event)
    logged.received.FromMilliseconds(received_ms)
    return logged.SerializeToString()


def decode(payload: bytes) -> Logged:
    """The event of one message, complete and valid: whoever wrote it, a reader need not check again.

    What depends on a clock or on the configuration (the event's age, the list of surfaces) was the server's to judge
    when it took the event in, so that a topic means the same whenever it is read.

    Raises:
        PoisonMessage: not a LoggedEvent, of another schema version, or with an event that breaks the API's rules.

    Cost: about 4 µs for what most events look like, 8 µs otherwise.
    """
    try:
        logged = pb.LoggedEvent.FromString(payload)
    except DecodeError as error:
        raise PoisonMessage("not a LoggedEvent message") from error
    if logged.schema_version != SCHEMA_VERSION:
        raise PoisonMessage(f"schema version {logged.schema_version}; this engine reads version {SCHEMA_VERSION}")
    try:
        received_ms = timestamp_ms("received", logged.received if logged.HasField("received") else None)
        event = logged.event
        fields = check_event(event)
    except InvalidRequest as error:
        raise PoisonMessage(str(error)) from error
    return Logged(event, fields, received_ms)
