"""The catalogue changes while it serves: an item sells out, and one that nobody knew comes in."""

import time
from typing import Any

from rich.console import Console

from engine.data.dataset import Dataset
from engine.errors import DependencyUnavailable
from engine_bench.demo.patient import PatientClient, enum_name
from engine_bench.demo.tastes import Tastes
from engine_client.v1 import catalog_pb2
from engine_client.v1 import recommendation_pb2 as pb

PATIENCE_S = 60.0
# The longest slate that the API gives: the new item need not be among the first.
_LONG = 200
_NEW = "demo-new-item"
_POLL_S = 0.002


def show_catalogue(
    client: PatientClient, dataset: Dataset, tastes: Tastes, user_id: str, surface: str, console: Console
) -> dict[str, Any]:
    """Take the first item of a slate out of stock and put it back; add an item like it, and say where it comes up.

    Raises DependencyUnavailable when the stock-out does not show within PATIENCE_S.
    """
    first = client.recommend(user_id, surface).items[0].item_id
    client.update_inventory({first: False})
    acknowledged = time.perf_counter()
    while first in _ids(client.recommend(user_id, surface)):
        if time.perf_counter() - acknowledged > PATIENCE_S:
            raise DependencyUnavailable("the stock-out did not reach the recommendations")
        time.sleep(_POLL_S)
    gone_ms = (time.perf_counter() - acknowledged) * 1000.0
    client.update_inventory({first: True})
    known = dataset.items.row(dataset.items["item_id"].to_list().index(first), named=True)
    title = tastes.title(first)
    told = [f"{title} sells out: gone from the slate {gone_ms:.0f} ms after the stock was updated"]
    console.print(told[0])
    result: dict[str, Any] = {
        "sold_out": first, "gone_ms": round(gone_ms, 1), "new_item_position": None, "sentences": told
    }  # fmt: skip

    new = catalog_pb2.Item(item_id=_NEW, title=f"{title}, new edition", category=known["category"] or "")
    new.brand = known["brand"] or ""
    new.attributes.extend((known["attributes"] or "").split("|") if known["attributes"] else [])
    client.upsert_items([new])
    found = _find(client, user_id, surface)
    client.delete_items([_NEW])
    if found is None:
        told.append(f"{new.title} is not among {user_id}'s first {_LONG}; exploration shows it to somebody else")
        console.print(told[-1])
        return result
    source = enum_name(pb.ItemSource, found.source, "ITEM_SOURCE_")
    told.append(f"{new.title} is new: at position {found.position} of {_LONG} for {user_id}, by {source}")
    console.print(told[-1])
    return result | {"new_item_position": found.position}


def _find(client: PatientClient, user_id: str, surface: str) -> pb.RecommendedItem | None:
    """Where the new item is, once every replica can know of it."""
    give_up = time.perf_counter() + 2.0
    while time.perf_counter() < give_up:
        for item in client.recommend(user_id, surface, item_count=_LONG).items:
            if item.item_id == _NEW:
                return item
        time.sleep(0.05)
    return None


def _ids(response: pb.RecommendResponse) -> set[str]:
    return {item.item_id for item in response.items}
