"""The API's items as canonical item columns, the form that content features, attributes and rules read."""

from collections.abc import Sequence
from typing import Any, Final

import polars as pl
from google.protobuf.timestamp_pb2 import Timestamp

from engine.contract.limits import LIST_SEPARATOR
from engine.data.schema import ITEMS
from engine_client.v1 import catalog_pb2 as pb

COLUMNS: Final[dict[str, type[pl.DataType]]] = ITEMS.polars


def to_frame(items: Sequence[pb.Item]) -> pl.DataFrame:
    """n items as a frame of n rows with the canonical columns; what is absent is null. Cost: some µs an item."""
    return pl.DataFrame([_row(item) for item in items], schema=COLUMNS)


def canonical(frame: pl.DataFrame) -> pl.DataFrame:
    """A bundle's item columns as this engine knows them: columns that came later than the bundle are null."""
    absent = [pl.lit(None, dtype).alias(name) for name, dtype in COLUMNS.items() if name not in frame.columns]
    return frame.with_columns(absent).select(list(COLUMNS))


def _row(item: pb.Item) -> dict[str, Any]:
    values: dict[str, Any] = {
        "item_id": item.item_id,
        "title": item.title,
        "description": item.description or None,
        "category": item.category or None,
        "brand": item.brand or None,
        "seller": item.seller or None,
        "price": item.price if item.HasField("price") else None,
        "published_ms": _ms(item.published) if item.HasField("published") else None,
        "in_stock": item.in_stock if item.HasField("in_stock") else True,
        "attributes": LIST_SEPARATOR.join(item.attributes) or None,
        "surfaces": LIST_SEPARATOR.join(item.surfaces) or None,
    }
    return {name: values.get(name) for name in COLUMNS}


def _ms(moment: Timestamp) -> int:
    """Milliseconds since 1970 of any moment; those that are no date, the table's rules refuse."""
    return moment.seconds * 1000 + moment.nanos // 1_000_000
