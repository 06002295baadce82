"""Which requests a rule is about: unknown values, time zones, changes of the clocks, nights."""

import itertools
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.rules.conditions import Condition, Request, When
from tests.engine.rules.files import rules_of


def condition(when: str) -> Condition:
    [rule] = rules_of(f"- {{name: r, action: deny, items: {{brand: x}}, when: {{{when}}}}}").rules
    return rule.condition


def at(instant: str, **known: str) -> Request:
    moment = datetime.fromisoformat(instant)
    return Request(known.get("country", ""), known.get("device", ""), known.get("age_group", ""),
                   round(moment.timestamp() * 1000))  # fmt: skip


NOON = "2026-06-03T12:00:00+00:00"


@pytest.mark.parametrize(
    ("when", "known", "holds"),
    [
        ("country: [de, NO]", {"country": "NO"}, True),
        ("country: [de, NO]", {"country": "DE"}, True),
        ("country: [de, NO]", {"country": "FR"}, False),
        ("country: [de, NO]", {}, False),
        ("country_not: [DE]", {"country": "DE"}, False),
        ("country_not: [DE]", {"country": "FR"}, True),
        ("country_not: [DE]", {}, True),
        ("country: [DE, FR], country_not: FR", {"country": "FR"}, False),
        ("country: [DE, FR], country_not: FR", {"country": "DE"}, True),
        ("device: tv", {"device": "tv"}, True),
        ("device: tv", {}, False),
        ("age_group: ['18-24']", {"age_group": "18-24"}, True),
        ("age_group: ['18-24']", {}, False),
        ("age_group_not: ['18-24', '25-34']", {"age_group": "25-34"}, False),
        ("age_group_not: ['18-24', '25-34']", {"age_group": "0-17"}, True),
        ("age_group_not: ['18-24', '25-34']", {}, True),
        ("country: DE, device: tv", {"country": "DE"}, False),
        ("country: DE, device: tv", {"country": "DE", "device": "tv"}, True),
    ],
)
def test_people_and_devices(when: str, known: dict[str, str], holds: bool) -> None:
    assert condition(when).holds(at(NOON, **known)) is holds


def test_instants_are_from_and_until() -> None:
    window = condition("from: 2026-11-27T00:00:00+01:00, until: 2026-11-30t00:00:00.250z")
    assert not window.holds(at("2026-11-26T22:59:59.999+00:00"))
    assert window.holds(at("2026-11-26T23:00:00+00:00"))
    assert window.holds(at("2026-11-30T00:00:00.249+00:00"))
    assert not window.holds(at("2026-11-30T00:00:00.250+00:00"))


@pytest.mark.parametrize(
    ("when", "instant", "holds"),
    [
        # Berlin is two hours ahead of UTC in June, one in December.
        ("hours: {from: 18:00, until: 23:00, timezone: Europe/Berlin}", "2026-06-03T16:00:00+00:00", True),
        ("hours: {from: 18:00, until: 23:00, timezone: Europe/Berlin}", "2026-06-03T15:59:59+00:00", False),
        ("hours: {from: 18:00, until: 23:00, timezone: Europe/Berlin}", "2026-06-03T21:00:00+00:00", False),
        ("hours: {from: 18:00, until: 23:00, timezone: Europe/Berlin}", "2026-12-03T16:30:00+00:00", False),
        ("hours: {from: 18:00, until: 23:00, timezone: Europe/Berlin}", "2026-12-03T17:00:00+00:00", True),
        # On 25 October 2026 the clocks of Berlin show 02:30 twice, on 29 March never.
        ("hours: {from: 02:00, until: 03:00, timezone: Europe/Berlin}", "2026-10-25T00:30:00+00:00", True),
        ("hours: {from: 02:00, until: 03:00, timezone: Europe/Berlin}", "2026-10-25T01:30:00+00:00", True),
        ("hours: {from: 02:00, until: 03:00, timezone: Europe/Berlin}", "2026-10-25T02:00:00+00:00", False),
        ("hours: {from: 02:00, until: 03:00, timezone: Europe/Berlin}", "2026-03-29T00:59:00+00:00", False),
        ("hours: {from: 02:00, until: 03:00, timezone: Europe/Berlin}", "2026-03-29T01:00:00+00:00", False),
        # Past midnight; 5 June 2026 is a Friday.
        ("hours: {from: 22:00, until: 02:00}, timezone: UTC", "2026-06-05T23:59:00+00:00", True),
        ("hours: {from: 22:00, until: 02:00}, timezone: UTC", "2026-06-05T01:59:00+00:00", True),
        ("hours: {from: 22:00, until: 02:00}, timezone: UTC", "2026-06-05T02:00:00+00:00", False),
        ("hours: {from: 22:00, until: 02:00}, timezone: UTC, weekdays: fri", "2026-06-06T01:00:00+00:00", True),
        ("hours: {from: 22:00, until: 02:00}, timezone: UTC, weekdays: fri", "2026-06-05T01:00:00+00:00", False),
        ("hours: {from: 22:00, until: 02:00}, timezone: UTC, weekdays: sun", "2026-06-08T01:00:00+00:00", True),
        ("weekdays: [sat, sun], timezone: Asia/Tokyo", "2026-06-05T15:00:00+00:00", True),
        ("weekdays: [sat, sun], timezone: Asia/Tokyo", "2026-06-05T14:59:00+00:00", False),
        ("weekdays: [sat, sun], timezone: UTC", "2026-06-07T23:59:59+00:00", True),
        ("weekdays: [sat, sun], timezone: UTC", "2026-06-08T00:00:00+00:00", False),
    ],
)
def test_hours_and_weekdays(when: str, instant: str, holds: bool) -> None:
    assert condition(when).holds(at(instant)) is holds


DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
NIGHTS = [("22:00", "06:00"), ("06:00", "22:00"), ("23:59", "00:01"), ("12:30", "24:00")]


@given(
    st.datetimes(datetime(2000, 1, 1), datetime(2090, 1, 1)),
    st.sampled_from(["Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe"]),
    st.sampled_from(NIGHTS),
    st.sets(st.sampled_from(DAYS), min_size=1),
)
def test_schedules_against_the_wall_clock(moment: datetime, zone: str, night: tuple[str, str], days: set[str]) -> None:
    start, end = night
    when = f"hours: {{from: {start}, until: {end}}}, weekdays: [{', '.join(days)}], timezone: {zone}"
    instant = moment.replace(tzinfo=ZoneInfo("UTC"))
    wall = instant.astimezone(ZoneInfo(zone)).replace(tzinfo=None)
    clock = wall.strftime("%H:%M")
    if start < end:
        expected = start <= clock < end and DAYS[wall.weekday()] in days
    else:
        yesterday = DAYS[(wall - timedelta(days=1)).weekday()]
        expected = (clock >= start and DAYS[wall.weekday()] in days) or (clock < end and yesterday in days)
    assert condition(when).holds(at(instant.isoformat())) is expected


COUNTRIES, DEVICES, AGES = ("DE", "FR", "NO", "", "XX"), ("tv", "mobile", ""), ("18-24", "25-34", "", "65+")
MONDAY = datetime(2026, 6, 1, tzinfo=ZoneInfo("UTC"))
HOURS = [MONDAY + timedelta(hours=hour) for hour in range(7 * 24)]


def _some(values: tuple[str, ...]) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(values), min_size=1, max_size=2)


_users = st.fixed_dictionaries(
    {}, optional={"country": _some(("DE", "FR", "NO")), "device": _some(("tv", "mobile")), "age_group": _some(AGES[:2])}
)
_but_not = st.fixed_dictionaries({}, optional={"country_not": _some(("DE", "FR")), "age_group_not": _some(AGES[:2])})
_days = st.tuples(st.integers(0, 6), st.integers(1, 4)).map(
    lambda days: {
        "from": (MONDAY + timedelta(days=days[0])).isoformat(),
        "until": (MONDAY + timedelta(days=sum(days))).isoformat(),
    }
)
_schedules = st.tuples(st.sampled_from([("22:00", "06:00"), ("06:00", "12:00"), ("12:00", "22:00")]), _some(DAYS)).map(
    lambda drawn: {"timezone": "UTC", "hours": {"from": drawn[0][0], "until": drawn[0][1]}, "weekdays": drawn[1]}
)


def _met(when: dict[str, object]) -> Condition | None:
    try:
        return Condition.of(When.model_validate(when) if when else None)
    except ValueError:
        return None  # can never hold


@given(
    st.lists(st.tuples(_users, _but_not), min_size=2, max_size=2),
    st.one_of(*(st.lists(kind, max_size=2) for kind in (_days, _schedules))),
)
def test_conditions_coincide_where_one_request_meets_both(
    users: list[tuple[dict[str, object], dict[str, object]]], times: list[dict[str, object]]
) -> None:
    """Held against every kind of user at every hour of a week, in which all the times lie."""
    whens = [one | other for one, other in users]
    for when, time in zip(whens, times, strict=False):
        when.update(time)
    one, other = (_met(when) for when in whens)
    if one is None or other is None:
        return

    def some(request: Request) -> bool:
        return one.holds(request) and other.holds(request)

    moments = [round(hour.timestamp() * 1000) for hour in HOURS]
    kinds = itertools.product(COUNTRIES, DEVICES, AGES)
    meeting = next((kind for kind in kinds if any(some(Request(*kind, moment)) for moment in moments)), None)
    assert one.may_coincide(other) is other.may_coincide(one) is (meeting is not None)
