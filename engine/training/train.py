"""One training run, from a data set to the files of a bundle."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from pydantic import BaseModel

from engine.bundle.bundle import (
    CONTENT_FILE,
    INDEX_FILE,
    ITEM_DYNAMIC_FILE,
    ITEM_TABLE_FILE,
    ITEM_TOWER_FILE,
    METRICS_FILE,
    RANKER_FILE,
    RANKER_HALF_FILE,
    RANKER_INT8_FILE,
    SCHEMA_FILE,
    USER_TOWER_FILE,
)
from engine.bundle.items import write_items
from engine.data.dataset import Dataset
from engine.features.history import HistoryStates
from engine.features.session import SESSION_FIELD
from engine.logs import Progress
from engine.training.als import AlsModel, train_als
from engine.training.check import check_not_empty, check_trainable
from engine.training.config import TrainingConfig
from engine.training.embeddings import EmbeddingModel
from engine.training.popular import build_popularity
from engine.training.ranker.examples import RANKER_SESSION
from engine.training.ranker.item_table import build_item_table, item_popularity
from engine.training.ranker.quantize import export_int8_network
from engine.training.ranker.split import split_for_ranker
from engine.training.ranker.train import RankerModel, export_half_ranker, export_ranker, train_ranker
from engine.training.two_tower.model import TwoTowerModel, export_item_tower, export_user_tower
from engine.training.two_tower.train import train_two_tower
from engine.types import Float32Array

# Users whose vectors stand for future queries when the index is calibrated.
_INDEX_QUERIES = 256


class IndexBuilder(Protocol):
    """Builds the item index and says how it is to be searched and what was measured."""

    def __call__(
        self,
        item_vectors: Float32Array,
        path: Path,
        *,
        queries: Float32Array,
        seed: int,
        threads: int,
        progress: Progress | None,
    ) -> BaseModel: ...


@dataclass(frozen=True, slots=True)
class TrainedModels:
    """What a run learned. `towers` is None where matrix factorization is the retrieval space, too."""

    als: AlsModel
    towers: TwoTowerModel | None
    ranker: RankerModel

    @property
    def retrieval(self) -> EmbeddingModel:
        return self.towers or self.als


def train_models(dataset: Dataset, config: TrainingConfig, progress: Progress | None = None) -> TrainedModels:
    """Train everything, twice over: the ranker learns beside embeddings that have seen only the head of the data.

    A ranker that learned from scores of items that the embeddings were trained on would trust those scores far more
    than they deserve on the items to come. The embeddings that serve then learn from all of the data; the ranker
    reads them only through standardized inner products, which survive the change of space.

    Raises DataError when the data holds too little to learn from.
    """
    check_not_empty(dataset)
    split = split_for_ranker(dataset, config.ranker, config.seed, quiet_s=config.quiet_s())
    check_trainable(dataset, split, config)
    als, towers = train_embeddings(dataset.with_interactions(split.head), config, "head: ", progress)
    ranker = train_ranker(dataset, split, towers or als, als, config.ranker, config.seed, progress)
    als, towers = train_embeddings(dataset, config, "", progress)
    return TrainedModels(als, towers, ranker)


def train_embeddings(
    dataset: Dataset, config: TrainingConfig, prefix: str, progress: Progress | None
) -> tuple[AlsModel, TwoTowerModel | None]:
    """Matrix factorization, and the towers where they are the retrieval space; messages begin with `prefix`."""

    def report(done: int, total: int, message: str) -> None:
        if progress is not None:
            progress(done, total, prefix + message)

    als = train_als(dataset, config.als, config.seed, config.threads, report)
    if config.embeddings == "als":
        return als, None
    towers = train_two_tower(dataset, config.two_tower, config.seed, config.threads, report, quiet_s=config.quiet_s())
    return als, towers


def write_bundle(
    directory: Path,
    dataset: Dataset,
    models: TrainedModels,
    config: TrainingConfig,
    build_index: IndexBuilder,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Fill a bundle's directory; returns the manifest's fields (see BundleStore.publish)."""
    schema = models.ranker.schema
    item_vectors, collaborative = models.retrieval.item_vectors, models.als.item_vectors
    table, _ = build_item_table(dataset, item_vectors, collaborative, schema.epoch_ms)
    np.save(directory / ITEM_TABLE_FILE, table)
    dynamic = item_popularity(dataset).table(schema.epoch_ms)
    np.save(directory / ITEM_DYNAMIC_FILE, dynamic)
    write_items(directory, dataset.items)
    build_popularity(dataset).write(directory)
    difference = export_ranker(models.ranker, table, dynamic, directory / RANKER_FILE)
    half_difference = export_half_ranker(models.ranker, table, dynamic, directory / RANKER_HALF_FILE)
    int8_overlap = export_int8_network(
        directory / RANKER_FILE, models.ranker.sample, item_vectors, table, dynamic, directory / RANKER_INT8_FILE
    )
    if models.towers is not None:
        export_item_tower(models.towers, directory / ITEM_TOWER_FILE)
        export_user_tower(models.towers, directory / USER_TOWER_FILE)
        (directory / CONTENT_FILE).write_text(models.towers.content_schema.model_dump_json(indent=1))
    (directory / SCHEMA_FILE).write_text(schema.model_dump_json(indent=1))
    index = build_index(
        item_vectors,
        directory / INDEX_FILE,
        queries=_sample_queries(dataset, models.retrieval, config.seed),
        seed=config.seed,
        threads=config.threads,
        progress=progress,
    ).model_dump()
    ranker = {
        **asdict(models.ranker.report), "export_difference": difference, "half_export_difference": half_difference,
        "int8_top_50_overlap": int8_overlap,
    }  # fmt: skip
    metrics = {"ranker": ranker, "index": index}
    (directory / METRICS_FILE).write_text(json.dumps(metrics, indent=1))
    return {
        "generation": _generation(item_vectors),
        "data_end_ms": int(dataset.interactions.timestamps_ms.max()),
        "embeddings": config.embeddings,
        "item_count": dataset.item_count,
        "user_count": dataset.user_count,
        "training": {
            **config.model_dump(mode="json"),
            # What of it a session's vector and evidence depend on; how much of it is mixed in is serving's to say.
            SESSION_FIELD: RANKER_SESSION.model_dump(mode="json", exclude={"evidence_half"}),
        },
        "index": index,
    }


def _sample_queries(dataset: Dataset, retrieval: EmbeddingModel, seed: int) -> Float32Array:
    """The vectors of some users with history: what the index will be asked for."""
    histories = dataset.histories()
    active = np.flatnonzero(histories.lengths() > 0)
    users = np.sort(np.random.default_rng(seed).permutation(active)[:_INDEX_QUERIES])
    states = HistoryStates(users, histories.lengths()[users])
    return retrieval.user_vectors(histories, states, dataset.demographic_codes())


def _generation(item_vectors: Float32Array) -> int:
    """The name of an embedding space: a positive 63-bit hash of its vectors."""
    digest = hashlib.sha256(item_vectors.tobytes()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
