"""The Python clients, asynchronous and blocking.

    with RecommendationClient("localhost:50051") as client:
        response = client.recommend("u42", "home", item_count=10)

The channel connects at the first call, within that call's deadline; `wait_until_serving` connects beforehand.
Both hold one channel, which is safe to share and meant to be kept: make one client a process. Every call has a
deadline; UNAVAILABLE is retried with exponential back-off inside it; failures are engine.errors, with the
grpc.RpcError as their cause.
"""

import asyncio
import datetime
import json
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self, TypedDict, Unpack

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from engine.errors import DependencyUnavailable, EngineError, InvalidRequest
from engine.rpc.status import from_wire
from engine.rpc.validate import MAX_REQUEST_BYTES
from engine.types import Demographics
from engine.v1 import recommendation_pb2 as pb
from engine.v1 import recommendation_pb2_grpc as pb_grpc

SERVICE_NAME: str = pb.DESCRIPTOR.services_by_name["RecommendationService"].full_name
DEFAULT_TIMEOUT_S = 0.2
DEFAULT_RETRIES = 3
# grpc allows five attempts in all.
MAX_RETRIES = 4
HEALTH_POLL_S = 0.05


class RequestFields(TypedDict, total=False):
    """The optional fields of a request, as in the API; what is absent or None gets the server's default.

    time: the moment to recommend for, with its zone; the server's clock by default.
    """

    item_count: int | None
    time: datetime.datetime | None
    device: str | None
    country: str | None
    demographics: Demographics | None
    exclude_item_ids: Iterable[str]
    diversity_weight: float | None
    request_id: str | None
    debug: bool


def build_request(user_id: str, surface: str, **fields: Unpack[RequestFields]) -> pb.RecommendRequest:
    """The API's message.

    Raises:
        InvalidRequest: a value that the message cannot hold, or a time without its zone. Limits are the server's.
        TypeError: a value of another type.
    """
    moment, demographics = fields.get("time"), fields.get("demographics")
    if moment is not None and moment.tzinfo is None:
        raise InvalidRequest("context.time", "needs a time zone; a naive datetime could mean any of them")
    try:
        request = pb.RecommendRequest(
            user_id=user_id,
            surface=surface,
            item_count=fields.get("item_count"),
            context=pb.Context(device=fields.get("device"), country=fields.get("country")),
            exclude_item_ids=fields.get("exclude_item_ids"),
            diversity_weight=fields.get("diversity_weight"),
            request_id=fields.get("request_id"),
            debug=fields.get("debug", False),
        )
        if moment is not None:
            request.context.time.FromDatetime(moment)
        if demographics is not None:
            request.demographics.age_group = demographics.age_group
            request.demographics.location = demographics.location
            request.demographics.signup_source = demographics.signup_source
    except ValueError as error:
        raise InvalidRequest("request", str(error)) from error
    # The server would refuse it with RESOURCE_EXHAUSTED, which reads like overload.
    if request.ByteSize() > MAX_REQUEST_BYTES:
        raise InvalidRequest("request", f"must be at most {MAX_REQUEST_BYTES} bytes, got {request.ByteSize()}")
    return request


class AsyncRecommendationClient:
    """The asyncio client; make and use it inside one event loop.

    Args:
        target: "host:port", or any grpc target; all addresses behind a name are used in turn.
        timeout_s: for each call, its retries included.
        retries: further attempts after UNAVAILABLE, 0 to 4.
        credentials: TLS, e.g. grpc.ssl_channel_credentials(); plain text without.
    """

    def __init__(
        self,
        target: str,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        retries: int = DEFAULT_RETRIES,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        self._target = target
        self._timeout_s = timeout_s
        options = _channel_options(retries)
        if credentials is None:
            self._channel = grpc.aio.insecure_channel(target, options)
        else:
            self._channel = grpc.aio.secure_channel(target, credentials, options)
        self._recommend: Any = pb_grpc.RecommendationServiceStub(self._channel).Recommend  # type: ignore[no-untyped-call]
        self._check: Any = health_pb2_grpc.HealthStub(self._channel).Check

    async def recommend(
        self,
        user_id: str,
        surface: str,
        *,
        timeout_s: float | None = None,
        **fields: Unpack[RequestFields],
    ) -> pb.RecommendResponse:
        """What this user most likely wants now, on this surface.

        Args:
            timeout_s: for this call; the client's when None.
            fields: see RequestFields.

        Raises:
            InvalidRequest: with the field and the reason.
            DeadlineExceeded: no answer in time.
            Overloaded: the server is at its limit; try later or elsewhere.
            DependencyUnavailable: no server could be reached, or it is starting, after all retries.
            EngineError: any other failure.
        """
        request = build_request(user_id, surface, **fields)
        try:
            response: pb.RecommendResponse = await self._recommend(
                request, timeout=self._timeout_s if timeout_s is None else timeout_s
            )
        except grpc.RpcError as error:
            raise _translated(error) from error
        return response

    async def wait_until_serving(self, timeout_s: float = 30.0) -> None:
        """Return once health says SERVING.

        Raises:
            DependencyUnavailable: it did not within timeout_s.
        """
        deadline = time.monotonic() + timeout_s
        while (remaining_s := deadline - time.monotonic()) > 0:
            try:
                if _is_serving(await self._check(_health_request(), timeout=remaining_s, wait_for_ready=True)):
                    return
            except grpc.RpcError as error:
                _raise_unless_transient(error)
            await asyncio.sleep(HEALTH_POLL_S)
        raise DependencyUnavailable(f"{self._target} was not serving within {timeout_s:g} s")

    async def close(self) -> None:
        """Close the channel; calls in flight are cancelled."""
        await self._channel.close(None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class RecommendationClient:
    """The blocking client, safe to share between threads. Arguments as for AsyncRecommendationClient."""

    def __init__(
        self,
        target: str,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        retries: int = DEFAULT_RETRIES,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        self._target = target
        self._timeout_s = timeout_s
        options = _channel_options(retries)
        if credentials is None:
            self._channel = grpc.insecure_channel(target, options)
        else:
            self._channel = grpc.secure_channel(target, credentials, options)
        self._recommend: Any = pb_grpc.RecommendationServiceStub(self._channel).Recommend  # type: ignore[no-untyped-call]
        self._check: Any = health_pb2_grpc.HealthStub(self._channel).Check

    def recommend(
        self,
        user_id: str,
        surface: str,
        *,
        timeout_s: float | None = None,
        **fields: Unpack[RequestFields],
    ) -> pb.RecommendResponse:
        """As AsyncRecommendationClient.recommend, with the same errors."""
        request = build_request(user_id, surface, **fields)
        try:
            response: pb.RecommendResponse = self._recommend(
                request, timeout=self._timeout_s if timeout_s is None else timeout_s
            )
        except grpc.RpcError as error:
            raise _translated(error) from error
        return response

    def wait_until_serving(self, timeout_s: float = 30.0) -> None:
        """As AsyncRecommendationClient.wait_until_serving."""
        deadline = time.monotonic() + timeout_s
        while (remaining_s := deadline - time.monotonic()) > 0:
            try:
                if _is_serving(self._check(_health_request(), timeout=remaining_s, wait_for_ready=True)):
                    return
            except grpc.RpcError as error:
                _raise_unless_transient(error)
            time.sleep(HEALTH_POLL_S)
        raise DependencyUnavailable(f"{self._target} was not serving within {timeout_s:g} s")

    def close(self) -> None:
        """Close the channel; calls in flight are cancelled."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _channel_options(retries: int) -> list[tuple[str, Any]]:
    if not 0 <= retries <= MAX_RETRIES:
        raise ValueError(f"retries must be between 0 and {MAX_RETRIES}, got {retries}")
    method: dict[str, Any] = {"name": [{"service": SERVICE_NAME}]}
    if retries:
        method["retryPolicy"] = {
            "maxAttempts": retries + 1,
            # 20, 40, 80 ms, each ±20%: all of them fit into the default timeout.
            "initialBackoff": "0.02s",
            "maxBackoff": "1s",
            "backoffMultiplier": 2,
            "retryableStatusCodes": ["UNAVAILABLE"],
        }
    service_config = {
        "loadBalancingConfig": [{"round_robin": {}}],
        # A replica that says NOT_SERVING gets no calls while another one serves.
        "healthCheckConfig": {"serviceName": SERVICE_NAME},
        "methodConfig": [method],
    }
    return [
        ("grpc.service_config", json.dumps(service_config)),
        # Reconnecting after a second, grpc's default, would make every retry above fail fast on the same refusal.
        ("grpc.initial_reconnect_backoff_ms", 50),
        ("grpc.max_reconnect_backoff_ms", 5_000),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 5_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
    ]


def _translated(error: grpc.RpcError) -> EngineError:
    # Both kinds of call failure have these three; the stub's base class has none.
    failure: Any = error
    return from_wire(failure.code(), failure.details(), failure.trailing_metadata())


def _health_request() -> Any:
    return health_pb2.HealthCheckRequest(service=SERVICE_NAME)


def _is_serving(response: Any) -> bool:
    return bool(response.status == health_pb2.HealthCheckResponse.SERVING)


def _raise_unless_transient(error: grpc.RpcError) -> None:
    failure: Any = error
    if failure.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
        raise _translated(error) from error
