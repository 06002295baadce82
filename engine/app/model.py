"""Models that serve, train and publish, from a bundle's files; the adapter for each part is chosen here."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import polars as pl
from pydantic import ValidationError

from engine.adapters.onnx.towers import OnnxItemTower, OnnxUserTower
from engine.app.backends import open_stages
from engine.batching.micro_batcher import MicroBatcher
from engine.bundle.bundle import (
    CONTENT_FILE,
    ITEM_TOWER_FILE,
    USER_TOWER_FILE,
    Bundle,
    open_bundle,
)
from engine.bundle.store import BundleStore
from engine.catalog.embed import CategoryMeans, ItemEmbedder
from engine.catalog.live import LiveCatalogue
from engine.catalog.popularity import LivePopularity
from engine.config.serving import EngineConfig
from engine.data.dataset import Dataset
from engine.errors import BundleError, EngineError, described
from engine.features.content import ContentFeatures, ContentSchema, content_features
from engine.features.context import ContextEncoder
from engine.features.fold_in import fold_in
from engine.features.history import Histories, HistoryStates
from engine.features.schema import CODE_FEATURES
from engine.features.user_embedder import UserEmbedder
from engine.kernels.membership import pack_mask
from engine.kernels.warmup import warm_up
from engine.logs import Progress
from engine.request.model import ServingModel
from engine.retrieval.live_index import LiveIndex
from engine.rules.schema import Rules
from engine.training.config import AlsConfig, TrainingConfig
from engine.types import Float32Array, Int64Array, RankingContext


def load_model(
    path: Path,
    config: EngineConfig,
    rules: Rules | None = None,
    variant_rules: Mapping[str, Rules] | None = None,
    batcher: MicroBatcher | None = None,
) -> ServingModel:
    """Open a bundle, check it as a whole, and make it ready for its first request, with these rules or none.

    Args:
        variant_rules: those that variants name; see engine.experiments.settings.
        batcher: makes native calls for several requests at once; None: each request makes its own.

    Raises:
        BundleError: a part does not verify, or a dry run fails. ConfigError: a device has too little memory.
    """
    bundle = open_bundle(path)
    schema = bundle.schema
    warm_up()
    surfaces = tuple(config.surfaces)
    catalogue = LiveCatalogue(
        bundle,
        load_item_embedder(bundle),
        surfaces,
        config.catalog.fresh_capacity,
        rules or Rules.none(surfaces),
        variant_rules,
    )
    index, ranker = open_stages(bundle, catalogue, config, batcher)
    model = ServingModel(
        bundle=bundle,
        catalogue=catalogue,
        popularity=LivePopularity(bundle, catalogue, config.exploration.max_interactions),
        index=LiveIndex(index, catalogue),
        ranker=ranker,
        encoder=ContextEncoder(schema),
    )
    _dry_run(model, bundle, config)
    return model


def _dry_run(model: ServingModel, bundle: Bundle, config: EngineConfig) -> None:
    """One search and one ranking, as a request would make them: shapes agree, and the first request is not slow."""
    schema = bundle.schema
    context = RankingContext(
        query=np.array(bundle.item_vectors[0], np.float32),
        session=np.zeros(schema.embedding_dim, np.float32),
        collaborative=np.zeros(schema.collaborative_dim, np.float32),
        dense=np.zeros(schema.dense_dim, np.float32),
        codes=np.zeros(len(CODE_FEATURES), np.int64),
    )
    everything = pack_mask(np.arange(model.catalogue.row_count) < len(bundle.items))
    try:
        rows, _ = model.index.search(context.query, config.retrieval.candidate_count, everything)
        scores = model.ranker.score(context, rows)
        model.catalogue.ids(rows[:1])
    except (EngineError, ValueError) as error:
        raise BundleError(f"{bundle.path}: the dry run failed: {described(error)}") from error
    if not len(rows) or not np.isfinite(scores).all():
        raise BundleError(f"{bundle.path}: the dry run found {len(rows)} candidates with scores that are not finite")


def train_bundle(
    dataset: Dataset,
    config: TrainingConfig,
    store: BundleStore,
    progress: Progress | None = None,
    make_current: bool = True,
) -> Path:
    """Train on a data set and put the result into a store, as the current bundle or not; returns its directory."""
    # Here, and not above: serving must not need what training needs.
    from engine.adapters.faiss.build import build_index
    from engine.training.train import train_models, write_bundle

    models = train_models(dataset, config, progress)
    return store.publish(
        lambda directory: write_bundle(directory, dataset, models, config, build_index, progress), make_current
    )


def load_item_embedder(bundle: Bundle) -> ItemEmbedder:
    """What gives items that the bundle does not hold their vectors: its item tower, or the mean of their category."""
    if bundle.manifest.embeddings == "als":
        return CategoryMeans(bundle.items.table, bundle.item_vectors)
    embed_content = open_item_tower(bundle.path / ITEM_TOWER_FILE)
    try:
        schema = ContentSchema.model_validate_json((bundle.path / CONTENT_FILE).read_bytes())
    except (OSError, ValidationError) as error:
        raise BundleError(f"{bundle.path / CONTENT_FILE}: {described(error)}") from None

    def embed(items: pl.DataFrame) -> Float32Array:
        return embed_content(content_features(items, schema))

    return embed


def open_item_tower(path: Path) -> Callable[[ContentFeatures], Float32Array]:
    """The item tower of an ONNX file: vectors float32 (n, dim) from the content of n items."""
    return OnnxItemTower(path).embed


def load_embedders(bundle: Bundle) -> tuple[UserEmbedder, UserEmbedder]:
    """What turns histories (in the bundle's rows) into vectors: of the retrieval space, and of matrix factorization."""
    als = AlsConfig.model_validate(bundle.manifest.training["als"])
    collaborative = np.ascontiguousarray(bundle.column("collaborative"))

    def folded(histories: Histories, states: HistoryStates, demographic_codes: Int64Array) -> Float32Array:
        return fold_in(collaborative, histories, states, als.alpha, als.regularization)

    if bundle.manifest.embeddings == "als":
        return folded, folded
    tower = OnnxUserTower(bundle.path / USER_TOWER_FILE, os.cpu_count() or 1)
    item_vectors = np.ascontiguousarray(bundle.item_vectors)

    def embedded(histories: Histories, states: HistoryStates, demographic_codes: Int64Array) -> Float32Array:
        return tower.embed(histories, states, item_vectors, demographic_codes)

    return embedded, folded
