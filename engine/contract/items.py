"""Items of the catalogue, as the API and the overlay hold them; engine.data.schema says the same of the item table."""

from collections.abc import Set

from engine.contract.limits import (
    LIST_SEPARATOR,
    MAX_ATTRIBUTE_BYTES,
    MAX_ATTRIBUTES,
    MAX_DESCRIPTION_BYTES,
    MAX_ID_BYTES,
    MAX_TITLE_BYTES,
)
from engine.contract.surfaces import checked_surface
from engine.contract.text import checked_text
from engine.contract.times import published_ms
from engine.contract.values import amount_fault
from engine.errors import InvalidRequest
from engine.v1 import catalog_pb2 as pb


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
        published_ms(item.published)
    if len(item.attributes) > MAX_ATTRIBUTES:
        raise InvalidRequest("attributes", f"must hold at most {MAX_ATTRIBUTES}, got {len(item.attributes)}")
    for position, attribute in enumerate(item.attributes):
        checked_text(f"attributes[{position}]", attribute, MAX_ATTRIBUTE_BYTES, required=True)
        if LIST_SEPARATOR in attribute:
            raise InvalidRequest(f"attributes[{position}]", f"must not hold {LIST_SEPARATOR!r}")
    for position, surface in enumerate(item.surfaces):
        try:
            if surfaces is None:
                checked_text("surface", surface, MAX_ID_BYTES, required=True)
            else:
                checked_surface(surface, surfaces)
        except InvalidRequest as fault:
            raise InvalidRequest(f"surfaces[{position}]", fault.reason) from None
