"""Bring a frame to a canonical schema, and say which columns and rows cannot be."""

import difflib
from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl

from engine.contract.limits import LIST_SEPARATOR, TIME_END_MS
from engine.contract.surfaces import listed
from engine.contract.text import CONTROL, CONTROL_BUT_LINES_PATTERN, CONTROL_PATTERN
from engine.contract.times import shown as shown_time
from engine.contract.values import VALUE_BELONGS, VALUE_TYPES
from engine.data.faults import Fault, row_fault
from engine.data.rules import TableRules
from engine.data.schema import INTERACTIONS, ITEMS, Column, TableSchema

_TRUE = ("true", "1", "yes")
_FALSE = ("false", "0", "no")
_VALUE_TYPES = sorted(kind.name.lower() for kind in VALUE_TYPES)


@dataclass(frozen=True, slots=True)
class Inspected:
    """A frame with every canonical column, whatever is wrong with it.

    frame: n rows; null where a value could not be used. bad: bool (n,), the rows that a fault names. faults: in the
    order of the columns; those without rows are of the table as a whole.
    """

    frame: pl.DataFrame
    bad: pl.Series
    faults: tuple[Fault, ...]


def inspect(frame: pl.DataFrame, schema: TableSchema, source: str, rules: TableRules | None = None) -> Inspected:
    """Every canonical column of the frame, in canonical order and dtypes, and everything that is wrong with it.

    Args:
        frame: any dtypes that convert without loss: text (as read from CSV), integers for ids, whole floats for
            integers. An empty string counts as absent.
        source: the file (or other origin) that a fault names.
        rules: what else the table is held to; none: its columns' own limits alone.

    Absent optional columns are filled with the default, else with null.

    Cost: a few vectorised passes over each column; O(n log n) at worst for unique ones.
    """
    faults = list(_name_faults(frame, schema, source))
    if frame.height == 0 and not schema.may_be_absent:
        faults.append(Fault(source, None, "the table has no rows"))
    bad = _never(frame.height)

    def judge(mask: pl.Series, values: pl.Series, reason: str) -> None:
        nonlocal bad
        fault = row_fault(mask, values, source, reason)
        if fault is not None:
            faults.append(fault)
            bad = bad | mask.fill_null(False)

    columns: list[pl.Series] = []
    for column in schema.columns:
        values = pl.Series(column.name, [None], column.dtype).new_from_index(0, frame.height)
        lost = _never(frame.height)
        if column.name in frame.columns:
            raw = _blank_to_null(frame[column.name])
            if _convertible(raw.dtype, column.dtype):
                values, lost = _convert(raw, column)
                judge(lost, raw, f"not {_NOUNS[column.dtype]}")
            else:
                reason = f"column {column.name!r} holds {raw.dtype}, {column.dtype.__name__} is wanted"
                faults.append(Fault(source, column.name, reason))
                columns.append(values)
                continue
        elif column.required:
            columns.append(values)
            continue
        if column.default is not None:
            values = values.fill_null(column.default)
        for mask, reason in _column_faults(values, column, lost):
            judge(mask, values, reason)
        columns.append(values)
    found = pl.DataFrame(columns)
    for values, mask, reason in _rule_faults(found, schema, rules):
        judge(mask, values, reason)
    return Inspected(found, bad, tuple(faults))


def unknown_items(interactions: pl.DataFrame, items: pl.DataFrame) -> pl.Series:
    """bool (n,): the interactions with an item that the item table does not have."""
    item_ids = interactions["item_id"]
    return item_ids.is_not_null() & ~item_ids.is_in(items["item_id"].drop_nulls().implode())


def _name_faults(frame: pl.DataFrame, schema: TableSchema, source: str) -> Iterator[Fault]:
    known = list(schema.polars)
    for name in frame.columns:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=1)
            advice = f"did you mean {nearest[0]!r}?" if nearest else f"known columns: {', '.join(known)}"
            yield Fault(source, name, f"unknown column {name!r}; {advice}")
    for column in schema.columns:
        if column.required and column.name not in frame.columns:
            found = ", ".join(frame.columns) or "nothing"
            yield Fault(source, column.name, f"required column {column.name!r} is missing; found: {found}")


def _never(rows: int) -> pl.Series:
    return pl.repeat(False, rows, dtype=pl.Boolean, eager=True)


def _blank_to_null(raw: pl.Series) -> pl.Series:
    if raw.dtype not in (pl.String, pl.Categorical, pl.Enum):
        return raw
    raw = raw.cast(pl.String)
    return raw.set(raw == "", None)


def _convert(raw: pl.Series, column: Column) -> tuple[pl.Series, pl.Series]:
    """The values in the column's dtype, and bool (n,): where that could not be done."""
    if raw.dtype == column.dtype or raw.dtype == pl.Null:
        return raw.cast(column.dtype), _never(len(raw))
    if column.dtype == pl.Boolean and raw.dtype == pl.String:
        lower = raw.str.to_lowercase()
        answer = pl.when(lower.is_in(_TRUE)).then(True).when(lower.is_in(_FALSE)).then(False)
        converted = pl.select(answer.alias(column.name)).to_series()
    else:
        converted = raw.cast(column.dtype, strict=False)
    lost = raw.is_not_null() & converted.is_null()
    if raw.dtype.is_float() and column.dtype == pl.Int64:
        lost |= (raw.is_not_null() & (converted.cast(raw.dtype) != raw)).fill_null(False)
    return converted, lost


_NOUNS = {pl.String: "text", pl.Int64: "a whole number", pl.Float64: "a number", pl.Boolean: "true or false"}


def _convertible(found: pl.DataType, wanted: type[pl.DataType]) -> bool:
    if found == wanted or found == pl.Null:
        return True
    if wanted == pl.String:
        return found.is_integer()  # ids are often written as numbers; anything else would be guesswork
    if wanted == pl.Boolean:
        return found == pl.String
    return found == pl.String or found.is_numeric()


def _column_faults(values: pl.Series, column: Column, lost: pl.Series) -> Iterator[tuple[pl.Series, str]]:
    """What is wrong with the values themselves; each of the rows that one column's limits refuse is named once."""
    if column.required:
        yield values.is_null() & ~lost, "a value is required"
    if column.dtype == pl.Float64:
        yield ~values.is_finite(), "not a finite number"
        values = values.set(~values.is_finite().fill_null(True), None)
    hint = f" ({column.hint})" if column.hint else ""
    if column.minimum is not None:
        yield values < column.minimum, f"below {column.minimum}{hint}"
    if column.maximum is not None:
        yield values > column.maximum, f"above {column.maximum}{hint}"
    if column.max_bytes is not None:
        yield values.str.len_bytes() > column.max_bytes, f"longer than {column.max_bytes} bytes"
        yield values.str.contains(CONTROL_BUT_LINES_PATTERN if column.lines else CONTROL_PATTERN), CONTROL
    if column.tokens is not None:
        tokens = values.str.split(LIST_SEPARATOR)
        yield tokens.list.len() > column.tokens.most, f"more than {column.tokens.most} between {LIST_SEPARATOR!r}"
        yield _any_token(tokens, pl.element() == ""), f"nothing between two {LIST_SEPARATOR!r}"
        too_long = pl.element().str.len_bytes() > column.tokens.max_bytes
        yield _any_token(tokens, too_long), f"one of the list is longer than {column.tokens.max_bytes} bytes"
        yield values.str.contains(CONTROL_PATTERN), CONTROL
    if column.choices:
        yield ~values.is_in(column.choices), f"not one of {', '.join(column.choices)}"
    if column.unique:
        yield values.is_not_null() & ~values.is_first_distinct(), "appears a second time"


def _any_token(tokens: pl.Series, condition: pl.Expr) -> pl.Series:
    return tokens.list.eval(condition).list.any()


def _rule_faults(
    frame: pl.DataFrame, schema: TableSchema, rules: TableRules | None
) -> Iterator[tuple[pl.Series, pl.Series, str]]:
    """What several columns together, the clock and the serving settings refuse: values, bool (n,), reason."""
    if schema is INTERACTIONS:
        kinds = frame["event_type"]
        bare = kinds.is_not_null() & ~kinds.is_in(_VALUE_TYPES)
        yield frame["value"], frame["value"].is_not_null() & bare, VALUE_BELONGS
    if rules is None:
        return
    if schema is INTERACTIONS:
        times_ms = frame["timestamp_ms"]
        # What is no date at all has been said by then.
        ahead = (times_ms > rules.now_ms + rules.max_ahead_ms) & (times_ms < TIME_END_MS)
        if ahead.any():
            dates = frame["timestamp_ms"].cast(pl.Datetime("ms")).dt.strftime("%Y-%m-%dT%H:%M:%SZ")
            limit = f"more than {rules.max_ahead_ms // 1000} s ahead of now ({shown_time(rules.now_ms)})"
            yield dates, ahead, limit
    if rules.surfaces is not None:
        unknown = f"unknown surface; the serving settings have {listed(rules.surfaces)}"
        if schema is INTERACTIONS:
            yield frame["surface"], ~frame["surface"].is_in(list(rules.surfaces)), unknown
        if schema is ITEMS:
            surfaces = frame["surfaces"].str.split(LIST_SEPARATOR)
            yield frame["surfaces"], _any_token(surfaces, ~pl.element().is_in([*rules.surfaces, ""])), unknown
    if schema is ITEMS and rules.categories:
        allowed = frame["category"].is_in(list(rules.categories)).fill_null(False)
        yield frame["category"], ~allowed, "not one of the categories that the serving settings allow"
