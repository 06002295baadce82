"""Every bad event by field and reason, one by one and in a batch."""

import math
from collections.abc import Callable

import pytest

from engine.contract.events import MAX_BATCH_EVENTS, EventFields, EventRules, check_event, split_batch
from engine.errors import InvalidRequest
from engine_client.requests import MAX_REQUEST_BYTES
from engine_client.v1 import event_pb2 as pb
from tests.kafka import click

NOW_MS = 1_764_000_000_000
RULES = EventRules(frozenset({"home", "cart"}), max_age_ms=7 * 86_400_000, max_ahead_ms=300_000)
Change = Callable[[pb.Event], None]


def event_with(*changes: Change) -> pb.Event:
    event = click("u", "i", NOW_MS)
    for change in changes:
        change(event)
    return event


def setting(**values: object) -> Change:
    def change(event: pb.Event) -> None:
        for name, value in values.items():
            setattr(event, name, value)

    return change


def at(time_ms: int) -> Change:
    return lambda event: event.time.FromMilliseconds(time_ms)


def purchase(value: float) -> Change:
    return setting(type=pb.EVENT_TYPE_PURCHASE, value=value)


def dwell(dwell_ms: int) -> Change:
    return setting(type=pb.EVENT_TYPE_DWELL, dwell_ms=dwell_ms)


BAD = [
    ("event_id", setting(event_id=""), "empty"),
    ("event_id", setting(event_id="e" * 129), "128 bytes"),
    ("event_id", setting(event_id="a\nb"), "control"),
    ("user_id", setting(user_id=""), "empty"),
    ("user_id", setting(user_id="é" * 129), "256 bytes of UTF-8, got 258"),
    ("user_id", setting(user_id="a\x00"), "control"),
    ("type", setting(type=pb.EVENT_TYPE_UNSPECIFIED), "from 1 to 7, got 0"),
    ("type", setting(type=8), "got 8"),
    ("type", setting(type=-1), "got -1"),
    ("item_id", setting(item_id=""), "empty"),
    ("item_id", setting(item_id="i" * 257), "256 bytes"),
    ("item_id", setting(item_id="\x9f"), "control"),
    ("time", lambda event: event.ClearField("time"), "required"),
    ("time", at(NOW_MS + 300_001), "at most 300 s ahead"),
    ("time", at(NOW_MS - 7 * 86_400_000 - 1), "at most 604800 s ago"),
    ("time", lambda event: setattr(event.time, "nanos", 1_000_000_000), "nanos"),
    ("time", lambda event: setattr(event.time, "seconds", -1), "1970"),
    ("time", lambda event: setattr(event.time, "seconds", NOW_MS), "1970 to 2100"),
    ("surface", setting(surface="nowhere"), "cart, home"),
    ("surface", setting(surface="s" * 65), "64 bytes"),
    ("surface", setting(surface="ho\x1bme"), "control"),
    ("session_id", setting(session_id="s" * 257), "256 bytes"),
    ("session_id", setting(session_id="\t"), "control"),
    ("device", setting(device="d" * 65), "64 bytes"),
    ("device", setting(device="\r"), "control"),
    ("country", setting(country="c" * 65), "64 bytes"),
    ("country", setting(country="\x7f"), "control"),
    ("value", setting(type=pb.EVENT_TYPE_PURCHASE), "required for a purchase"),
    ("value", purchase(-0.01), "not negative, got -0.01"),
    ("value", purchase(-25.0), "EVENT_TYPE_RETURN with a positive value"),
    ("value", setting(type=pb.EVENT_TYPE_RETURN), "required for a purchase and for a return"),
    ("value", setting(type=pb.EVENT_TYPE_RETURN, value=-25.0), "not negative, got -25"),
    ("value", purchase(math.nan), "got nan"),
    ("value", purchase(math.inf), "got inf"),
    ("value", purchase(-math.inf), "got -inf"),
    ("value", setting(value=0.0), "purchases and returns only"),
    ("dwell_ms", setting(type=pb.EVENT_TYPE_DWELL), "required for a dwell event"),
    ("dwell_ms", dwell(0), "positive, got 0"),
    ("dwell_ms", dwell(-5), "positive, got -5"),
    ("dwell_ms", setting(dwell_ms=1), "dwell events only"),
    ("request_id", setting(request_id="r" * 257), "256 bytes"),
    ("request_id", setting(request_id="\x01"), "control"),
    ("position", setting(position=-1), "got -1"),
    ("position", setting(position=201), "between 1 and 200"),
]

GOOD = {
    "bare": (),
    "longest ids": (setting(event_id="e" * 128, user_id="é" * 128, item_id="i" * 256, session_id="s" * 256),),
    "outside of all surfaces": (setting(surface=""),),
    "oldest": (at(NOW_MS - 7 * 86_400_000),),
    "furthest ahead": (at(NOW_MS + 300_000),),
    "free of charge": (purchase(0.0),),
    "purchase": (purchase(1e9),),
    "return": (setting(type=pb.EVENT_TYPE_RETURN, value=25.0),),
    "dwell": (dwell(1),),
    "from a recommendation": (setting(request_id="r" * 256, position=200),),
    "context": (setting(device="d" * 64, country="c" * 64),),
}


@pytest.mark.parametrize(("field", "change", "reason"), BAD, ids=[f"{field}: {reason}" for field, _, reason in BAD])
def test_bad_events(field: str, change: Change, reason: str) -> None:
    accepted, [rejected] = split_batch([event_with(change)], RULES, NOW_MS)
    assert not accepted
    assert (rejected.index, rejected.field) == (0, field)
    assert reason in rejected.reason


@pytest.mark.parametrize("changes", GOOD.values(), ids=GOOD.keys())
def test_good_events(changes: tuple[Change, ...]) -> None:
    event = event_with(*changes)
    assert split_batch([event], RULES, NOW_MS) == ([event], [])


@pytest.mark.parametrize("event_type", [kind for kind in pb.EventType.values() if kind])
def test_every_type_is_known(event_type: int) -> None:
    needs = {kind: {"value": 1.0} for kind in (pb.EVENT_TYPE_PURCHASE, pb.EVENT_TYPE_RETURN)} | {
        pb.EVENT_TYPE_DWELL: {"dwell_ms": 1}
    }
    assert check_event(event_with(setting(type=event_type, **needs.get(event_type, {})))).time_ms == NOW_MS


@pytest.mark.parametrize(("field", "size"), [("event_id", 128), ("user_id", 256), ("item_id", 256), ("surface", 64),
    ("session_id", 256), ("device", 64), ("country", 64), ("request_id", 256)])  # fmt: skip
@pytest.mark.parametrize("kind", [pb.EVENT_TYPE_CLICK, pb.EVENT_TYPE_PURCHASE])
def test_what_is_printable_ascii_is_held_to_the_same_limits(field: str, size: int, kind: int) -> None:
    needs = {"value": 1.0} if kind == pb.EVENT_TYPE_PURCHASE else {}
    for text in ("a" * size, "é" * (size // 2), "a" * (size - 1) + "~"):
        event = event_with(setting(type=kind, **needs, **{field: text}))
        fields = check_event(event)
        assert fields == EventFields(event.event_id, event.user_id, kind, event.item_id, NOW_MS, event.surface)
    for text in ("a" * (size + 1), "é" * (size // 2) + "a", "a" * (size - 1) + "\x7f", "\u0085"):
        with pytest.raises(InvalidRequest) as refusal:
            check_event(event_with(setting(type=kind, **needs, **{field: text})))
        assert refusal.value.field == field


def test_most_events_are_not_checked_field_by_field(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else says whether the fast road is taken: the verdicts are the same."""
    monkeypatch.delattr("engine.contract.events._check_one_by_one")
    for event_type in (pb.EVENT_TYPE_IMPRESSION, pb.EVENT_TYPE_VIEW, pb.EVENT_TYPE_CLICK, pb.EVENT_TYPE_CART):
        check_event(event_with(setting(type=event_type, session_id="s", device="d", country="c", request_id="r")))


def test_bad_events_do_not_take_good_ones_along() -> None:
    events = [event_with(setting(event_id=str(place), item_id="i" if place % 2 else "")) for place in range(6)]
    accepted, rejected = split_batch(events, RULES, NOW_MS)
    assert [event.event_id for event in accepted] == ["1", "3", "5"]
    assert [(bad.index, bad.event_id) for bad in rejected] == [(0, "0"), (2, "2"), (4, "4")]


def test_of_events_with_one_id_the_first_good_one_counts() -> None:
    bad, first, second = (event_with(setting(event_id="same", item_id=item)) for item in ("", "a", "b"))
    accepted, rejected = split_batch([bad, first, second], RULES, NOW_MS)
    assert accepted == [first]
    assert [(entry.index, entry.field) for entry in rejected] == [(0, "item_id"), (2, "event_id")]
    assert "before in this batch" in rejected[1].reason


@pytest.mark.parametrize("count", [0, MAX_BATCH_EVENTS + 1])
def test_batches_of_the_wrong_length(count: int) -> None:
    with pytest.raises(InvalidRequest, match=f"1 to 500 events, got {count}"):
        split_batch([event_with()] * count, RULES, NOW_MS)


def test_the_largest_batch_fits_into_a_message() -> None:
    everything = setting(
        user_id="u" * 256, item_id="i" * 256, session_id="s" * 256, request_id="r" * 256, position=200,
        device="d" * 64, country="c" * 64,
    )  # fmt: skip
    events = [event_with(everything, setting(event_id=f"{place:0128}")) for place in range(MAX_BATCH_EVENTS)]
    accepted, rejected = split_batch(events, RULES, NOW_MS)
    assert (len(accepted), len(rejected)) == (500, 0)
    assert pb.RecordEventsRequest(events=events).ByteSize() < MAX_REQUEST_BYTES
