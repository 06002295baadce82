"""A small world with everything that ranker tests need, trained once a process."""

from functools import cache

import numpy as np
import torch

from engine.data.dataset import Dataset
from engine.features.schema import FeatureSchema
from engine.training.als import AlsModel, train_als
from engine.training.config import AlsConfig, RankerConfig
from engine.training.ranker.examples import RequestInputs
from engine.training.ranker.item_table import build_item_table, item_popularity
from engine.training.ranker.network import RankerNetwork
from engine.training.ranker.split import RankerSplit, split_for_ranker
from engine.training.ranker.train import RankerModel, train_ranker
from engine.types import Float32Array
from tests.engine.training.worlds import taste_world

CONFIG = RankerConfig(
    hidden=(16, 8), cross_rank=4, epochs=4, top_negatives=10, retrieved_negatives=20, random_negatives=5,
    candidate_count=60, held_out_users=0.3, session_unknown_share=0.0,
)  # fmt: skip


@cache
def world() -> Dataset:
    return taste_world(seed=1)


@cache
def split() -> RankerSplit:
    return split_for_ranker(world(), CONFIG, seed=1)


@cache
def head_model() -> AlsModel:
    return train_als(world().with_interactions(split().head), AlsConfig(dim=8, iterations=5), seed=1, threads=1)


@cache
def ranker() -> RankerModel:
    return train_ranker(world(), split(), head_model(), head_model(), CONFIG, seed=1)


@cache
def tables() -> tuple[Float32Array, Float32Array]:
    """item_table and item_dynamic; copy before writing."""
    vectors = head_model().item_vectors
    table, _ = build_item_table(world(), vectors, vectors, ranker().schema.epoch_ms)
    return table, item_popularity(world()).table(ranker().schema.epoch_ms)


def scrambled(schema: FeatureSchema, seed: int = 0) -> RankerNetwork:
    """A network whose every weight matters: trained ones may be near zero where an error would hide."""
    torch.manual_seed(seed)
    network = RankerNetwork(schema, CONFIG)
    network.load_state_dict(ranker().network.state_dict())
    with torch.no_grad():
        for weight in network.parameters():
            weight += 0.1 * torch.randn_like(weight)
    return network.eval()


def arguments(inputs: RequestInputs, rows: np.ndarray) -> list[torch.Tensor]:
    """The network's arguments for n requests with candidate rows (n, k)."""
    table, dynamic = tables()
    request = (inputs.query, inputs.session, inputs.collaborative, inputs.dense, inputs.codes)
    return [torch.from_numpy(array) for array in (*request, table[rows], dynamic[rows])]
