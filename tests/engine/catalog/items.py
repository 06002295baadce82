"""Changes of a catalogue, written shortly."""

from typing import Any

from engine.catalog.changes import Change, ContentChange, StockChange
from engine.types import item_key
from engine_client.v1 import catalog_pb2 as pb


def upsert(item_id: str, **fields: Any) -> ContentChange:
    item = pb.Item(item_id=item_id, **({"title": f"title of {item_id}"} | fields))
    return ContentChange(item_key(item_id), pb.StoredItem(schema_version=1, item=item))


def remove(item_id: str) -> ContentChange:
    item = pb.Item(item_id=item_id)
    return ContentChange(item_key(item_id), pb.StoredItem(schema_version=1, item=item, removed=True))


def stock(item_id: str, in_stock: bool) -> Change:
    return StockChange(item_key(item_id), in_stock)
