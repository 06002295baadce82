"""CatalogService: judge items one by one, store the good ones, say what was wrong with the others."""

import time
from collections.abc import Sequence
from typing import Any, Protocol

import grpc

from engine.catalog.changes import Change, ContentChange, StockChange
from engine.contract.items import CatalogueRules, split_ids, split_items, split_levels, stored_item
from engine.types import Int64Array, item_key, item_keys
from engine_client.v1 import catalog_pb2 as pb
from engine_client.v1 import catalog_pb2_grpc as pb_grpc


class CatalogueStore(Protocol):
    """Where changes go, and from where every replica follows them."""

    async def write(self, changes: Sequence[Change]) -> None:
        """Store changes, in their order and all or none. Raises DependencyUnavailable."""
        ...


class CatalogueCapacity(Protocol):
    """What this replica holds; others hold the same or are about to."""

    def unknown(self, keys: Int64Array) -> list[bool]:
        """Whether an item of each key (int64 (n,)) would need a new row."""
        ...

    @property
    def spare_capacity(self) -> int:
        """How many new rows there are."""
        ...


class CatalogServicer(pb_grpc.CatalogServiceServicer):
    """The service over one store."""

    def __init__(self, store: CatalogueStore, capacity: CatalogueCapacity, rules: CatalogueRules) -> None:
        self._store = store
        self._capacity = capacity
        self._rules = rules

    async def UpsertItems(  # noqa: N802
        self, request: pb.UpsertItemsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.UpsertItemsResponse:
        good, errors = split_items(request.items, self._rules)
        good, refused = self._fitting(good, [item.item_id for item in request.items])
        errors = sorted(errors + refused, key=lambda error: error.index)
        now_ms = time.time_ns() // 1_000_000
        changes: list[Change] = []
        for item in good:
            key = item_key(item.item_id)
            changes.append(ContentChange(key, stored_item(item, now_ms, removed=False)))
            if item.HasField("in_stock"):
                changes.append(StockChange(key, item.in_stock))
        if changes:
            await self._store.write(changes)
        return pb.UpsertItemsResponse(accepted_count=len(good), errors=errors)

    async def UpdateInventory(  # noqa: N802
        self, request: pb.UpdateInventoryRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.UpdateInventoryResponse:
        good, errors = split_levels(request.levels)
        if good:
            await self._store.write([StockChange(item_key(level.item_id), level.in_stock) for level in good])
        return pb.UpdateInventoryResponse(accepted_count=len(good), errors=errors)

    async def DeleteItems(  # noqa: N802
        self, request: pb.DeleteItemsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.DeleteItemsResponse:
        good, errors = split_ids(request.item_ids)
        now_ms = time.time_ns() // 1_000_000
        if good:
            await self._store.write(
                [
                    ContentChange(item_key(item_id), stored_item(pb.Item(item_id=item_id), now_ms, removed=True))
                    for item_id in good
                ]
            )
        return pb.DeleteItemsResponse(accepted_count=len(good), errors=errors)

    def _fitting(self, items: list[pb.Item], request_ids: list[str]) -> tuple[list[pb.Item], list[pb.ItemError]]:
        """The items that fit into the capacity, and the errors of the others."""
        spare = self._capacity.spare_capacity
        if spare >= len(items):
            return items, []
        fitting: list[pb.Item] = []
        refused: list[pb.ItemError] = []
        for item, unknown in zip(
            items, self._capacity.unknown(item_keys([item.item_id for item in items])), strict=True
        ):
            spare -= unknown
            if unknown and spare < 0:
                reason = "no more new items fit until a new bundle holds them (catalog.fresh_capacity)"
                index = request_ids.index(item.item_id)
                refused.append(pb.ItemError(index=index, item_id=item.item_id, field="item_id", reason=reason))
            else:
                fitting.append(item)
        return fitting, refused
