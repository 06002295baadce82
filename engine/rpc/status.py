"""Engine errors to gRPC statuses, by the table of engine_client.status.

Whatever the table does not name is a bug or an operator's business: the caller sees INTERNAL with generic text and the
request id, and the log has the rest. ConfigError, DataError and BundleError belong to start-up, and PoisonMessage to
the stream: inside a request they are a bug, and their text names files of the server.
"""

from dataclasses import dataclass, field

import grpc
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from engine.errors import InvalidRequest, Overloaded
from engine_client.status import STATUS_OF, Mapped

ERROR_DOMAIN = "engine.v1"
INTERNAL_REASON = "INTERNAL"
# The text travels three times in a status, and all trailing metadata together in headers of 8 KiB.
MAX_TEXT_CHARACTERS = 1024
_INTERNAL = Mapped(grpc.StatusCode.INTERNAL, INTERNAL_REASON)


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
    if isinstance(error, Overloaded) and error.retry_after_s is not None:
        hint = error_details_pb2.RetryInfo()
        hint.retry_delay.FromNanoseconds(int(error.retry_after_s * 1e9))
        status.details.add().Pack(hint)
    rich = rpc_status.to_status(status)
    return WireError(rich.code, entry.reason, rich.details, tuple(rich.trailing_metadata))
