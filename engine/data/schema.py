"""The columns of the three canonical tables, with what each may hold."""

from dataclasses import dataclass
from typing import Final

import polars as pl

from engine.types import EventType

MAX_ID_BYTES: Final = 256
MAX_LABEL_BYTES: Final = 64  # surfaces, devices, countries, demographics: the API's own bound
LIST_SEPARATOR: Final = "|"  # between the tokens of `attributes` and of `surfaces`

_MS_2100: Final = 4_102_444_800_000
# Seconds written where milliseconds belong, the usual mistake, would put every date up to 2100 before this moment
# (18 February 1970); refusing that stretch finds the mistake and costs nobody a real event.
_EARLIEST_EVENT_MS: Final = _MS_2100 // 1000
# Things may be much older than the events about them: films, books, paintings.
_EARLIEST_PUBLISHED_MS: Final = -12_219_292_800_000  # 15 October 1582, the first Gregorian day


@dataclass(frozen=True, slots=True)
class Column:
    """One canonical column.

    required: the column must be there and filled in every row. unique: no value twice. max_bytes: of UTF-8.
    minimum, maximum: inclusive. choices: the only values allowed. default: fills absent values; None leaves null.
    hint: ends the sentence when a value is out of range.
    """

    name: str
    dtype: type[pl.DataType]
    required: bool = False
    unique: bool = False
    max_bytes: int | None = None
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


def _label(name: str) -> Column:
    return Column(name, pl.String, max_bytes=MAX_LABEL_BYTES)


INTERACTIONS: Final = TableSchema(
    "interactions",
    (
        Column("user_id", pl.String, required=True, max_bytes=MAX_ID_BYTES),
        Column("item_id", pl.String, required=True, max_bytes=MAX_ID_BYTES),
        Column("event_type", pl.String, required=True, choices=tuple(kind.name.lower() for kind in EventType)),
        Column(
            "timestamp_ms", pl.Int64, required=True, minimum=_EARLIEST_EVENT_MS, maximum=_MS_2100,
            hint="milliseconds since 1970 are wanted, not seconds or microseconds",
        ),
        Column("value", pl.Float64),
        _label("surface"),
        _label("device"),
        _label("country"),
        Column("session_id", pl.String, max_bytes=MAX_ID_BYTES),
        Column("event_id", pl.String, max_bytes=MAX_ID_BYTES),
    ),
)  # fmt: skip

ITEMS: Final = TableSchema(
    "items",
    (
        Column("item_id", pl.String, required=True, unique=True, max_bytes=MAX_ID_BYTES),
        Column("title", pl.String, required=True),
        Column("description", pl.String),
        Column("category", pl.String),
        Column("brand", pl.String),
        Column("seller", pl.String),
        Column("price", pl.Float64, minimum=0),
        Column(
            "published_ms", pl.Int64, minimum=_EARLIEST_PUBLISHED_MS, maximum=_MS_2100,
            hint="milliseconds since 1970 are wanted",
        ),
        Column("in_stock", pl.Boolean, default=True),
        Column("attributes", pl.String),
        Column("surfaces", pl.String),
    ),
)  # fmt: skip

USERS: Final = TableSchema(
    "users",
    (
        Column("user_id", pl.String, required=True, unique=True, max_bytes=MAX_ID_BYTES),
        _label("age_group"),
        _label("location"),
        _label("signup_source"),
    ),
    may_be_absent=True,
)
