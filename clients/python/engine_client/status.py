"""Errors and gRPC statuses: the one table, read by the server and by the clients.

A refusal carries google.rpc.ErrorInfo (a reason that programs can test, the field where there is one, and the request
id); for a bad request google.rpc.BadRequest, and for an overloaded server google.rpc.RetryInfo.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from engine_client.errors import DeadlineExceeded, DependencyUnavailable, EngineError, InvalidRequest, Overloaded

Metadata: TypeAlias = Iterable[tuple[str, str | bytes]]

T = TypeVar("T", bound=Message)

STATUS_DETAILS_KEY = "grpc-status-details-bin"
OVERLOADED_REASON = "OVERLOADED"


@dataclass(frozen=True, slots=True)
class Mapped:
    """How one class of errors looks on the wire."""

    code: grpc.StatusCode
    reason: str


STATUS_OF: Mapping[type[EngineError], Mapped] = {
    InvalidRequest: Mapped(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST"),
    DeadlineExceeded: Mapped(grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED"),
    Overloaded: Mapped(grpc.StatusCode.RESOURCE_EXHAUSTED, OVERLOADED_REASON),
    DependencyUnavailable: Mapped(grpc.StatusCode.UNAVAILABLE, "DEPENDENCY_UNAVAILABLE"),
}
_CLASS_OF_CODE = {mapped.code: error_class for error_class, mapped in STATUS_OF.items()}


def translated(error: grpc.RpcError) -> EngineError:
    """The error that a failed call reports, for the caller to raise."""
    # Both kinds of call failure have these three; the stub's base class has none.
    failure: Any = error
    return from_wire(failure.code(), failure.details(), failure.trailing_metadata())


def from_wire(code: grpc.StatusCode, text: str | None, trailing_metadata: Metadata | None) -> EngineError:
    """The engine error that a failed call reports.

    Args:
        code: of the call.
        text: its details.
        trailing_metadata: of the call; None when the failure was the transport's own.

    Returns:
        An error of the class that the server raised, for the caller to raise. Failures without details (no
        connection, a deadline that passed on the way) go by their code; all others are EngineError itself.
    """
    sentence = text or code.name
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        return _invalid_request(trailing_metadata) or InvalidRequest("request", sentence)
    if code is grpc.StatusCode.CANCELLED:
        # An overloaded server's, or a stopping one's: this client cancels nothing that it still waits for.
        return Overloaded(f"the call was refused before the server read it: {sentence}")
    error_class = _CLASS_OF_CODE.get(code)
    if error_class is None:
        return EngineError(f"{code.name}: {sentence}")
    if error_class is Overloaded:
        return Overloaded(sentence, _retry_after_s(trailing_metadata))
    return error_class(sentence)


def _details(trailing_metadata: Metadata | None, kind: type[T]) -> Iterator[T]:
    """The details of this kind in a rich status; none where there is none that can be read."""
    for key, value in trailing_metadata or ():
        if key != STATUS_DETAILS_KEY or not isinstance(value, bytes):
            continue
        try:
            for detail in status_pb2.Status.FromString(value).details:
                found = kind()
                if detail.Unpack(found):
                    yield found
        except DecodeError:
            # A proxy's own idea of this header must not hide the code and the text.
            return


def _retry_after_s(trailing_metadata: Metadata | None) -> float | None:
    for hint in _details(trailing_metadata, error_details_pb2.RetryInfo):
        return float(hint.retry_delay.ToNanoseconds() / 1e9)
    return None


def _invalid_request(trailing_metadata: Metadata | None) -> InvalidRequest | None:
    """The first field violation in a rich status; None where there is none that can be read."""
    for bad_request in _details(trailing_metadata, error_details_pb2.BadRequest):
        for violation in bad_request.field_violations:
            return InvalidRequest(violation.field, violation.description)
    return None
