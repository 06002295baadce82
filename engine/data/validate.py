"""Bring a frame to a canonical schema, or say which column and row cannot be."""

import difflib

import polars as pl

from engine.data.schema import Column, TableSchema
from engine.errors import DataError

_TRUE = ("true", "1", "yes")
_FALSE = ("false", "0", "no")


def conform(frame: pl.DataFrame, schema: TableSchema, source: str) -> pl.DataFrame:
    """The frame with every canonical column, in canonical order and dtypes, checked.

    Args:
        frame: any dtypes that convert without loss: text (as read from CSV), integers for ids, whole floats for
            integers. An empty string counts as absent.
        source: the file (or other origin) that an error names.

    Returns:
        The columns of `schema`; absent optional ones are filled with the default, else with null.

    Raises:
        DataError: names source, column, first bad row (1-based, header not counted) and the value found there.

    Cost: a few vectorised passes over each column; O(n log n) at worst for unique ones.
    """
    _check_names(frame, schema, source)
    if frame.height == 0 and not schema.may_be_absent:
        raise DataError(f"{source}: the table has no rows")
    columns = []
    for column in schema.columns:
        if column.name in frame.columns:
            values = _convert(frame[column.name], column, source)
        else:
            values = pl.Series(column.name, [None], column.dtype).new_from_index(0, frame.height)
        if column.default is not None:
            values = values.fill_null(column.default)
        _check_values(values, column, source)
        columns.append(values)
    return pl.DataFrame(columns)


def check_references(interactions: pl.DataFrame, items: pl.DataFrame, source: str, items_source: str) -> None:
    """Raise DataError at the first interaction with an item that the item table does not have."""
    unknown = ~interactions["item_id"].is_in(items["item_id"].implode())
    refuse_first(unknown, interactions["item_id"], source, f"no such item in {items_source}")


def refuse_first(bad: pl.Series, values: pl.Series, source: str, reason: str) -> None:
    """Raise DataError at the first true of `bad` (bool (n,), null is false), showing that row's value."""
    row = bad.fill_null(False).arg_max()
    if row is None or not bad[row]:
        return
    shown = "nothing" if values[row] is None else _shorten(repr(values[row]))
    raise DataError(f"{source}: column {values.name!r}, row {row + 1}: {reason}, found {shown}")


def _check_names(frame: pl.DataFrame, schema: TableSchema, source: str) -> None:
    known = list(schema.polars)
    for name in frame.columns:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=1)
            advice = f"did you mean {nearest[0]!r}?" if nearest else f"known columns: {', '.join(known)}"
            raise DataError(f"{source}: unknown column {name!r}; {advice}")
    for column in schema.columns:
        if column.required and column.name not in frame.columns:
            raise DataError(f"{source}: required column {column.name!r} is missing; found: {', '.join(frame.columns)}")


def _convert(raw: pl.Series, column: Column, source: str) -> pl.Series:
    if raw.dtype in (pl.String, pl.Categorical, pl.Enum):
        raw = raw.cast(pl.String)
        raw = raw.set(raw == "", None)
    if raw.dtype == column.dtype:
        return raw
    if raw.dtype == pl.Null:
        return raw.cast(column.dtype)
    if not _convertible(raw.dtype, column.dtype):
        raise DataError(f"{source}: column {column.name!r} holds {raw.dtype}, {column.dtype.__name__} is wanted")
    if column.dtype == pl.Boolean and raw.dtype == pl.String:
        lower = raw.str.to_lowercase()
        answer = pl.when(lower.is_in(_TRUE)).then(True).when(lower.is_in(_FALSE)).then(False)
        converted = pl.select(answer.alias(column.name)).to_series()
    else:
        converted = raw.cast(column.dtype, strict=False)
    lost = raw.is_not_null() & converted.is_null()
    if raw.dtype.is_float() and column.dtype == pl.Int64:
        lost |= raw.is_not_null() & (converted.cast(raw.dtype) != raw)
    refuse_first(lost, raw, source, f"not {_NOUNS[column.dtype]}")
    return converted


_NOUNS = {pl.String: "text", pl.Int64: "a whole number", pl.Float64: "a number", pl.Boolean: "true or false"}


def _convertible(found: pl.DataType, wanted: type[pl.DataType]) -> bool:
    if wanted == pl.String:
        return found.is_integer()  # ids are often written as numbers; anything else would be guesswork
    if wanted == pl.Boolean:
        return found == pl.String
    return found == pl.String or found.is_numeric()


def _check_values(values: pl.Series, column: Column, source: str) -> None:
    if column.required:
        refuse_first(values.is_null(), values, source, "a value is required")
    if column.dtype == pl.Float64:
        refuse_first(~values.is_finite(), values, source, "not a finite number")
    if column.minimum is not None:
        hint = f" ({column.hint})" if column.hint else ""
        refuse_first(values < column.minimum, values, source, f"below {column.minimum}{hint}")
    if column.maximum is not None:
        hint = f" ({column.hint})" if column.hint else ""
        refuse_first(values > column.maximum, values, source, f"above {column.maximum}{hint}")
    if column.max_bytes is not None:
        refuse_first(values.str.len_bytes() > column.max_bytes, values, source, f"longer than {column.max_bytes} bytes")
    if column.choices:
        refuse_first(~values.is_in(column.choices), values, source, f"not one of {', '.join(column.choices)}")
    if column.unique:
        refuse_first(values.is_not_null() & ~values.is_first_distinct(), values, source, "appears a second time")


def _shorten(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."
