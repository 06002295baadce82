"""Engine errors to gRPC statuses and back: the one table, read by the server and by the Python client.

A refusal carries google.rpc.ErrorInfo (a reason that programs can test, the field where there is one, and the request
id) and, for a bad request, google.rpc.BadRequest. Whatever the table does not name is a bug or an operator's business:
the caller sees INTERNAL with generic text and the request id, and the log has the rest.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from engine.errors import DeadlineExceeded, DependencyUnavailable, EngineError, InvalidRequest, Overloaded

Metadata: TypeAlias = Iterable[tuple[str, str | bytes]]

ERROR_DOMAIN = "engine.v1"
STATUS_DETAILS_KEY = "grpc-status-details-bin"
INTERNAL_REASON = "INTERNAL"
OVERLOADED_REASON = "OVERLOADED"
# The text travels three times in a status, and all trailing metadata together in headers of 8 KiB.
MAX_TEXT_CHARACTERS = 1024


@dataclass(frozen=True, slots=True)
class Mapped:
    """How one class of errors looks on the wire."""

    code: grpc.StatusCode
    reason: str


# ConfigError, DataError and BundleError belong to start-up, and PoisonMessage to the stream: inside a request they are
# a bug, and their text names files of the server.
STATUS_OF: Mapping[type[EngineError], Mapped] = {
    InvalidRequest: Mapped(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST"),
    DeadlineExceeded: Mapped(grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED"),
    Overloaded: Mapped(grpc.StatusCode.RESOURCE_EXHAUSTED, OVERLOADED_REASON),
    DependencyUnavailable: Mapped(grpc.StatusCode.UNAVAILABLE, "DEPENDENCY_UNAVAILABLE"),
}
_INTERNAL = Mapped(grpc.StatusCode.INTERNAL, INTERNAL_REASON)
_CLASS_OF_CODE = {mapped.code: error_class for error_class, mapped in STATUS_OF.items()}


@dataclass(frozen=True, slots=True)
class WireError:
    """A status ready for `ServicerContext.abort`."""

    code: grpc.StatusCode
    reason: str
    text: str
    metadata: tuple[tuple[str, str | bytes], ...] = field(repr=False)


def mapped(error: BaseException) -> Mapped | None:
    """The table's entry for this error or its nearest base class; None for what callers must not see."""
    for error_class in type(error).__mro__:
        if error_class in STATUS_OF:
            return STATUS_OF[error_class]
    return None


def to_wire(error: BaseException, request_id: str) -> WireError:
    """The status that the caller of this request gets for this error.

    Only errors of the table show their own text; anything else is INTERNAL and shows the request id alone.
    """
    known = mapped(error)
    entry = known or _INTERNAL
    text = str(error)[:MAX_TEXT_CHARACTERS] if known else f"internal error (request {request_id})"
    metadata = {"request_id": request_id}
    violations = None
    if isinstance(error, InvalidRequest):
        metadata["field"] = error.field
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=error.field, description=error.reason[:MAX_TEXT_CHARACTERS]
        )
        violations = error_details_pb2.BadRequest(field_violations=[violation])

    status = status_pb2.Status(code=entry.code.value[0], message=text)
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason=entry.reason, domain=ERROR_DOMAIN, metadata=metadata))
    if violations is not None:
        status.details.add().Pack(violations)
    rich = rpc_status.to_status(status)
    return WireError(rich.code, entry.reason, rich.details, tuple(rich.trailing_metadata))


def from_wire(code: grpc.StatusCode, text: str | None, trailing_metadata: Metadata | None) -> EngineError:
    """The engine error behind a failed call.

    Args:
        code: of the call.
        text: its details.
        trailing_metadata: of the call; None when the failure was the transport's own.

    Returns:
        An error of the class that the server raised, for the caller to raise. Failures without details (no
        connection, a deadline that passed on the way) go by their code; EngineError itself stands for the rest.
    """
    sentence = text or code.name
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        return _invalid_request(trailing_metadata) or InvalidRequest("request", sentence)
    error_class = _CLASS_OF_CODE.get(code)
    if error_class is None:
        return EngineError(f"{code.name}: {sentence}")
    return error_class(sentence)


def _invalid_request(trailing_metadata: Metadata | None) -> InvalidRequest | None:
    """The first field violation in a rich status; None where there is none that can be read."""
    for key, value in trailing_metadata or ():
        if key != STATUS_DETAILS_KEY or not isinstance(value, bytes):
            continue
        bad_request = error_details_pb2.BadRequest()
        try:
            for detail in status_pb2.Status.FromString(value).details:
                if detail.Unpack(bad_request) and bad_request.field_violations:
                    violation = bad_request.field_violations[0]
                    return InvalidRequest(violation.field, violation.description)
        except DecodeError:
            # A proxy's own idea of this header must not hide the code and the text.
            return None
    return None
