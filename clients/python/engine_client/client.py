"""The Python clients, asynchronous and blocking.

    with RecommendationClient("localhost:50051") as client:
        response = client.recommend("u42", "home", item_count=10)
        client.record_events([build_event("u42", EVENT_TYPE_CLICK, response.items[0].item_id, surface="home")])

The channel connects at the first call, within that call's deadline; `wait_until_serving` connects beforehand.
Both hold one channel, which is safe to share and meant to be kept: make one client a process. Every call has a
deadline; UNAVAILABLE is retried with exponential back-off inside it; failures are of engine_client.errors, with the
grpc.RpcError as their cause.
"""

# The generated stubs have no types.
# mypy: disable-error-code="no-any-return, no-untyped-call"

import asyncio
import time
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, ClassVar, Self, Unpack

import grpc

from engine_client.arguments import check_names
from engine_client.channel import (
    DEFAULT_RETRIES,
    DEFAULT_TIMEOUT_S,
    HEALTH_POLL_S,
    HEALTH_REQUEST,
    RECORD_TIMEOUT_S,
    REPORT_TIMEOUT_S,
    channel_options,
    health_check,
    is_serving,
    raise_unless_transient,
)
from engine_client.errors import DependencyUnavailable
from engine_client.requests import (
    ReportFields,
    RequestFields,
    build_batch,
    build_delete,
    build_inventory,
    build_report_request,
    build_request,
    build_upsert,
)
from engine_client.status import translated
from engine_client.v1 import catalog_pb2, event_pb2, experiment_pb2
from engine_client.v1 import recommendation_pb2 as pb
from engine_client.v1.catalog_pb2_grpc import CatalogServiceStub
from engine_client.v1.event_pb2_grpc import EventServiceStub
from engine_client.v1.experiment_pb2_grpc import ExperimentServiceStub
from engine_client.v1.recommendation_pb2_grpc import RecommendationServiceStub


class _Client:
    """What both clients have: a channel and its methods."""

    # grpc or grpc.aio: what opens the channel.
    _transport: ClassVar[Any]

    def __init__(
        self,
        target: str,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        retries: int = DEFAULT_RETRIES,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        options = channel_options(retries)
        if credentials is None:
            channel = self._transport.insecure_channel(target, options)
        else:
            channel = self._transport.secure_channel(target, credentials, options)
        self._channel: Any = channel
        self._target = target
        self._timeout_s = timeout_s
        self._recommend: Any = RecommendationServiceStub(channel).Recommend
        self._record: Any = EventServiceStub(channel).RecordEvents
        self._catalog: Any = CatalogServiceStub(channel)
        self._report: Any = ExperimentServiceStub(channel).GetReport
        self._check: Any = health_check(channel)


class AsyncRecommendationClient(_Client):
    """The asyncio client; make and use it inside one event loop.

    Args:
        target: "host:port", or any grpc target; all addresses of a name are used in turn.
        timeout_s: for each call, its retries included.
        retries: further attempts after UNAVAILABLE, 0 to 4.
        credentials: TLS, e.g. grpc.ssl_channel_credentials(); plain text without.
    """

    _transport: ClassVar[Any] = grpc.aio

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
            TypeError: a keyword that is not there, or a value of another type, such as a string for a list.
            InvalidRequest: with the field and the reason.
            DeadlineExceeded: no answer in time.
            Overloaded: the server is at its limit; try later, or another server.
            DependencyUnavailable: no server could be reached, or it is starting, after all retries.
            EngineError: any other failure.
        """
        check_names("recommend", fields, RequestFields, "timeout_s")
        request = build_request(user_id, surface, **fields)
        return await _answer(self._recommend, request, self._timeout_s if timeout_s is None else timeout_s)

    async def record_events(
        self, events: Iterable[event_pb2.Event], *, timeout_s: float = RECORD_TIMEOUT_S
    ) -> event_pb2.RecordEventsResponse:
        """Record what users did; see `engine_client.build_event`.

        Args:
            events: 1 to 500.
            timeout_s: for this call, its retries included.

        Returns:
            How many were accepted, which are safely in the log, and those rejected with the field and the reason.

        Raises:
            TypeError: something else than a list of events.
            InvalidRequest: the batch itself is empty or too long.
            DeadlineExceeded, Overloaded, DependencyUnavailable, EngineError: as for `recommend`. Nothing of the batch
                has been answered for; the same events may be sent again and count once.
        """
        return await _answer(self._record, build_batch(events), timeout_s)

    async def upsert_items(
        self, items: Iterable[catalog_pb2.Item], *, timeout_s: float = RECORD_TIMEOUT_S
    ) -> catalog_pb2.UpsertItemsResponse:
        """Add items or replace their content: 1 to 100. The response says which were refused, and why.

        Raises as `record_events` does; sending the same batch again is safe.
        """
        return await _answer(self._catalog.UpsertItems, build_upsert(items), timeout_s)

    async def update_inventory(
        self, in_stock: Mapping[str, bool], *, timeout_s: float = RECORD_TIMEOUT_S
    ) -> catalog_pb2.UpdateInventoryResponse:
        """Say of 1 to 1000 items, by id, whether they are in stock. Otherwise as `upsert_items`."""
        return await _answer(self._catalog.UpdateInventory, build_inventory(in_stock), timeout_s)

    async def delete_items(
        self, item_ids: Iterable[str], *, timeout_s: float = RECORD_TIMEOUT_S
    ) -> catalog_pb2.DeleteItemsResponse:
        """Take 1 to 1000 items out of every answer. Otherwise as `upsert_items`."""
        return await _answer(self._catalog.DeleteItems, build_delete(item_ids), timeout_s)

    async def get_report(
        self, experiment: str, *, timeout_s: float = REPORT_TIMEOUT_S, **fields: Unpack[ReportFields]
    ) -> experiment_pb2.ExperimentReport:
        """What an experiment is worth, from a server that has an archive.

        Args:
            fields: see ReportFields.

        Raises:
            TypeError: a keyword that is not there, or a value of another type.
            InvalidRequest: nobody was exposed to it, or a field is wrong.
            DeadlineExceeded, Overloaded, DependencyUnavailable, EngineError: as for `recommend`.
        """
        check_names("get_report", fields, ReportFields, "timeout_s")
        request = build_report_request(experiment, **fields)
        return (await _answer(self._report, request, timeout_s)).report

    async def wait_until_serving(self, timeout_s: float = 30.0) -> None:
        """Return once health says SERVING.

        Raises:
            DependencyUnavailable: it did not within timeout_s.
        """
        deadline = time.monotonic() + timeout_s
        while (remaining_s := deadline - time.monotonic()) > 0:
            try:
                if is_serving(await self._check(HEALTH_REQUEST, timeout=remaining_s, wait_for_ready=True)):
                    return
            except grpc.RpcError as error:
                raise_unless_transient(error)
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


async def _answer(method: Any, request: Any, timeout_s: float) -> Any:
    try:
        return await method(request, timeout=timeout_s)
    except grpc.RpcError as error:
        raise translated(error) from error


class RecommendationClient(_Client):
    """The blocking client, safe to share between threads. Arguments as for AsyncRecommendationClient."""

    _transport: ClassVar[Any] = grpc

    def recommend(
        self,
        user_id: str,
        surface: str,
        *,
        timeout_s: float | None = None,
        **fields: Unpack[RequestFields],
    ) -> pb.RecommendResponse:
        """As AsyncRecommendationClient.recommend, with the same errors."""
        check_names("recommend", fields, RequestFields, "timeout_s")
        request = build_request(user_id, surface, **fields)
        return _answer_blocking(self._recommend, request, self._timeout_s if timeout_s is None else timeout_s)

    def record_events(
        self, events: Iterable[event_pb2.Event], *, timeout_s: float = RECORD_TIMEOUT_S
    ) -> event_pb2.RecordEventsResponse:
        """As AsyncRecommendationClient.record_events, with the same errors."""
        return _answer_blocking(self._record, build_batch(events), timeout_s)

    def upsert_items(
        self, items: Iterable[catalog_pb2.Item], *, timeout_s: float = RECORD_TIMEOUT_S
    ) -> catalog_pb2.UpsertItemsResponse:
        """As AsyncRecommendationClient.upsert_items, with the same errors."""
        return _answer_blocking(self._catalog.UpsertItems, build_upsert(items), timeout_s)

    def update_inventory(
        self, in_stock: Mapping[str, bool], *, timeout_s: float = RECORD_TIMEOUT_S
    ) -> catalog_pb2.UpdateInventoryResponse:
        """As AsyncRecommendationClient.update_inventory, with the same errors."""
        return _answer_blocking(self._catalog.UpdateInventory, build_inventory(in_stock), timeout_s)

    def delete_items(
        self, item_ids: Iterable[str], *, timeout_s: float = RECORD_TIMEOUT_S
    ) -> catalog_pb2.DeleteItemsResponse:
        """As AsyncRecommendationClient.delete_items, with the same errors."""
        return _answer_blocking(self._catalog.DeleteItems, build_delete(item_ids), timeout_s)

    def get_report(
        self, experiment: str, *, timeout_s: float = REPORT_TIMEOUT_S, **fields: Unpack[ReportFields]
    ) -> experiment_pb2.ExperimentReport:
        """As AsyncRecommendationClient.get_report, with the same errors."""
        check_names("get_report", fields, ReportFields, "timeout_s")
        request = build_report_request(experiment, **fields)
        return _answer_blocking(self._report, request, timeout_s).report

    def wait_until_serving(self, timeout_s: float = 30.0) -> None:
        """As AsyncRecommendationClient.wait_until_serving."""
        deadline = time.monotonic() + timeout_s
        while (remaining_s := deadline - time.monotonic()) > 0:
            try:
                if is_serving(self._check(HEALTH_REQUEST, timeout=remaining_s, wait_for_ready=True)):
                    return
            except grpc.RpcError as error:
                raise_unless_transient(error)
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


def _answer_blocking(method: Any, request: Any, timeout_s: float) -> Any:
    try:
        return method(request, timeout=timeout_s)
    except grpc.RpcError as error:
        raise translated(error) from error
