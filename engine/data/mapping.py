"""What a shop's export means: the TOML file that `engine import csv --map` reads. docs/your-data.md has every key."""

import codecs
import difflib
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field, ValidationError, model_validator

from engine.config.load import Section
from engine.errors import ConfigError, described
from engine.types import EventType

IGNORE = "ignore"
_TYPES = tuple(kind.name.lower() for kind in EventType)


def _encoding(name: str) -> str:
    try:
        return codecs.lookup(name).name
    except LookupError:
        raise ValueError(
            f"unknown encoding {name!r}; usual ones are utf-8, windows-1252, iso-8859-15, utf-16"
        ) from None


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        raise ValueError(f"unknown time zone {name!r}; names are like Europe/Berlin or UTC") from None
    return name


def _event_type(name: str) -> str:
    if name not in (*_TYPES, IGNORE):
        near = difflib.get_close_matches(name, (*_TYPES, IGNORE), n=1)
        advice = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{name!r} is none of {', '.join((*_TYPES, IGNORE))}{advice}")
    return name


_Type = Annotated[str, AfterValidator(_event_type)]
_Name = Annotated[str, Field(min_length=1)]


class _Strict(Section, strict=True):
    """Nothing is converted: what a shop writes is what is meant."""


class FormatSection(_Strict):
    """How the files are written."""

    separator: Annotated[str, Field(min_length=1, max_length=1)] = ","
    encoding: Annotated[str, AfterValidator(_encoding)] = "utf-8"
    decimal: Literal[".", ","] = "."
    thousands: Literal["", ".", ",", " ", "'"] = ""
    time: _Name = Field("auto", description="auto, iso8601, seconds, milliseconds, or a format such as %d.%m.%Y %H:%M")
    zone: Annotated[str, AfterValidator(_zone)] = Field("UTC", description="of times that name none")

    @model_validator(mode="after")
    def _marks_differ(self) -> "FormatSection":
        if self.decimal == self.thousands:
            raise ValueError(f"decimal and thousands are both {self.decimal!r}")
        return self


class EventColumns(_Strict):
    """Our name = theirs."""

    user_id: _Name | None = None
    item_id: _Name
    time: _Name
    event_type: _Name | None = None
    quantity: _Name | None = None
    price: _Name | None = Field(None, description="of one piece; without `value`, quantity times price is the value")
    value: _Name | None = Field(None, description="of the whole line")
    session_id: _Name | None = None
    event_id: _Name | None = None
    surface: _Name | None = None
    device: _Name | None = None
    country: _Name | None = None


class ItemColumns(_Strict):
    item_id: _Name | None = None
    title: _Name | None = None
    description: _Name | None = None
    category: _Name | None = None
    brand: _Name | None = None
    seller: _Name | None = None
    price: _Name | None = None
    published: _Name | None = None
    in_stock: _Name | None = None
    attributes: tuple[_Name, ...] = ()


class UserColumns(_Strict):
    user_id: _Name
    age_group: _Name | None = None
    location: _Name | None = None
    signup_source: _Name | None = None


class EventsSection(_Strict):
    """Lines that say what somebody did with an item."""

    files: tuple[_Name, ...] = Field((), description="patterns of file names; none: what no other section takes")
    type: _Type = Field("purchase", description="of lines, where no column says it")
    types: dict[str, _Type] = Field({})
    negative: Literal["return", "ignore"] = "return"
    guests: Literal["session", "drop"] = "drop"
    columns: EventColumns

    @model_validator(mode="after")
    def _guests_have_a_session(self) -> "EventsSection":
        if self.guests == "session" and self.columns.session_id is None:
            raise ValueError('guests = "session" needs session_id in [events.columns]')
        if self.columns.user_id is None and self.guests == "drop":
            raise ValueError('[events.columns] needs user_id, or guests = "session"')
        return self


class ItemsSection(_Strict):
    """The catalogue: files of its own, or columns of the lines of events."""

    files: tuple[_Name, ...] = ()
    columns: ItemColumns = ItemColumns()

    @model_validator(mode="after")
    def _files_have_ids(self) -> "ItemsSection":
        if self.files and self.columns.item_id is None:
            raise ValueError("[items.columns] needs item_id, the column of the files")
        return self


class UsersSection(_Strict):
    files: Annotated[tuple[_Name, ...], Field(min_length=1)]
    columns: UserColumns


class Mapping(_Strict):
    """The whole file."""

    format: FormatSection = FormatSection()
    events: EventsSection
    items: ItemsSection = ItemsSection()
    users: UsersSection | None = None

    @staticmethod
    def load(path: Path) -> "Mapping":
        """Read and check a mapping. Raises ConfigError with everything that is wrong in it, one line each."""
        try:
            return Mapping.model_validate(_tuples(tomllib.loads(path.read_text(encoding="utf-8-sig"))))
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: {described(error)}") from None
        except ValidationError as error:
            raise ConfigError("\n".join(f"{path}: {_sentence(one)}" for one in error.errors())) from None


def _tuples(found: Any) -> Any:
    """TOML's lists as tuples, which a frozen section holds."""
    if isinstance(found, dict):
        return {name: _tuples(value) for name, value in found.items()}
    return tuple(found) if isinstance(found, list) else found


def _sentence(error: Any) -> str:
    place = [str(part) for part in error["loc"]]
    where = ".".join(place)
    if error["type"] == "extra_forbidden":
        known = _keys(place[:-1])
        near = difflib.get_close_matches(place[-1], known, n=1)
        advice = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
        return f"unknown key {where!r}; {advice}"
    if error["type"] == "missing":
        return f"{where}: is required"
    return f"{where + ': ' if where else ''}{error['msg'].removeprefix('Value error, ')}"


def _keys(place: list[str]) -> list[str]:
    """The keys that a table of the mapping has."""
    section: type[Section] = Mapping
    for name in place:
        options = (section.model_fields[name].annotation, *get_args(section.model_fields[name].annotation))
        section = next(option for option in options if isinstance(option, type) and issubclass(option, Section))
    return list(section.model_fields)
