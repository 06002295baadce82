"""Batches of catalogue changes to the items that are good and the reasons why the others are not.

As in engine.rpc.validate, lengths and ranges are the API's contract; only what a deployment decides is a setting.
"""

from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass
from typing import TypeVar

from engine.contract.items import check_item
from engine.contract.limits import MAX_ID_BYTES
from engine.contract.text import checked_text
from engine.errors import InvalidRequest
from engine.v1 import catalog_pb2 as pb

MAX_ITEMS = 100
MAX_LEVELS = 1000

_T = TypeVar("_T")


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
