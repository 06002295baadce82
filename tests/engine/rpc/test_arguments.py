"""What a caller of either client gets wrong is said before anything is sent, and by its name."""

import asyncio
import datetime
import re
from collections.abc import AsyncIterator, Callable, Iterator
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from engine_client import AsyncRecommendationClient, RecommendationClient
from engine_client.requests import (
    build_batch,
    build_delete,
    build_event,
    build_inventory,
    build_report_request,
    build_request,
    build_upsert,
)
from engine_client.v1 import catalog_pb2, event_pb2

CLICK = event_pb2.EVENT_TYPE_CLICK
EVENT = event_pb2.Event(event_id="e")
ITEM = catalog_pb2.Item(item_id="i")
Call = Callable[..., Any]


@pytest.fixture(params=["async", "blocking"])
async def call(request: pytest.FixtureRequest) -> AsyncIterator[Call]:
    """call(method, …) of a client whose server is not there: a call that is sent would end otherwise."""
    if request.param == "async":
        async with AsyncRecommendationClient("127.0.0.1:1", retries=0) as client:
            yield lambda method, *args, **fields: getattr(client, method)(*args, **fields)
    else:
        with RecommendationClient("127.0.0.1:1", retries=0) as blocking:
            yield lambda method, *args, **fields: asyncio.to_thread(getattr(blocking, method), *args, **fields)


RECOMMEND = [
    ({"item_cuont": 3}, "recommend() got an unexpected keyword argument 'item_cuont'; did you mean 'item_count'?"),
    ({"timeout": 3}, "'timeout'; did you mean 'timeout_s'?"),
    ({"exclude": ["a"]}, "'exclude'; did you mean 'exclude_item_ids'?"),
    ({"category": "shoes"}, "'category'; there are country, debug, "),
    ({"exclude_item_ids": "abc"}, "exclude_item_ids: must be a list of str, got the str 'abc'; put it into a list"),
    ({"exclude_item_ids": b"abc"}, "exclude_item_ids: must be a list of str"),
    ({"exclude_item_ids": 5}, "exclude_item_ids: must be a list of str, got the int 5"),
    ({"exclude_item_ids": ["a", 5]}, "exclude_item_ids[1]: must be a str, got the int 5"),
    ({"exclude_item_ids": [None]}, "exclude_item_ids[0]: must be a str, got the NoneType None"),
    ({"item_count": "3"}, "item_count: must be an int, got the str '3'"),
    ({"item_count": 3.0}, "item_count: must be an int, got the float 3.0"),
    ({"diversity_weight": "0.1"}, "diversity_weight: must be a float, got the str '0.1'"),
    ({"debug": "false"}, "debug: must be a bool, got the str 'false'"),
    ({"device": ["mobile"]}, "device: must be a str, got the list ['mobile']"),
    ({"time": "2024-05-01"}, "time: must be a datetime, got the str"),
    ({"demographics": {"location": "DE"}}, "demographics: must be a Demographics, got the dict"),
    ({"experiment_overrides": "a"}, "experiment_overrides: must be a mapping of str to str, got the str 'a'"),
    ({"experiment_overrides": {"a": 1}}, "experiment_overrides['a']: must be a str, got the int 1"),
]
REPORT = [
    ({"surfaces": "home"}, "get_report() got an unexpected keyword argument 'surfaces'; did you mean 'surface'?"),
    ({"shares": [0.5, 0.5]}, "shares: must be a mapping of str to float, got the list"),
    ({"served_from": "2024-05-01"}, "served_from: must be a datetime, got the str"),
]
POSITIONAL = [
    ("recommend", (7, "home"), "user_id: must be a str, got the int 7"),
    ("recommend", ("u", ["home"]), "surface: must be a str, got the list ['home']"),
    ("record_events", (EVENT,), 'events: must be a list of Event, got the Event event_id: "e"; put it into a list'),
    ("record_events", ("click",), "events: must be a list of Event, got the str 'click'"),
    ("record_events", ([EVENT, {"user_id": "u"}],), "events[1]: must be an Event, got the dict"),
    ("upsert_items", (ITEM,), "items: must be a list of Item, got the Item"),
    ("upsert_items", (["i"],), "items[0]: must be an Item, got the str 'i'"),
    ("delete_items", ("i-1",), "item_ids: must be a list of str, got the str 'i-1'; put it into a list"),
    ("delete_items", ([ITEM],), "item_ids[0]: must be a str, got the Item"),
    ("update_inventory", ("i-1",), "in_stock: must be a mapping of str to bool, got the str 'i-1'"),
    ("update_inventory", ([("i-1", True)],), "in_stock: must be a mapping of str to bool, got the list"),
    ("update_inventory", ({"i-1": "false"},), "in_stock['i-1']: must be a bool, got the str 'false'"),
    ("update_inventory", ({1: True},), "in_stock: a key: must be a str, got the int 1"),
    ("get_report", (1,), "experiment: must be a str, got the int 1"),
]


@pytest.mark.parametrize(
    ("method", "args", "fields", "said"),
    [
        *(("recommend", ("u", "home"), fields, said) for fields, said in RECOMMEND),
        *(("get_report", ("e",), fields, said) for fields, said in REPORT),
        *((method, args, {}, said) for method, args, said in POSITIONAL),
    ],
)
async def test_clients(call: Call, method: str, args: tuple[Any, ...], fields: dict[str, Any], said: str) -> None:
    with pytest.raises(TypeError, match=re.escape(said)):
        await call(method, *args, **fields)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"dwell": 5}, "build_event() got an unexpected keyword argument 'dwell'; did you mean 'dwell_ms'?"),
        ({"timestamp": 5}, "'timestamp'"),
        ({"dwell_ms": "5"}, "dwell_ms: must be an int"),
        ({"value": "9,99"}, "value: must be a float"),
        ({"time": 1_700_000_000}, "time: must be a datetime"),
    ],
)
def test_events(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(TypeError, match=re.escape(said)):
        build_event("u", CLICK, "i", **fields)


def test_builders_speak_for_themselves() -> None:
    with pytest.raises(TypeError, match=r"build_request\(\) got an unexpected keyword argument 'timeout_s'"):
        build_request("u", "home", timeout_s=3)
    with pytest.raises(TypeError, match=r"build_report_request\(\) got an unexpected keyword argument 'x'"):
        build_report_request("e", x=3)


def test_every_iterable_of_texts_is_a_list() -> None:
    def ids() -> Iterator[str]:
        yield from ("a", "b")

    for given in (ids(), ("a", "b"), dict.fromkeys("ab"), dict.fromkeys("ab").keys(), np.array(["a", "b"])):
        assert build_request("u", "home", exclude_item_ids=given).exclude_item_ids == ["a", "b"]
    assert build_delete(ids()).item_ids == ["a", "b"]
    assert [event.event_id for event in build_batch(iter([EVENT])).events] == ["e"]
    assert [item.item_id for item in build_upsert(iter([ITEM])).items] == ["i"]


def test_numbers_of_other_libraries_are_numbers() -> None:
    request = build_request(
        "u", "home", item_count=np.int64(3), diversity_weight=np.float32(0.5), debug=np.bool_(True), device=None
    )
    assert (request.item_count, request.diversity_weight, request.debug) == (3, 0.5, True)
    event = build_event("u", CLICK, "i", value=Decimal("9.5"), dwell_ms=np.int32(5))
    assert (event.value, event.dwell_ms) == (9.5, 5)
    assert [level.in_stock for level in build_inventory({"a": np.bool_(False), "b": 1}).levels] == [False, True]
    assert build_report_request("e", shares={"a": 1}).shares == {"a": 1.0}


def test_none_is_as_good_as_absent() -> None:
    names = ("item_count", "time", "device", "exclude_item_ids", "debug", "experiment_overrides", "demographics")
    assert build_request("u", "home", **dict.fromkeys(names)) == build_request("u", "home")
    now = datetime.datetime.now(datetime.UTC)
    event = build_event("u", CLICK, "i", time=now, value=None, surface=None)
    assert not event.HasField("value")
