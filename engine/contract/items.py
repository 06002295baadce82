"""Items of the catalogue: what the API accepts, and what the overlay holds; engine.data.schema has the item table."""

from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass
from typing import Final, TypeVar

from engine.contract.limits import (
    LIST_SEPARATOR,
    MAX_ATTRIBUTE_BYTES,
    MAX_ATTRIBUTES,
    MAX_DESCRIPTION_BYTES,
    MAX_ID_BYTES,
    MAX_ITEM_SURFACES,
    MAX_TITLE_BYTES,
)
from engine.contract.surfaces import checked_surface
from engine.contract.text import checked_text
from engine.contract.times import check_published
from engine.contract.values import amount_fault
from engine.errors import InvalidRequest
from engine_client.v1 import catalog_pb2 as pb

SCHEMA_VERSION: Final = 1
MAX_ITEMS = 100
MAX_LEVELS = 1000

_T = TypeVar("_T")


def check_item(item: pb.Item, surfaces: Set[str] | None, categories: Set[str]) -> None:
    """Refuse what is wrong with an item, apart from its id.

    Args:
        surfaces: those that there are; None: any. categories: the only ones allowed; empty: any.

    Raises:
        InvalidRequest: with the path of the first bad field, in the order of the message.
    """
    checked_text("title", item.title, MAX_TITLE_BYTES, required=True)
    checked_text("description", item.description, MAX_DESCRIPTION_BYTES, lines=True)
    checked_text("category", item.category, MAX_ID_BYTES)
    if categories and item.category not in categories:
        raise InvalidRequest("category", f"{item.category!r} is not one of the categories that this server allows")
    checked_text("brand", item.brand, MAX_ID_BYTES)
    checked_text("seller", item.seller, MAX_ID_BYTES)
    if item.HasField("price") and (fault := amount_fault(item.price)) is not None:
        raise InvalidRequest("price", fault)
    if item.HasField("published"):
        check_published(item.published)
    if len(item.attributes) > MAX_ATTRIBUTES:
        raise InvalidRequest("attributes", f"must hold at most {MAX_ATTRIBUTES}, got {len(item.attributes)}")
    for position, attribute in enumerate(item.attributes):
        checked_text(f"attributes[{position}]", attribute, MAX_ATTRIBUTE_BYTES, required=True)
        if LIST_SEPARATOR in attribute:
            raise InvalidRequest(f"attributes[{position}]", f"must not hold {LIST_SEPARATOR!r}")
    if len(item.surfaces) > MAX_ITEM_SURFACES:
        raise InvalidRequest("surfaces", f"must hold at most {MAX_ITEM_SURFACES}, got {len(item.surfaces)}")
    for position, surface in enumerate(item.surfaces):
        try:
            if surfaces is None:
                checked_text("surface", surface, MAX_ID_BYTES, required=True)
            else:
                checked_surface(surface, surfaces)
        except InvalidRequest as fault:
            raise InvalidRequest(f"surfaces[{position}]", fault.reason) from None


@dataclass(frozen=True, slots=True)
class CatalogueRules:
    """What a deployment decides.

    surfaces: those that the server is configured for. categories: the only ones allowed; empty allows any.
    """

    surfaces: Set[str]
    categories: Set[str]


def split_items(items: Sequence[pb.Item], rules: CatalogueRules) -> tuple[list[pb.Item], list[pb.ItemError]]:
    """The items to store and the errors of the others, each in the order of the request.

    Raises InvalidRequest: the batch itself is empty or too long. Cost: about 10 µs an item.
    """
    _check_size("items", len(items), MAX_ITEMS)
    return _split(items, lambda item: item.item_id, lambda item: check_item(item, rules.surfaces, rules.categories))


def split_levels(levels: Sequence[pb.StockLevel]) -> tuple[list[pb.StockLevel], list[pb.ItemError]]:
    """The same for stock levels."""
    _check_size("levels", len(levels), MAX_LEVELS)
    return _split(levels, lambda level: level.item_id, lambda level: None)


def split_ids(item_ids: Sequence[str]) -> tuple[list[str], list[pb.ItemError]]:
    """The same for ids."""
    _check_size("item_ids", len(item_ids), MAX_LEVELS)
    return _split(item_ids, lambda item_id: item_id, lambda item_id: None)


def _check_size(field: str, count: int, limit: int) -> None:
    if not 1 <= count <= limit:
        raise InvalidRequest(field, f"must hold 1 to {limit}, got {count}")


def _split(
    entries: Iterable[_T], id_of: Callable[[_T], str], check: Callable[[_T], None]
) -> tuple[list[_T], list[pb.ItemError]]:
    good: list[_T] = []
    errors: list[pb.ItemError] = []
    # Two entries for one id say two things at once: the first one holds, and the second is told so.
    met: set[str] = set()
    for index, entry in enumerate(entries):
        item_id = id_of(entry)
        try:
            checked_text("item_id", item_id, MAX_ID_BYTES, required=True)
            if item_id in met:
                raise InvalidRequest("item_id", "occurs before in this batch")
            met.add(item_id)
            check(entry)
        except InvalidRequest as fault:
            errors.append(pb.ItemError(index=index, item_id=item_id, field=fault.field, reason=fault.reason))
        else:
            good.append(entry)
    return good, errors


def stored_item(item: pb.Item, now_ms: int, *, removed: bool) -> pb.StoredItem:
    """What the overlay holds of an item."""
    stored = pb.StoredItem(schema_version=SCHEMA_VERSION, item=item, removed=removed)
    # Stock is kept apart: it changes without the rest.
    stored.item.ClearField("in_stock")
    stored.updated.FromMilliseconds(now_ms)
    return stored
