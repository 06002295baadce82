"""Import The Complete Journey (84.51°): supermarket transactions, products and household demographics."""

from pathlib import Path

import polars as pl

from engine.data.schema import Column, TableSchema
from engine.data.tables import Imported, make_tables, write_tables
from engine_bench.datasets.source import SourceTable, read_source, refuse_first

_TRANSACTIONS = TableSchema(
    "transactions_sample",
    (
        Column("household_id", pl.String, required=True),
        Column("basket_id", pl.String),
        Column("product_id", pl.String, required=True),
        Column("quantity", pl.Int64, required=True),
        Column("sales_value", pl.Float64, required=True),
        Column("transaction_timestamp", pl.String, required=True),
    ),
)
_PRODUCTS = TableSchema(
    "products",
    (
        Column("product_id", pl.String, required=True, unique=True),
        Column("manufacturer_id", pl.String),
        Column("department", pl.String),
        Column("brand", pl.String),
        Column("product_category", pl.String),
        Column("product_type", pl.String),
        Column("package_size", pl.String),
    ),
)
_DEMOGRAPHICS = TableSchema(
    "demographics",
    (Column("household_id", pl.String, required=True, unique=True), Column("age", pl.String)),
    may_be_absent=True,
)
_TIME_FORMAT = "%Y-%m-%d %H:%M:%S"


def import_completejourney(source_dir: Path, out_dir: Path) -> Imported:
    """Convert the transactions, products and (when there) demographics, and write the canonical tables to `out_dir`.

    Every line with a positive quantity becomes a purchase with the amount paid as its value and the basket as its
    session; other lines (returns, coupons, corrections) are dropped. Products that were never sold stay when they
    have a category; a price is the median unit price paid. The files' times are the shops' local time
    (America/New_York, no offset given) and are taken as UTC, so that the hour of day keeps its meaning.

    Raises:
        DataError: a file or column is missing, or a value cannot be used; names file, column and row.
    """
    transactions = read_source(source_dir, _TRANSACTIONS)
    products = read_source(source_dir, _PRODUCTS)
    demographics = read_source(source_dir, _DEMOGRAPHICS)
    lines = _with_times(transactions)
    sold = lines.filter(pl.col("quantity") > 0)
    items = _items(products.frame, sold)
    listed = sold.join(items.select("item_id"), left_on="product_id", right_on="item_id", how="semi")
    tables = make_tables(
        _interactions(listed),
        items,
        demographics.frame.select(user_id="household_id", age_group="age"),
        sources={"interactions": transactions.path, "items": products.path, "users": demographics.path},
    )
    write_tables(tables, out_dir)
    notes = [
        f"{lines.height - sold.height:,} lines without a positive quantity dropped",
        "local shop times are taken as UTC",
    ]
    if listed.height < sold.height:
        notes.append(f"{sold.height - listed.height:,} lines of products that are not in the product file dropped")
    return Imported(tables, tuple(notes))


def _with_times(transactions: SourceTable) -> pl.DataFrame:
    written = transactions.frame["transaction_timestamp"]
    times = written.str.to_datetime(_TIME_FORMAT, time_unit="ms", strict=False)
    refuse_first(times.is_null(), written, transactions.path, f"not a time like {_TIME_FORMAT}")
    return transactions.frame.with_columns(times)


def _interactions(lines: pl.DataFrame) -> pl.DataFrame:
    return lines.select(
        user_id="household_id",
        item_id="product_id",
        event_type=pl.lit("purchase"),
        timestamp_ms=pl.col("transaction_timestamp").dt.epoch("ms"),
        value="sales_value",
        session_id="basket_id",
    )


def _items(products: pl.DataFrame, sold: pl.DataFrame) -> pl.DataFrame:
    prices = sold.group_by("product_id").agg(price=(pl.col("sales_value") / pl.col("quantity")).median().round(4))
    product_type, category = pl.col("product_type"), pl.col("product_category")
    name = pl.coalesce(product_type, category, pl.format("Product {}", "product_id")).str.to_titlecase()
    return (
        products.join(prices, on="product_id", how="left", maintain_order="left")
        .filter(category.is_not_null() | pl.col("price").is_not_null())
        .select(
            item_id="product_id",
            title=pl.concat_str(name, pl.col("package_size").str.strip_chars(), separator=", ", ignore_nulls=True),
            # 300 shelves make better browsing than 32 departments, one of which holds half of the sales.
            category=category.str.to_titlecase(),
            brand="manufacturer_id",
            price="price",
            attributes=pl.concat_str(
                _token("department", "department"), _token("type", "product_type"), _token("label", "brand"),
                separator="|", ignore_nulls=True,
            ),
        )
    )  # fmt: skip


def _token(prefix: str, column: str) -> pl.Expr:
    return pl.format(prefix + ":{}", pl.col(column).str.to_lowercase().str.replace_all("|", " ", literal=True))
