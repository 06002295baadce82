"""The item table of a shop's export: from a catalogue file, or from the lines of what was bought."""

from collections.abc import Sequence

import polars as pl

from engine.contract.limits import (
    LIST_SEPARATOR,
    MAX_ATTRIBUTE_BYTES,
    MAX_DESCRIPTION_BYTES,
    MAX_ID_BYTES,
    MAX_TITLE_BYTES,
)
from engine.data.foreign import ForeignTable, ignored
from engine.data.mapping import FormatSection, ItemColumns, Mapping
from engine.data.rules import TableRules
from engine.data.schema import ITEMS
from engine.data.validate import inspect
from engine.data.written import clean, ids, numbers, times_ms

_TEXTS = {"title": MAX_TITLE_BYTES, "description": MAX_DESCRIPTION_BYTES, "category": MAX_ID_BYTES,
          "brand": MAX_ID_BYTES, "seller": MAX_ID_BYTES}  # fmt: skip
_YES, _NO = ("true", "yes", "y", "ja", "oui", "si", "sí"), ("false", "no", "n", "nein", "non")


def items_of(table: ForeignTable, mapping: Mapping, rules: TableRules) -> pl.DataFrame:
    """The items of a catalogue file, the good ones; what is wrong goes to the table's findings."""
    columns = mapping.items.columns
    table.found.notes += ignored(table.path, table.frame, [*table.columns.values(), *columns.attributes])
    judged = inspect(_items(table, columns, mapping.format), ITEMS, str(table.path), rules)
    faults = [fault for fault in judged.faults if fault.examples]
    table.adopt(faults, pl.Series(range(table.frame.height)))
    table.found.bad_rows += int((judged.bad | table.bad).sum())
    return judged.frame.filter(~(judged.bad | table.bad))


def derived_items(lines: Sequence[ForeignTable], mapping: Mapping) -> pl.DataFrame:
    """One item for each id in the lines: the most frequent title, the median price, the latest of all else."""
    columns = mapping.items.columns
    parts = []
    for table in lines:
        table.columns = {
            **{ours: theirs for ours, theirs in vars(columns).items() if isinstance(theirs, str)},
            "item_id": columns.item_id or mapping.events.columns.item_id,
        }
        price = columns.price or mapping.events.columns.price
        if price is not None:
            table.columns["price"] = price
        parts.append(_items(table, columns, mapping.format, judge=False))
    every = pl.concat(parts).filter(pl.col("item_id").is_not_null())
    others = [name for name in ITEMS.polars if name not in ("item_id", "title", "price", "in_stock")]
    items = every.group_by("item_id", maintain_order=True).agg(
        pl.col("title").drop_nulls().mode(maintain_order=True).first(),
        pl.col("price").filter(pl.col("price") > 0).median().round(4),
        *(pl.col(name).drop_nulls().last() for name in others),
    )
    found = lines[0].found
    if "title" not in vars(columns) or columns.title is None:
        found.notes.append("items have no titles: the mapping names no column for them; their ids stand in")
    found.notes.append(f"the item table is made from the lines: {items.height:,} items")
    items = items.with_columns(pl.col("title").fill_null(pl.col("item_id")))
    judged = inspect(items, ITEMS, "the items of the lines")
    return judged.frame.filter(~judged.bad)


def _items(table: ForeignTable, columns: ItemColumns, form: FormatSection, *, judge: bool = True) -> pl.DataFrame:
    notes = table.found.notes
    values: dict[str, pl.Series] = {}
    values["item_id"], _ = ids(table.text("item_id"))
    for ours, most in _TEXTS.items():
        values[ours], cut = clean(table.text(ours), most)
        if cut:
            notes.append(f"{table.path.name}: {cut:,} values of {table.columns[ours]!r} are cut to {most} bytes")
    price, bad, reason = numbers(table.text("price"), form)
    published, no_time, no_time_reason = times_ms(table.text("published"), form)
    in_stock, no_stock = _stock(table.text("in_stock"), form)
    if judge:
        table.judge(bad, table.text("price"), reason)
        table.judge(no_time, table.text("published"), no_time_reason)
        table.judge(no_stock, table.text("in_stock"), "neither yes or no nor a number of pieces")
    tokens = [_token(table.frame, name) for name in columns.attributes if name in table.frame.columns]
    attributes = pl.concat_str(tokens, separator=LIST_SEPARATOR, ignore_nulls=True) if tokens else pl.lit(None)
    frame = pl.DataFrame({**values, "price": price, "published_ms": published, "in_stock": in_stock})
    attached = table.frame.with_columns(attributes.cast(pl.String).alias("attributes"))["attributes"]
    attached = attached.set(attached == "", None)
    return frame.with_columns(attached, pl.lit(None, pl.String).alias("surfaces")).select(list(ITEMS.polars))


def _token(frame: pl.DataFrame, name: str) -> pl.Expr:
    """`name:value`, as long as an attribute may be; null where the column is empty."""
    value = pl.col(name).str.replace_all(r"[\p{Cc}|\s]+", " ").str.strip_chars().str.to_lowercase()
    prefix = name.lower().replace(LIST_SEPARATOR, " ")
    most = max(1, (MAX_ATTRIBUTE_BYTES - len(prefix.encode()) - 1) // 4)
    return pl.when(value != "").then(pl.format(prefix + ":{}", value.str.slice(0, most)))


def _stock(written: pl.Series, form: FormatSection) -> tuple[pl.Series, pl.Series]:
    """Boolean (n,) of yes and no or of a number of pieces; and where it is neither."""
    lower = written.str.strip_chars().str.to_lowercase()
    pieces, _, _ = numbers(written, form)
    frame = pl.DataFrame({"text": lower, "pieces": pieces})
    text = pl.col("text")
    answer = pl.when(text.is_in(_YES)).then(True).when(text.is_in(_NO)).then(False).otherwise(pl.col("pieces") > 0)
    in_stock = frame.select(answer.alias("in_stock")).to_series()
    return in_stock, written.is_not_null() & in_stock.is_null()
