"""Training of the two towers: every event predicts the next one, by sampled softmax."""

import copy
import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from engine.data.dataset import Dataset
from engine.errors import DataError
from engine.features.content import content_features, fit_content
from engine.features.history import Histories
from engine.features.schema import DEMOGRAPHICS
from engine.features.seen_history import EVERYTHING_S
from engine.logs import Progress
from engine.training.als import train_als
from engine.training.config import AlsConfig, TwoTowerConfig
from engine.training.two_tower.item_tower import ItemTower
from engine.training.two_tower.model import TwoTowerModel, TwoTowerNetwork
from engine.training.two_tower.user_tower import UserTower
from engine.training.two_tower.windows import TrainingBatch, epoch_batches, next_new_items
from engine.types import Float64Array, Int64Array

# The scale at which id vectors start, as the item tower's random ones do.
_INITIAL_STD = 0.1
_BETAS = (0.9, 0.98)
_WARM_UP_SHARE = 0.05
_REPORT_EVERY = 20


def train_two_tower(
    dataset: Dataset,
    config: TwoTowerConfig,
    seed: int,
    threads: int = 0,
    progress: Progress | None = None,
    warm_start: TwoTowerModel | None = None,
    epochs_scale: float = 1.0,
    quiet_s: Int64Array = EVERYTHING_S,
) -> TwoTowerModel:
    """Learn both towers from every user's sequence of positive events.

    Id vectors start from a matrix factorization of the same events: it knows in a second which items go together,
    and the network then learns order and time on top.

    Args:
        dataset: whose interactions are all for training.
        config: sizes and schedule.
        seed: the same seed, data and thread count give the same model.
        threads: of PyTorch, 0 for all cores.
        progress: called with (positions done, positions in all, message) as training goes.
        warm_start: a model of the same catalogue to go on from, in nearly its vector space; it is left as it is.
        epochs_scale: share of the configured training to do; 0.3 lets a warm start take in what is new.
        quiet_s: int64 (256,), see next_new_items.

    Returns:
        The model, with item_vectors float32 (items, dim).

    Raises:
        DataError: no user has positive events on two items, or the warm start is of a catalogue of another size.

    Cost: about 20,000 events a second and epoch on one core with the default sizes; memory O(items * dim).
    Source: Kang & McAuley, ICDM 2018; Volkovs, Yu & Poutanen, NeurIPS 2017 (id dropout).
    """
    histories = dataset.histories()
    next_items = next_new_items(histories, quiet_s)
    if not (next_items >= 0).any():
        raise DataError("training needs a user with events on two items; the data has none")
    if warm_start is not None and len(warm_start.item_vectors) != dataset.item_count:
        raise DataError(
            f"the model to go on from has {len(warm_start.item_vectors)} items, the data {dataset.item_count}"
        )
    threads_before = torch.get_num_threads()
    torch.set_num_threads(threads or threads_before)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = _untrained(dataset, histories, config, seed, threads) if warm_start is None else warm_start
            network = _for_training(model, histories)
            _fit(network, histories, next_items, dataset.demographic_codes(), config, seed, epochs_scale, progress)
        return TwoTowerModel.of(network, model.content_schema)
    finally:
        torch.set_num_threads(threads_before)


def _untrained(
    dataset: Dataset, histories: Histories, config: TwoTowerConfig, seed: int, threads: int
) -> TwoTowerModel:
    schema = fit_content(dataset.items)
    features = content_features(dataset.items, schema)
    items = ItemTower(features, np.zeros(dataset.item_count, np.bool_), schema.buckets, config.dim, config.id_dropout)
    factors = train_als(dataset, AlsConfig(dim=config.dim), seed, threads).item_vectors
    with torch.no_grad():
        items.ids.copy_(torch.from_numpy(factors * (_INITIAL_STD / factors.std())))
    sizes = tuple(len(dataset.vocabularies[name]) + 1 for name in DEMOGRAPHICS)
    users = UserTower(config.dim, config.window, config.layers, config.heads, config.dropout, sizes)
    return TwoTowerModel.of(TwoTowerNetwork(items, users), schema)


def _for_training(model: TwoTowerModel, histories: Histories) -> TwoTowerNetwork:
    """A copy of the towers in which items with events have id vectors."""
    network: TwoTowerNetwork = copy.deepcopy(model.network)
    counts = np.bincount(histories.rows, minlength=len(model.item_vectors))
    network.items.has_events = torch.from_numpy(counts > 0)
    network.train()
    return network


def _fit(
    network: TwoTowerNetwork,
    histories: Histories,
    next_items: Int64Array,
    demographic_codes: Int64Array,
    config: TwoTowerConfig,
    seed: int,
    epochs_scale: float,
    progress: Progress | None,
) -> None:
    rng = np.random.default_rng(seed)
    per_epoch = int(np.maximum(histories.lengths() - 1, 0).sum())
    total = max(1, round(epochs_scale * min(config.max_positions, config.epochs * per_epoch)))
    optimizers = _optimizers(network, config)
    popularity = np.bincount(histories.rows, minlength=len(network.items.ids)) / len(histories.rows)
    done = step = 0
    while done < total:
        for batch in epoch_batches(histories, next_items, config.window, config.batch_positions, rng):
            done += int((batch.inputs.rows >= 0).sum())
            step += 1
            if not (batch.targets >= 0).any():
                continue
            rate = config.learning_rate * _schedule(done / total)
            for optimizer in optimizers:
                optimizer.zero_grad(set_to_none=True)
                for group in optimizer.param_groups:
                    group["lr"] = rate
            loss = _loss(network, batch, demographic_codes, popularity, config.negatives, rng)
            loss.backward()
            for optimizer in optimizers:
                optimizer.step()
            if progress is not None and (step % _REPORT_EVERY == 0 or done >= total):
                progress(min(done, total), total, f"two towers, loss {loss.item():.2f}")
            if done >= total:
                break


def _optimizers(network: TwoTowerNetwork, config: TwoTowerConfig) -> list[torch.optim.Optimizer]:
    """AdamW for the towers; for id vectors the sparse form, whose cost does not grow with the catalogue."""
    ids = network.items.ids
    others = [parameter for parameter in network.parameters() if parameter is not ids]
    matrices = [parameter for parameter in others if parameter.ndim >= 2]
    vectors = [parameter for parameter in others if parameter.ndim < 2]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return [
        torch.optim.AdamW(groups, lr=config.learning_rate, betas=_BETAS, fused=True),
        torch.optim.SparseAdam([ids], lr=config.learning_rate, betas=_BETAS),
    ]


def _schedule(progress: float) -> float:
    """Linear warm-up, then half a cosine to zero."""
    return min(1.0, progress / _WARM_UP_SHARE + 0.01) * 0.5 * (1.0 + math.cos(math.pi * min(progress, 1.0)))


def _loss(
    network: TwoTowerNetwork,
    batch: TrainingBatch,
    demographic_codes: Int64Array,
    popularity: Float64Array,
    negative_count: int,
    rng: np.random.Generator,
) -> Tensor:
    """Mean cross entropy of the next new item, over all positions of the batch, among the batch's candidates.

    Candidates are the items of the batch itself, which are hard because popular, and uniformly random ones. Each
    logit is corrected by the logarithm of the probability that its item is a candidate (logQ), without which popular
    items would be punished for being in most batches.

    Source: Bengio & Senécal, 2008; mixed sampling of Yang et al., WWW 2020.
    """
    inputs = batch.inputs
    valid = inputs.rows >= 0
    asked = batch.targets >= 0
    item_count = len(popularity)
    negative_count = min(negative_count, item_count)
    negatives = rng.choice(item_count, negative_count, replace=negative_count < item_count)
    in_batch = np.concatenate([inputs.rows[valid], batch.targets[asked]])
    rows, position = np.unique(np.concatenate([in_batch, negatives]), return_inverse=True)
    sequence_at = np.zeros(valid.shape, np.int64)
    sequence_at[valid] = position[: valid.sum()]
    target_at = torch.from_numpy(position[valid.sum() : len(in_batch)])

    vectors = network.items(torch.from_numpy(rows))
    queries = network.users(
        F.embedding(torch.from_numpy(sequence_at), vectors),
        torch.from_numpy(inputs.event_types),
        torch.from_numpy(inputs.ages_s),
        torch.from_numpy(valid),
        torch.from_numpy(demographic_codes[batch.users]),
    )[torch.from_numpy(asked)]
    absent = np.exp(-(negative_count / item_count + np.count_nonzero(valid) * popularity[rows]))
    log_q = torch.from_numpy(np.log1p(-absent).astype(np.float32))
    return F.cross_entropy(F.linear(queries, vectors, -log_q), target_at)
