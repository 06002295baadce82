"""Every bad value, carried to every door: API, table, catalogue, overlay and archive give one verdict."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from engine.catalog.content import to_frame
from engine.contract.events import SCHEMA_VERSION, EventRules, decode, encode, split_batch
from engine.contract.items import CatalogueRules, split_items
from engine.contract.limits import MAX_ITEM_COUNT, TIME_END_S
from engine.data.inspect import inspect_directory, read_event_log
from engine.data.rules import TableRules
from engine.data.schema import INTERACTIONS, ITEMS, USERS
from engine.errors import DataError, PoisonMessage
from engine.kernels.event_scan import TYPE, scan_events
from engine.stream.archive import ARCHIVE_SCHEMA
from engine.stream.events import TEXT_LIMITS, read_events
from engine.stream.protocols import Message
from engine_client.v1 import catalog_pb2, event_pb2

NOW_MS = 1_790_000_000_000
DAY_MS = 86_400_000
SURFACES = frozenset({"home", "cart"})
CATEGORIES = frozenset({"shoes"})
RULES = TableRules(SURFACES, CATEGORIES, max_ahead_ms=300_000, now_ms=NOW_MS)
Row = Mapping[str, Any]
Door = Callable[[Row, Path], bool]

EVENT: Row = {
    "user_id": "u", "item_id": "i", "event_type": "click", "timestamp_ms": NOW_MS - 1000, "value": None,
    "surface": "home", "device": "mobile", "country": "DE", "session_id": "s", "event_id": "e",
}  # fmt: skip
ITEM: Row = {
    "item_id": "new", "title": "Shoe", "description": "line\nline", "category": "shoes", "brand": "b", "seller": "s",
    "price": 9.5, "published_ms": NOW_MS, "in_stock": True, "attributes": "red|big", "surfaces": "home",
}  # fmt: skip
PURCHASE = {"event_type": "purchase", "value": 5.0}

# Texts that no door takes, by the bytes that the field may have.
TEXTS: dict[str, Callable[[int], str]] = {
    "a NUL": lambda most: "a\x00b",
    "a line end": lambda most: "a\nb",
    "a tab": lambda most: "\t",
    "an escape": lambda most: "a\x1b[31m",
    "DEL": lambda most: "a\x7f",
    "C1": lambda most: "a\x85",
    "too long": lambda most: "x" * (most + 1),
    "too long in UTF-8 only": lambda most: "é" * (most // 2) + "x",
}
EVENT_TEXTS = {"user_id": 256, "item_id": 256, "event_id": 128, "session_id": 256, "surface": 64, "device": 64,
               "country": 64}  # fmt: skip
ITEM_TEXTS = {"item_id": 256, "title": 512, "category": 256, "brand": 256, "seller": 256, "attributes": 64,
              "surfaces": 64}  # fmt: skip

BAD_EVENTS: dict[str, Row] = {
    **{f"{field}: {name}": {field: make(most)} for field, most in EVENT_TEXTS.items() for name, make in TEXTS.items()},
    "no user": {"user_id": ""},
    "no item": {"item_id": ""},
    "no type": {"event_type": ""},
    "a type that there is not": {"event_type": "buy"},
    "a type in capitals": {"event_type": "CLICK"},
    "seconds for milliseconds": {"timestamp_ms": NOW_MS // 1000},
    "microseconds": {"timestamp_ms": NOW_MS * 1000},
    "before 1970": {"timestamp_ms": -1},
    "the beginning of time": {"timestamp_ms": 0},
    "2099": {"timestamp_ms": 4_070_908_800_000},
    "the last time that may be seconds": {"timestamp_ms": 4_133_980_799},
    "the last millisecond of 2100": {"timestamp_ms": 4_133_980_800_000 - 1},
    "2101": {"timestamp_ms": 4_133_980_800_000},
    "ahead by more than a wrong clock": {"timestamp_ms": NOW_MS + 300_001},
    "nine hours ahead": {"timestamp_ms": NOW_MS + 9 * 3_600_000},
    "an unknown surface": {"surface": "nowhere"},
    "a negative purchase": {**PURCHASE, "value": -25.0},
    "a negative return": {"event_type": "return", "value": -25.0},
    "a purchase for NaN": {**PURCHASE, "value": math.nan},
    "a purchase for infinity": {**PURCHASE, "value": math.inf},
    "a purchase for minus infinity": {**PURCHASE, "value": -math.inf},
    "a click with a value": {"value": 1.0},
    "a view for nothing": {"event_type": "view", "value": 0.0},
    "a cart with a value": {"event_type": "cart", "value": 3.0},
}
GOOD_EVENTS: dict[str, Row] = {
    "as it is": {},
    "longest": {"user_id": "é" * 128, "item_id": "i" * 256, "event_id": "e" * 128, "session_id": "s" * 256,
                "device": "d" * 64, "country": "c" * 64},
    "purchase": PURCHASE,
    "free of charge": {**PURCHASE, "value": 0.0},
    "return": {"event_type": "return", "value": 5.0},
    "outside of all surfaces": {"surface": ""},
    "a clock that is a little wrong": {"timestamp_ms": NOW_MS + 300_000},
    "the first time that cannot be seconds": {"timestamp_ms": 4_133_980_800},
    "minus nothing": {**PURCHASE, "value": -0.0},
    "the smallest amount": {**PURCHASE, "value": 5e-324},
    "the largest amount": {**PURCHASE, "value": 1.7976931348623157e308},
}  # fmt: skip
# Fields that no table of interactions has.
BAD_MESSAGES: dict[str, Row] = {
    **{f"request_id: {name}": {"request_id": make(256)} for name, make in TEXTS.items()},
    "no id": {"event_id": ""},
    "a negative position": {"position": -1},
    "a position behind the last": {"position": 201},
    "a click that lasts": {"dwell_ms": 1},
    "a dwell without a duration": {"event_type": "dwell"},
    "a dwell of no time": {"event_type": "dwell", "dwell_ms": 0},
    "a dwell of less than no time": {"event_type": "dwell", "dwell_ms": -1},
    "a dwell with a value": {"event_type": "dwell", "dwell_ms": 1, "value": 1.0},
    "a purchase for an unknown amount": {"event_type": "purchase"},
    "a return of an unknown amount": {"event_type": "return"},
}
GOOD_MESSAGES: dict[str, Row] = {
    "the longest request id": {"request_id": "r" * 256},
    "the last position": {"position": 200},
    "the shortest dwell": {"event_type": "dwell", "dwell_ms": 1},
    "the longest dwell": {"event_type": "dwell", "dwell_ms": 2**63 - 1},
}
# What a deployment decides was the server's to judge when it took the event in: the log stays what it is whatever the
# clock and the settings say later. Training, which reads the archive, knows the clock.
OF_THE_CLOCK = {
    "seconds for milliseconds", "the beginning of time", "the last time that may be seconds", "2099",
    "the last millisecond of 2100", "ahead by more than a wrong clock", "nine hours ahead",
}  # fmt: skip
OF_THE_SETTINGS = {"an unknown surface"}

BAD_ITEMS: dict[str, Row] = {
    **{f"{field}: {name}": {field: make(most)} for field, most in ITEM_TEXTS.items() for name, make in TEXTS.items()},
    "description: a NUL": {"description": "a\x00b"},
    "description: an escape": {"description": "a\x1b"},
    "description: too long": {"description": "x" * 4097},
    "no id": {"item_id": ""},
    "no title": {"title": ""},
    "a negative price": {"price": -0.01},
    "a price of NaN": {"price": math.nan},
    "an infinite price": {"price": math.inf},
    "33 attributes": {"attributes": "|".join(f"a{number}" for number in range(33))},
    "an empty attribute": {"attributes": "red||big"},
    "an attribute that ends in a separator": {"attributes": "red|"},
    "an unknown surface": {"surfaces": "home|nowhere"},
    "1001 surfaces": {"surfaces": "|".join(["home"] * 1001)},
    "no surface between two": {"surfaces": "home||cart"},
    "a category that is not allowed": {"category": "hats"},
    "no category where they are closed": {"category": ""},
    "came out in 1500": {"published_ms": -14_831_769_600_000},
    "came out before the first Gregorian day": {"published_ms": -12_219_292_800_001},
    "will come out in 2101": {"published_ms": 4_133_980_800_000},
    "microseconds": {"published_ms": NOW_MS * 1000},
}
GOOD_ITEMS: dict[str, Row] = {
    "as it is": {},
    "longest": {"item_id": "i" * 256, "title": "é" * 256, "description": "x" * 4096, "brand": "b" * 256,
                "seller": "s" * 256, "attributes": "|".join(f"{number:064}" for number in range(32))},
    "on many surfaces": {"surfaces": "|".join(["home"] * 1000)},
    "bare": {"description": "", "brand": "", "seller": "", "price": None, "published_ms": None, "attributes": "",
             "surfaces": ""},
    "for nothing": {"price": 0.0},
    "came out on the first Gregorian day": {"published_ms": -12_219_292_800_000},
    "comes out at the end of 2100": {"published_ms": 4_133_980_799_999},
}  # fmt: skip


def as_message(row: Row) -> event_pb2.Event:
    texts = ("event_id", "user_id", "item_id", "surface", "session_id", "device", "country")
    name = f"EVENT_TYPE_{row['event_type'].upper()}"
    known = row["event_type"].islower() and name in event_pb2.EventType.keys()  # noqa: SIM118
    event = event_pb2.Event(
        **{name: row[name] for name in texts},
        type=event_pb2.EventType.Value(name) if known else event_pb2.EVENT_TYPE_UNSPECIFIED,
        **{name: row[name] for name in ("value", "dwell_ms", "request_id", "position") if row.get(name) is not None},
    )
    event.time.seconds, milliseconds = divmod(row["timestamp_ms"], 1000)
    event.time.nanos = milliseconds * 1_000_000
    return event


def api(row: Row, _: Path) -> bool:
    accepted, rejected = split_batch([as_message(row)], EventRules(SURFACES, 60 * 365 * DAY_MS, 300_000), NOW_MS)
    assert len(accepted) + len(rejected) == 1
    return bool(accepted)


def log_reader(row: Row, _: Path) -> bool:
    """What the processor and the archive's writer take from Kafka."""
    try:
        decode(encode(as_message(row), NOW_MS))
    except PoisonMessage:
        return False
    return True


def scan(row: Row, _: Path) -> bool:
    """The scan kernel, which takes many messages at once and leaves to the log's reader what is not plain."""
    event = as_message(row)
    batch, poison = read_events([Message(0, 0, b"u", encode(event, NOW_MS)), Message(0, 1, b"u", NEIGHBOUR)])
    assert len(batch.user_ids) + len(poison) == 2
    return not poison


def frame(row: Row, schema: Mapping[str, type[pl.DataType]]) -> pl.DataFrame:
    return pl.DataFrame([{name: None if value == "" else value for name, value in row.items()}], schema=schema)


def directory_door(suffix: str, table: str) -> Door:
    def door(row: Row, home: Path) -> bool:
        tables = {"interactions": frame(EVENT, INTERACTIONS.polars), "items": frame(ITEM, ITEMS.polars)}
        tables[table] = frame(row, INTERACTIONS.polars if table == "interactions" else ITEMS.polars)
        if table == "interactions":
            # That there is such an item is no matter of what its id may be.
            item = ITEM | {"item_id": row["item_id"] or "i"}
            tables["items"] = frame(item, ITEMS.polars)
        else:
            tables["interactions"] = frame(EVENT | {"item_id": row["item_id"] or "i"}, INTERACTIONS.polars)
        for name, content in tables.items():
            path = home / f"{name}{suffix}"
            content.write_parquet(path) if suffix == ".parquet" else content.write_csv(path)
        found = inspect_directory(home, RULES)
        faults = [fault for fault in found.faults if fault.source == str(home / f"{table}{suffix}")]
        assert all("row 1: " in str(fault) for fault in faults)
        if not faults:
            return found.usable().items.height == 1
        with pytest.raises(DataError):
            found.usable()
        return False

    return door


def archive(row: Row, home: Path) -> bool:
    """Training reads what lies in the archive, whoever wrote it."""
    home = home / "events" / "2026-09-21" / "07"
    home.mkdir(parents=True)
    place = {"dwell_ms": None, "request_id": None, "position": None, "received_ms": NOW_MS, "partition": 0, "offset": 0}
    frame({**row, **place}, ARCHIVE_SCHEMA).write_parquet(home / "engine.events.v1-0-0-0.parquet")
    items = pl.DataFrame({"item_id": [row["item_id"]]})
    return read_event_log(home.parents[1], items, RULES).height == 1


def upsert(row: Row, _: Path) -> bool:
    good, errors = split_items([as_item(row)], CatalogueRules(SURFACES, CATEGORIES))
    assert len(good) + len(errors) == 1
    return bool(good)


def overlay(row: Row, home: Path) -> bool:
    """Publishing joins the items that came while serving to the item table, whoever stored them."""
    frame(EVENT, INTERACTIONS.polars).write_parquet(home / "interactions.parquet")
    frame(ITEM | {"item_id": "i"}, ITEMS.polars).write_parquet(home / "items.parquet")
    return inspect_directory(home, RULES, to_frame([as_item(row)])).usable().items.height == 2


def as_item(row: Row) -> catalog_pb2.Item:
    item = catalog_pb2.Item(
        **{name: row[name] for name in ("item_id", "title", "description", "category", "brand", "seller", "in_stock")},
        price=row["price"],
        attributes=row["attributes"].split("|") if row["attributes"] else [],
        surfaces=row["surfaces"].split("|") if row["surfaces"] else [],
    )
    if row["published_ms"] is not None:
        item.published.seconds, milliseconds = divmod(row["published_ms"], 1000)
        item.published.nanos = milliseconds * 1_000_000
    return item


NEIGHBOUR = encode(as_message(EVENT), NOW_MS)
MESSAGE_DOORS: dict[str, tuple[Door, set[str]]] = {
    "RecordEvents": (api, set()),
    "the log": (log_reader, OF_THE_CLOCK | OF_THE_SETTINGS),
    "the scan": (scan, OF_THE_CLOCK | OF_THE_SETTINGS),
}
EVENT_DOORS: dict[str, tuple[Door, set[str]]] = {
    **MESSAGE_DOORS,
    "interactions.csv": (directory_door(".csv", "interactions"), set()),
    "interactions.parquet": (directory_door(".parquet", "interactions"), set()),
    "the archive": (archive, OF_THE_SETTINGS),
}
ITEM_DOORS: dict[str, Door] = {
    "UpsertItems": upsert,
    "items.csv": directory_door(".csv", "items"),
    "items.parquet": directory_door(".parquet", "items"),
    "the overlay": overlay,
}


@pytest.mark.parametrize("door", EVENT_DOORS)
@pytest.mark.parametrize("name", BAD_EVENTS)
def test_no_door_takes_a_bad_event(door: str, name: str, tmp_path: Path) -> None:
    """Cases 06-event-from-the-future and 07-returned-goods-count-as-bought among them."""
    enter, takes = EVENT_DOORS[door]
    assert enter(EVENT | BAD_EVENTS[name], tmp_path) == (name in takes)


@pytest.mark.parametrize("door", EVENT_DOORS)
@pytest.mark.parametrize("name", GOOD_EVENTS)
def test_every_door_takes_a_good_event(door: str, name: str, tmp_path: Path) -> None:
    assert EVENT_DOORS[door][0](EVENT | GOOD_EVENTS[name], tmp_path)


@pytest.mark.parametrize("door", MESSAGE_DOORS)
@pytest.mark.parametrize("name", [*BAD_MESSAGES, *GOOD_MESSAGES])
def test_every_reader_of_messages_gives_one_verdict(door: str, name: str, tmp_path: Path) -> None:
    enter, _ = MESSAGE_DOORS[door]
    assert enter(EVENT | (BAD_MESSAGES | GOOD_MESSAGES)[name], tmp_path) == (name in GOOD_MESSAGES)


@pytest.mark.parametrize("name", [*GOOD_EVENTS, *GOOD_MESSAGES])
def test_the_scan_itself_reads_what_is_good_and_plain(name: str) -> None:
    row = EVENT | (GOOD_EVENTS | GOOD_MESSAGES)[name]
    payload = np.frombuffer(encode(as_message(row), NOW_MS), np.uint8)
    ends = np.array([len(payload)])
    found = scan_events(payload, ends, SCHEMA_VERSION, TEXT_LIMITS, MAX_ITEM_COUNT, TIME_END_S)
    ascii_only = all(str(value).isascii() for value in row.values())
    assert bool(found[0, TYPE]) == (ascii_only and name != "minus nothing")


@pytest.mark.parametrize("door", ITEM_DOORS)
@pytest.mark.parametrize("name", BAD_ITEMS)
def test_no_door_takes_a_bad_item(door: str, name: str, tmp_path: Path) -> None:
    assert not ITEM_DOORS[door](ITEM | BAD_ITEMS[name], tmp_path)


@pytest.mark.parametrize("door", ITEM_DOORS)
@pytest.mark.parametrize("name", GOOD_ITEMS)
def test_every_door_takes_a_good_item(door: str, name: str, tmp_path: Path) -> None:
    assert ITEM_DOORS[door](ITEM | GOOD_ITEMS[name], tmp_path)


def test_every_text_field_of_the_tables_is_tried() -> None:
    """A column that is added later must be held to a limit, and be tried here."""
    texts = {column.name for column in INTERACTIONS.columns if column.dtype == pl.String and not column.choices}
    assert texts == set(EVENT_TEXTS)
    strings = {field.name for field in event_pb2.Event.DESCRIPTOR.fields if field.type == field.TYPE_STRING}
    assert strings == texts | {"request_id"}
    assert {column.name for column in ITEMS.columns if column.dtype == pl.String} == {*ITEM_TEXTS, "description"}
    for column in (*INTERACTIONS.columns, *ITEMS.columns, *USERS.columns):
        if column.dtype == pl.String:
            assert column.max_bytes or column.tokens or column.choices, column.name
