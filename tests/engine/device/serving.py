"""A device process for tests, whose part a thread of this process plays; what is said goes through real sockets."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from engine.batching.batched import BatchRanker
from engine.catalog.new_items import NewItems
from engine.device.client import DeviceClient
from engine.device.model import BatchSearch, DeviceModel, Handler, ItemRows, LeasedModels, RankHandler, SearchHandler
from engine.device.server import DeviceServer
from engine.device.slot import RANK, SEARCH, SlotShape
from engine.features.schema import CODE_FEATURES, FeatureSchema
from engine.retrieval.overfetch import Found, SearchRequest
from engine.types import Float32Array, Int64Array, RankingContext

BUNDLE = Path("/a/bundle")


class Nothing:
    """Neither search nor ranker nor items."""

    def search(self, requests: Sequence[SearchRequest]) -> list[Found]:
        raise AssertionError("nobody is to search here")

    def score_many(self, requests: Sequence[tuple[RankingContext, Int64Array]]) -> list[Float32Array]:
        raise AssertionError("nobody is to rank here")

    def rows(self, keys: Int64Array) -> Int64Array:
        raise AssertionError("there are no fresh items here")


class OnlyBundle:
    """A catalogue to which nothing has come since its bundle."""

    def __init__(self, first_row: int) -> None:
        self.new_items = NewItems.none(first_row)


def device_model(
    *,
    search_batch: BatchSearch | None = None,
    ranker: BatchRanker | None = None,
    items: ItemRows | None = None,
    dim: int = 4,
    item_count: int = 8,
    schema: FeatureSchema | None = None,
    row_count: int | None = None,
    first_new_row: int | None = None,
) -> DeviceModel[None]:
    rows = row_count or item_count
    shape = SlotShape(
        dim=schema.embedding_dim if schema else dim,
        collaborative_dim=schema.collaborative_dim if schema else 2,
        dense_dim=schema.dense_dim if schema else 2,
        code_count=len(CODE_FEATURES),
        item_count=item_count,
        row_count=rows,
    )
    nothing = Nothing()
    first_row = rows if first_new_row is None else first_new_row
    handlers: dict[int, Handler] = {
        SEARCH: SearchHandler(search_batch or nothing.search),
        RANK: RankHandler(ranker or nothing, items or nothing, first_row),
    }
    return DeviceModel(shape, handlers, None)


@contextmanager
def served(model: DeviceModel[None], *, max_batch: int = 4, slots: int = 64) -> Iterator[DeviceClient]:
    with running(LeasedModels(lambda _: model), max_batch) as path:
        yield DeviceClient(path, BUNDLE, model.shape, slots)


@contextmanager
def running(models: LeasedModels[None], max_batch: int = 4) -> Iterator[Path]:
    """The socket of a device process that serves these bundles."""
    # Below /tmp: a socket's path has 107 characters at most, and pytest's directories are deep.
    with tempfile.TemporaryDirectory(prefix="engine-device-") as directory:
        path = Path(directory) / "socket"
        with DeviceServer(path, models, max_batch):
            yield path


def context_of(shape: SlotShape, value: float = 0.0) -> RankingContext:
    return RankingContext(
        np.full(shape.dim, value, np.float32),
        np.full(shape.dim, value, np.float32),
        np.full(shape.collaborative_dim, value, np.float32),
        np.full(shape.dense_dim, value, np.float32),
        np.zeros(shape.code_count, np.int64),
    )
