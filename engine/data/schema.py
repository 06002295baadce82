"""The columns of the three canonical tables, with what each may hold: the limits of engine.contract, as columns."""

from dataclasses import dataclass
from typing import Final

import polars as pl

from engine.contract.limits import (
    EARLIEST_EVENT_MS,
    EARLIEST_PUBLISHED_MS,
    EVENT_TEXTS,
    MAX_ATTRIBUTE_BYTES,
    MAX_ATTRIBUTES,
    MAX_DESCRIPTION_BYTES,
    MAX_ID_BYTES,
    MAX_ITEM_SURFACES,
    MAX_SURFACE_BYTES,
    MAX_TITLE_BYTES,
    TIME_END_MS,
)
from engine.types import EventType


@dataclass(frozen=True, slots=True)
class Tokens:
    """A cell that is a list, LIST_SEPARATOR between its tokens. most: tokens. max_bytes: of each."""

    most: int
    max_bytes: int


@dataclass(frozen=True, slots=True)
class Column:
    """One canonical column.

    required: the column must be there and filled in every row. unique: no value twice. max_bytes: of UTF-8; a column
    with this limit holds no control characters either, and with `lines` line ends and tabs alone. tokens: a list.
    minimum, maximum: inclusive. choices: the only values allowed. default: fills absent values; None leaves null.
    hint: ends the sentence when a value is out of range.
    """

    name: str
    dtype: type[pl.DataType]
    required: bool = False
    unique: bool = False
    max_bytes: int | None = None
    lines: bool = False
    tokens: Tokens | None = None
    minimum: int | None = None
    maximum: int | None = None
    choices: tuple[str, ...] = ()
    default: bool | None = None
    hint: str = ""


@dataclass(frozen=True, slots=True)
class TableSchema:
    """One canonical table; `may_be_absent` tables count as empty when there is no file."""

    name: str
    columns: tuple[Column, ...]
    may_be_absent: bool = False

    @property
    def polars(self) -> dict[str, type[pl.DataType]]:
        """Column names and dtypes, in canonical order."""
        return {column.name: column.dtype for column in self.columns}


def _text(name: str, max_bytes: int = MAX_ID_BYTES, *, required: bool = False, unique: bool = False) -> Column:
    return Column(name, pl.String, required=required, unique=unique, max_bytes=max_bytes)


def _label(name: str) -> Column:
    return _text(name, MAX_ATTRIBUTE_BYTES)


INTERACTIONS: Final = TableSchema(
    "interactions",
    (
        _text("user_id", EVENT_TEXTS["user_id"], required=True),
        _text("item_id", EVENT_TEXTS["item_id"], required=True),
        Column("event_type", pl.String, required=True, choices=tuple(kind.name.lower() for kind in EventType)),
        Column(
            "timestamp_ms", pl.Int64, required=True, minimum=EARLIEST_EVENT_MS, maximum=TIME_END_MS - 1,
            hint="milliseconds since 1970 are wanted, not seconds or microseconds",
        ),
        Column(
            "value", pl.Float64, minimum=0,
            hint="goods sent back are events of type 'return', with a positive value",
        ),
        *(_text(name, EVENT_TEXTS[name]) for name in ("surface", "device", "country", "session_id", "event_id")),
    ),
)  # fmt: skip

ITEMS: Final = TableSchema(
    "items",
    (
        _text("item_id", required=True, unique=True),
        _text("title", MAX_TITLE_BYTES, required=True),
        Column("description", pl.String, max_bytes=MAX_DESCRIPTION_BYTES, lines=True),
        _text("category"),
        _text("brand"),
        _text("seller"),
        Column("price", pl.Float64, minimum=0),
        Column(
            "published_ms", pl.Int64, minimum=EARLIEST_PUBLISHED_MS, maximum=TIME_END_MS - 1,
            hint="milliseconds since 1970 are wanted",
        ),
        Column("in_stock", pl.Boolean, default=True),
        Column("attributes", pl.String, tokens=Tokens(MAX_ATTRIBUTES, MAX_ATTRIBUTE_BYTES)),
        Column("surfaces", pl.String, tokens=Tokens(MAX_ITEM_SURFACES, MAX_SURFACE_BYTES)),
    ),
)  # fmt: skip

USERS: Final = TableSchema(
    "users",
    (_text("user_id", required=True, unique=True), _label("age_group"), _label("location"), _label("signup_source")),
    may_be_absent=True,
)
