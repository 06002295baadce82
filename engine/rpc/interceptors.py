"""What surrounds every call: admission, request ids, error mapping and the access log.

One interceptor, because grpc.aio runs each as one more coroutine on every call.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias
from urllib.parse import quote

import grpc
from google.protobuf.message import DecodeError

from engine.contract.limits import MAX_ID_BYTES
from engine.contract.requests import new_request_id
from engine.contract.text import text_fault
from engine.errors import DeadlineExceeded, DependencyUnavailable, InvalidRequest, Overloaded
from engine.experiments.exposure import DEADLINE_TOLERANCE_S
from engine.rpc.access_log import AccessLog, Call
from engine.rpc.status import to_wire

REQUEST_ID_KEY = "x-request-id"
# What a refused caller is told to wait. Queues are shorter than that.
RETRY_AFTER_S = 0.2

# In quotes: the stubs are generic, the classes are not.
_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


class Admission:
    """Counts the calls in flight and refuses those that must not start.

    Args:
        concurrency_limit: calls that may run at once.
    """

    def __init__(self, concurrency_limit: int) -> None:
        self.limit = concurrency_limit
        self._in_flight = 0
        self._open = False

    @property
    def in_flight(self) -> int:
        return self._in_flight

    def open(self) -> None:
        """Let calls in; before this they are told to come back."""
        self._open = True

    def enter(self, context: _Context) -> None:
        """Take a place, which `leave` gives back once the answer is computed: who does not read it holds none.

        Raises:
            DeadlineExceeded: the caller's deadline has passed.
            DependencyUnavailable: the server is still starting.
            Overloaded: all places are taken.
        """
        if context.time_remaining() == 0:
            raise DeadlineExceeded("the deadline had passed before the request was started")
        if not self._open:
            raise DependencyUnavailable("the server is starting")
        if self._in_flight >= self.limit:
            raise Overloaded(f"the server is at its limit of {self.limit} concurrent requests", RETRY_AFTER_S)
        self._in_flight += 1

    def leave(self) -> None:
        """Give a place back."""
        self._in_flight -= 1


class CallInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Guards every unary call of the services that have an admission.

    Health and reflection have none: an overloaded or starting server must still answer those who ask whether it lives.
    The order is: admission, then parsing, so that a refusal costs nothing; then the servicer. The caller gets the
    request id in the trailing metadata (percent-encoded where it is not plain ASCII) whatever happens.

    Args:
        admissions: by full service name; services do not take each other's places.
    """

    def __init__(self, admissions: Mapping[str, Admission], access_log: AccessLog) -> None:
        self._admissions = admissions
        self._log = access_log
        self._guarded: dict[str, _Handler] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[_Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> _Handler:
        method = handler_call_details.method
        guarded = self._guarded.get(method)
        if guarded is not None:
            return guarded
        handler = await continuation(handler_call_details)
        # There is no handler for an unknown method; grpc answers UNIMPLEMENTED by itself.
        admission = self._admissions.get(method.split("/")[1])
        if handler is None or handler.unary_unary is None or admission is None:
            return handler
        # Handlers are fixed once the server is built, so that this grows to the number of methods only.
        guarded = self._guarded[method] = self._guard(method, handler, admission)
        return guarded

    def _guard(self, method: str, handler: _Handler, admission: Admission) -> _Handler:
        parse: Any = handler.request_deserializer
        serve: Any = handler.unary_unary

        async def guarded(raw: bytes, context: _Context) -> Any:
            call = Call(method, context, new_request_id())
            try:
                admission.enter(context)
                try:
                    request = _parse(parse, raw)
                    _agree_on_request_id(request, call)
                    response = await serve(request, context)
                finally:
                    admission.leave()
            except asyncio.CancelledError:
                self._log_cancelled(call)
                raise
            except Exception as error:
                await self._refuse(call, error)
            context.set_trailing_metadata(_request_id_metadata(call.request_id))
            self._log.success(call)
            return response

        # Without a deserializer grpc hands over the raw bytes; its own handling of a parse error shows a Python
        # exception to the caller, with status UNKNOWN.
        return grpc.unary_unary_rpc_method_handler(guarded, None, handler.response_serializer)

    def _log_cancelled(self, call: Call) -> None:
        """gRPC cancels a call at its caller's deadline, and when its caller leaves before; to a log they differ."""
        remaining_s = call.context.time_remaining()
        if remaining_s is None or remaining_s > DEADLINE_TOLERANCE_S:
            self._log.cancelled(call)
            return
        error = DeadlineExceeded("the caller's deadline passed before the answer was ready")
        wire = to_wire(error, call.request_id)
        self._log.failure(call, wire.code, wire.reason, error)

    async def _refuse(self, call: Call, error: Exception) -> None:
        wire = to_wire(error, call.request_id)
        self._log.failure(call, wire.code, wire.reason, error)
        await call.context.abort(wire.code, wire.text, wire.metadata + _request_id_metadata(call.request_id))


def _parse(parse: Callable[[bytes], Any], raw: bytes) -> Any:
    try:
        return parse(raw)
    except DecodeError as error:
        raise InvalidRequest("request", "not a valid message of this method's request type") from error


def _agree_on_request_id(request: Any, call: Call) -> None:
    """Use the caller's id where there is a usable one; give the request the made one where there is none.

    An id that is no good is left for validation to refuse, and the refusal carries the made one. A request type
    without this field keeps the made one.
    """
    given = getattr(request, "request_id", None)
    if given is None:
        return
    if not given:
        request.request_id = call.request_id
    elif text_fault(given, MAX_ID_BYTES) is None:
        call.request_id = given


def _request_id_metadata(request_id: str) -> tuple[tuple[str, str], ...]:
    """Metadata values are printable ASCII; the same encoding as for grpc-message does for the rest."""
    return ((REQUEST_ID_KEY, quote(request_id, safe="!#$&'()*+,/:;=?@[]^`{|}\"<>\\")),)
