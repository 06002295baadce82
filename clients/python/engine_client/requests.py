"""The API's messages from Python values, for clients."""

import datetime
import uuid
from collections.abc import Iterable, Mapping
from typing import TypedDict, Unpack

from engine_client.arguments import checked, checked_fields
from engine_client.errors import InvalidRequest
from engine_client.types import Demographics, Priority
from engine_client.v1 import catalog_pb2, event_pb2, experiment_pb2
from engine_client.v1 import recommendation_pb2 as pb

# Of a whole message; the largest valid request is under 300 KB.
MAX_REQUEST_BYTES = 1 << 20


class RequestFields(TypedDict, total=False):
    """The optional fields of a request, as in the API; what is absent or None gets the server's default.

    time: the moment to recommend for, with its zone; the server's clock by default.
    session_id: who this is to experiments where user_id is empty.
    experiment_overrides: experiment to variant, for testers.
    priority: what an overloaded server does with it; the surface's own by default.
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
    session_id: str | None
    experiment_overrides: Mapping[str, str]
    priority: Priority | None


def build_request(user_id: str, surface: str, **fields: Unpack[RequestFields]) -> pb.RecommendRequest:
    """The API's message.

    Raises:
        InvalidRequest: a value that the message cannot hold, or a time without its zone. Limits are the server's.
        TypeError: a keyword that is not there, or a value of another type.
    """
    given = checked_fields("build_request", fields, RequestFields)
    moment, demographics = given.get("time"), given.get("demographics")
    priority = given.get("priority")
    _check_zone("context.time", moment)
    try:
        request = pb.RecommendRequest(
            user_id=checked("user_id", user_id, str),
            surface=checked("surface", surface, str),
            item_count=given.get("item_count"),
            context=pb.Context(device=given.get("device"), country=given.get("country")),
            exclude_item_ids=given.get("exclude_item_ids"),
            diversity_weight=given.get("diversity_weight"),
            request_id=given.get("request_id"),
            debug=given.get("debug"),
            priority=None if priority is None else f"PRIORITY_{Priority(priority).name}",
            session_id=given.get("session_id"),
            experiment_overrides=[
                pb.ExperimentOverride(experiment=experiment, variant=variant)
                for experiment, variant in given.get("experiment_overrides", {}).items()
            ],
        )
        if moment is not None:
            request.context.time.FromDatetime(moment)
        if demographics is not None:
            request.demographics.age_group = demographics.age_group
            request.demographics.location = demographics.location
            request.demographics.signup_source = demographics.signup_source
    except ValueError as error:
        raise InvalidRequest("request", str(error)) from error
    _check_size(request.ByteSize())
    return request


class EventFields(TypedDict, total=False):
    """The optional fields of an event, as in the API; what is absent or None is not said.

    event_id: a new random one by default. An event that is sent again must keep its id, or it counts twice;
        it may be sent again for 24 hours.
    time: when it happened, with its zone; now by default.
    value: money, for a purchase, and for a return what is given back; never negative. dwell_ms: for dwell.
    request_id, position: of the recommendation that led here.
    """

    event_id: str | None
    time: datetime.datetime | None
    surface: str | None
    session_id: str | None
    device: str | None
    country: str | None
    value: float | None
    dwell_ms: int | None
    request_id: str | None
    position: int | None


def build_event(
    user_id: str, event_type: event_pb2.EventType, item_id: str, **fields: Unpack[EventFields]
) -> event_pb2.Event:
    """One event, ready for `record_events`.

    Args:
        event_type: such as event_pb2.EVENT_TYPE_CLICK.

    Raises:
        InvalidRequest: a value that the message cannot hold, or a time without its zone. Limits are the server's.
        TypeError: a keyword that is not there, or a value of another type.
    """
    given = checked_fields("build_event", fields, EventFields)
    moment = given.get("time")
    _check_zone("time", moment)
    try:
        event = event_pb2.Event(
            event_id=given.get("event_id") or uuid.uuid4().hex,
            user_id=checked("user_id", user_id, str),
            type=event_type,
            item_id=checked("item_id", item_id, str),
            surface=given.get("surface"),
            session_id=given.get("session_id"),
            device=given.get("device"),
            country=given.get("country"),
            value=given.get("value"),
            dwell_ms=given.get("dwell_ms"),
            request_id=given.get("request_id"),
            position=given.get("position"),
        )
        event.time.FromDatetime(moment or datetime.datetime.now(datetime.UTC))
    except ValueError as error:
        raise InvalidRequest("event", str(error)) from error
    return event


def build_batch(events: Iterable[event_pb2.Event]) -> event_pb2.RecordEventsRequest:
    """The API's message; TypeError for other than events, InvalidRequest where the server would not take it in."""
    request = event_pb2.RecordEventsRequest(events=checked("events", events, Iterable[event_pb2.Event]))
    _check_size(request.ByteSize())
    return request


def build_upsert(items: Iterable[catalog_pb2.Item]) -> catalog_pb2.UpsertItemsRequest:
    """The API's message; TypeError for other than items."""
    return catalog_pb2.UpsertItemsRequest(items=checked("items", items, Iterable[catalog_pb2.Item]))


def build_inventory(in_stock: Mapping[str, bool]) -> catalog_pb2.UpdateInventoryRequest:
    """The API's message from item ids and whether each is in stock; TypeError for other than a mapping of those."""
    stock: dict[str, bool] = checked("in_stock", in_stock, Mapping[str, bool])
    levels = [catalog_pb2.StockLevel(item_id=item_id, in_stock=bool(there)) for item_id, there in stock.items()]
    return catalog_pb2.UpdateInventoryRequest(levels=levels)


def build_delete(item_ids: Iterable[str]) -> catalog_pb2.DeleteItemsRequest:
    """The API's message; TypeError for other than a list of ids."""
    return catalog_pb2.DeleteItemsRequest(item_ids=checked("item_ids", item_ids, Iterable[str]))


class ReportFields(TypedDict, total=False):
    """The optional fields of a request for a report, as in the API. Times with their zone."""

    surface: str | None
    served_from: datetime.datetime | None
    served_to: datetime.datetime | None
    control: str | None
    shares: Mapping[str, float] | None


def build_report_request(experiment: str, **fields: Unpack[ReportFields]) -> experiment_pb2.GetReportRequest:
    """The API's message; errors as for build_request. Limits are the server's."""
    given = checked_fields("build_report_request", fields, ReportFields)
    request = experiment_pb2.GetReportRequest(
        experiment=checked("experiment", experiment, str),
        surface=given.get("surface"),
        control=given.get("control"),
        shares=given.get("shares"),
    )
    for name in ("served_from", "served_to"):
        moment = given.get(name)
        _check_zone(name, moment)
        if moment is not None:
            getattr(request, name).FromDatetime(moment)
    return request


def _check_zone(field: str, moment: datetime.datetime | None) -> None:
    if moment is not None and moment.tzinfo is None:
        raise InvalidRequest(field, "needs a time zone; a naive datetime could mean any of them")


def _check_size(size: int) -> None:
    # The server would refuse it with RESOURCE_EXHAUSTED, which reads like overload.
    if size > MAX_REQUEST_BYTES:
        raise InvalidRequest("request", f"must be at most {MAX_REQUEST_BYTES} bytes, got {size}")
