"""A bundle of any size without long training: the synthetic world's own vectors, and a ranker of a few examples."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engine.adapters.faiss.build import build_index
from engine.adapters.redis.store import RedisPublisher
from engine.bundle.bundle import Bundle, open_bundle
from engine.bundle.store import BundleStore
from engine.config.serving import EngineConfig, RedisConfig
from engine.data.build import build_dataset
from engine.data.dataset import Dataset
from engine.features.history import Histories, HistoryStates, window_of
from engine.kernels.unit_rows import gather_unit_rows
from engine.publish.users import publish_users
from engine.training.config import AlsConfig, RankerConfig, TrainingConfig
from engine.types import Float32Array, Int64Array
from engine_bench.synthetic.events import simulate_events
from engine_bench.synthetic.tables import tables_of
from engine_bench.synthetic.world import World, WorldSize

if TYPE_CHECKING:
    from engine.training.ranker.train import RankerModel

# What trains is imported where it is used: measuring must not need it, where the bundle is there already.

USERS, EVENTS_PER_USER, SEED = 2_000, 100, 0
_RECENT = 10
_CONFIG = TrainingConfig(seed=SEED, threads=0, embeddings="als", ranker=RankerConfig(max_examples=200, epochs=1))


@dataclass(frozen=True)
class WorldVectors:
    """The world's item vectors as an embedding model; a user is the mean of their latest items."""

    item_vectors: Float32Array

    def user_vectors(self, histories: Histories, states: HistoryStates, demographic_codes: Int64Array) -> Float32Array:
        window = window_of(histories, states, _RECENT)
        vectors = self.item_vectors[np.maximum(window.rows, 0)] * (window.rows >= 0)[:, :, None]
        means = vectors.sum(axis=1).astype(np.float32)
        return gather_unit_rows(means, np.arange(len(means)), means.shape[1])


def build_world(item_count: int) -> tuple[Dataset, WorldVectors]:
    """The synthetic world of this many items, with USERS who act in it; the same every time."""
    world = World(WorldSize(items=item_count, users=USERS), SEED)
    dataset = build_dataset(tables_of(world, simulate_events(world, USERS * EVENTS_PER_USER)))
    return dataset, WorldVectors(np.ascontiguousarray(world.item_latents))


def world_ranker(dataset: Dataset, vectors: WorldVectors) -> "RankerModel":
    """The ranker of a world's bundle: the same network for the same world, whenever it is trained."""
    from engine.training.ranker.split import split_for_ranker
    from engine.training.ranker.train import train_ranker

    split = split_for_ranker(dataset, _CONFIG.ranker, SEED)
    return train_ranker(dataset, split, vectors, vectors, _CONFIG.ranker, SEED)


def world_bundle(directory: Path, dataset: Dataset, vectors: WorldVectors) -> Bundle:
    """The bundle of a world; kept in `directory` and opened again from there."""
    store = BundleStore(directory)
    if not (directory / "current").exists():
        from engine.training.als import AlsModel
        from engine.training.train import TrainedModels, write_bundle

        config = _CONFIG.model_copy(update={"als": AlsConfig(dim=vectors.item_vectors.shape[1])})
        ranker = world_ranker(dataset, vectors)
        # Both spaces are the world's own; what matters here is the size of the tables, not what is in them.
        models = TrainedModels(
            AlsModel(vectors.item_vectors, config.als.alpha, config.als.regularization), None, ranker
        )
        store.publish(lambda path: write_bundle(path, dataset, models, config, build_index))
    return open_bundle(store.current())


def publish_world(bundle: Bundle, dataset: Dataset, vectors: WorldVectors, url: str) -> None:
    """Records and seen sets of all users into Redis."""
    publisher = RedisPublisher(url, RedisConfig(), EngineConfig.load().remembered_s)
    publish_users(bundle, dataset, vectors.user_vectors, vectors.user_vectors, publisher)
    publisher.close()
