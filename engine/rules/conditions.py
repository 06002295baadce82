"""When a rule applies: the `when` of a rule, and its meaning for one request."""

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Annotated, Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from engine.errors import described
from engine.rules.selector import OneOrMany, Part, refuse

WEEKDAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_MINUTES: Final = 24 * 60
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_INSTANT: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d(:\d\d(\.\d+)?)?([Zz]|[+-]\d\d:\d\d)")


def _instant(found: Any) -> Any:
    """Milliseconds since 1970 of an RFC 3339 instant."""
    wanted = "an instant with its zone is wanted, such as 2026-11-27T00:00:00+01:00"
    if not isinstance(found, str) or not _INSTANT.fullmatch(found):
        raise refuse(f"{wanted}, found {found!r}")
    try:
        return (datetime.fromisoformat(found.upper()) - _EPOCH) // timedelta(milliseconds=1)
    except (ValueError, OverflowError) as error:
        raise refuse(f"{wanted}, found {found!r} ({described(error)})") from None


def _time_of_day(found: Any) -> Any:
    """The minute of the day; 24:00 is the end of it."""
    match = re.fullmatch(r"(\d\d):([0-5]\d)", found) if isinstance(found, str) else None
    minute = int(match[1]) * 60 + int(match[2]) if match else DAY_MINUTES + 1
    if minute > DAY_MINUTES:
        raise refuse(f'a time of day is wanted, such as "18:00", found {found!r}')
    return minute


def _known_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise refuse(f"no such time zone: {name!r}; names look like Europe/Berlin") from None
    return name


def _known_days(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if name not in WEEKDAYS:
            raise refuse(f"no such weekday: {name!r}; write {', '.join(WEEKDAYS)}")
    return names


Instant = Annotated[int, BeforeValidator(_instant)]
TimeOfDay = Annotated[int, BeforeValidator(_time_of_day)]
TimeZone = Annotated[str, AfterValidator(_known_zone)]
Countries = Annotated[OneOrMany, AfterValidator(lambda names: tuple(sorted({name.upper() for name in names})))]


class Hours(Part):
    """A stretch of every day, the end not included; past midnight when `until` is the earlier one."""

    start: TimeOfDay = Field(alias="from")
    end: TimeOfDay = Field(alias="until")
    timezone: TimeZone | None = None

    @model_validator(mode="after")
    def _a_stretch(self) -> "Hours":
        if self.start % DAY_MINUTES == self.end % DAY_MINUTES:
            raise refuse("from and until are the same time; leave hours out for the whole day")
        return self


class When(Part):
    """The requests that a rule is about; every key that is given must hold.

    Unknown is a value like any other that no list names: it fails `country`, `device` and `age_group`, and passes
    `country_not` and `age_group_not`, so that denying to everyone who is not known to be an adult is one line.
    """

    country: Countries | None = None
    country_not: Countries | None = None
    device: OneOrMany | None = None
    age_group: OneOrMany | None = None
    age_group_not: OneOrMany | None = None
    start: Instant | None = Field(None, alias="from")
    end: Instant | None = Field(None, alias="until")
    timezone: TimeZone | None = None
    hours: Hours | None = None
    weekdays: Annotated[OneOrMany, AfterValidator(_known_days)] | None = None

    @model_validator(mode="after")
    def _can_hold(self) -> "When":
        if all(value is None for _, value in self):
            raise refuse("says nothing; leave `when` out for a rule that always applies")
        if self.start is not None and self.end is not None and self.start >= self.end:
            raise refuse("until is not after from")
        zones = {self.timezone, self.hours.timezone if self.hours else None} - {None}
        scheduled = self.hours is not None or self.weekdays is not None
        if scheduled and not zones:
            raise refuse("hours and weekdays need a timezone, such as Europe/Berlin")
        if len(zones) > 1:
            raise refuse("two time zones; name one, beside hours or inside it")
        if zones and not scheduled:
            raise refuse("a timezone without hours or weekdays has no effect")
        for name, values in (("country", _values(self.country, self.country_not)),
                             ("age_group", _values(self.age_group, self.age_group_not))):  # fmt: skip
            if not values.names and not values.outside:
                raise refuse(f"can never hold: {name}_not takes back every {name}")
        return self


@dataclass(frozen=True, slots=True)
class Values:
    """The names, or with `outside` all others, the unknown ("") among them."""

    names: frozenset[str] = frozenset()
    outside: bool = True

    def hold(self, name: str) -> bool:
        return (name in self.names) != self.outside

    def overlap(self, other: "Values") -> bool:
        if self.outside and other.outside:
            return True
        if self.outside or other.outside:
            inside, outside = (other, self) if self.outside else (self, other)
            return bool(inside.names - outside.names)
        return bool(self.names & other.names)


@dataclass(frozen=True, slots=True)
class RuleSchedule:
    """Minutes of the local week, Monday 00:00 first: bytes (7 * 1440,), 1 where the rule applies.

    Wall-clock minutes, so that daylight saving needs no thought: an hour that the clocks skip never is, one that they
    repeat is twice.
    """

    timezone: str
    minutes: bytes

    def overlap(self, other: "RuleSchedule") -> bool:
        """Whether some minute is in both; between two zones that is taken for granted."""
        if self.timezone != other.timezone:
            return True
        return int.from_bytes(self.minutes) & int.from_bytes(other.minutes) != 0


@dataclass(frozen=True, slots=True)
class Request:
    """The side of a request that conditions read; "" is unknown. Local times are worked out once a zone."""

    country: str
    device: str
    age_group: str
    time_ms: int
    _minutes: dict[str, int] = field(default_factory=dict)

    def week_minute(self, timezone: str) -> int:
        minute = self._minutes.get(timezone)
        if minute is None:
            local = datetime.fromtimestamp(self.time_ms // 1000, _zone(timezone))
            minute = local.weekday() * DAY_MINUTES + local.hour * 60 + local.minute
            self._minutes[timezone] = minute
        return minute


@dataclass(frozen=True, slots=True)
class Condition:
    """A `when`, ready to be asked. Equal conditions are equal objects, so that each is asked once a request."""

    country: Values = Values()
    device: Values = Values()
    age_group: Values = Values()
    start_ms: int | None = None
    end_ms: int | None = None
    schedule: RuleSchedule | None = None

    @staticmethod
    def of(when: When | None) -> "Condition":
        if when is None:
            return Condition()
        return Condition(
            _values(when.country, when.country_not),
            _values(when.device, None),
            _values(when.age_group, when.age_group_not),
            when.start,
            when.end,
            _schedule(when),
        )

    def holds(self, request: Request) -> bool:
        """Cost: about a microsecond, and one more for the first schedule of a zone."""
        return (
            self.country.hold(request.country)
            and self.device.hold(request.device)
            and self.age_group.hold(request.age_group)
            and (self.start_ms is None or request.time_ms >= self.start_ms)
            and (self.end_ms is None or request.time_ms < self.end_ms)
            and (self.schedule is None or bool(self.schedule.minutes[request.week_minute(self.schedule.timezone)]))
        )

    def may_coincide(self, other: "Condition") -> bool:
        """Whether one request may meet both; True where that cannot be told."""
        apart = (
            (self.end_ms is not None and other.start_ms is not None and self.end_ms <= other.start_ms)
            or (other.end_ms is not None and self.start_ms is not None and other.end_ms <= self.start_ms)
            or (self.schedule is not None and other.schedule is not None and not self.schedule.overlap(other.schedule))
        )
        return (
            not apart
            and self.country.overlap(other.country)
            and self.device.overlap(other.device)
            and self.age_group.overlap(other.age_group)
        )


ALWAYS: Final = Condition()


def _values(among: tuple[str, ...] | None, but_not: tuple[str, ...] | None) -> Values:
    if among is None:
        return Values(frozenset(but_not or ()), outside=True)
    return Values(frozenset(among) - frozenset(but_not or ()), outside=False)


def _schedule(when: When) -> RuleSchedule | None:
    timezone = when.timezone or (when.hours.timezone if when.hours else None)
    if timezone is None:
        return None
    start, end = (when.hours.start % DAY_MINUTES, when.hours.end) if when.hours else (0, DAY_MINUTES)
    length = end - start if end > start else end - start + DAY_MINUTES
    week = bytearray(7 * DAY_MINUTES)
    for day, name in enumerate(WEEKDAYS):
        if when.weekdays is None or name in when.weekdays:
            # Friday 22:00 to 02:00 ends on Saturday: a stretch belongs to the day that it starts on.
            for minute in range(start, start + length):
                week[(day * DAY_MINUTES + minute) % len(week)] = 1
    return RuleSchedule(timezone, bytes(week))


@lru_cache(maxsize=256)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)
