"""Train the ranker beside embedding models of the head, and write it for serving beside their successors."""

import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from engine.data.dataset import Dataset
from engine.errors import DataError
from engine.features.context import MS_PER_DAY
from engine.features.profile import PROFILE, ItemStats
from engine.features.schema import FeatureSchema
from engine.logs import Progress
from engine.training.config import RankerConfig
from engine.training.embeddings import EmbeddingModel
from engine.training.ranker.calibrate import CalibrationReport, calibration_report, fit_calibration
from engine.training.ranker.examples import Examples, RequestInputs, build_examples
from engine.training.ranker.export import export_half_network, export_network
from engine.training.ranker.fit import ExampleBatches, fit_network
from engine.training.ranker.item_table import build_item_table, item_popularity
from engine.training.ranker.network import RankerNetwork
from engine.training.ranker.split import RankerSplit
from engine.types import Float32Array, Float64Array, Int64Array

_SAMPLED_REQUESTS = 16


@dataclass(frozen=True, slots=True)
class RankerReport:
    """How training went. losses: held-out listwise loss before and after each epoch; empty when nothing was trained.

    retrieved_share: of the examples, how many chosen items retrieval itself had brought.
    """

    examples: int
    retrieved_share: float
    losses: tuple[float, ...]
    calibration: CalibrationReport | None


@dataclass(frozen=True, slots=True)
class RankerModel:
    """A trained ranker, the schema of its inputs, and some real requests that its exported form is checked on."""

    network: RankerNetwork
    schema: FeatureSchema
    report: RankerReport
    sample: RequestInputs


def train_ranker(
    dataset: Dataset,
    split: RankerSplit,
    retrieval: EmbeddingModel,
    collaborative: EmbeddingModel,
    config: RankerConfig,
    seed: int,
    progress: Progress | None = None,
) -> RankerModel:
    """Train on the tail of a split.

    Args:
        dataset: everything that is known; `split` is of it.
        retrieval, collaborative: models trained on `split.head` alone.
        progress: called after each epoch.

    Returns:
        The model. When the tail has examples of fewer than four users, or retrieval brought none of their items, it
        is left untrained, which keeps retrieval's order.

    Raises:
        DataError: no user has two events on different items, so that there is no example at all.

    Cost: one exact search of the catalogue an example, then epochs * examples * candidates through the network.
    """
    if len(split) == 0:
        raise DataError("the ranker needs users with events on two items or more; the data has none")
    epoch_ms = _epoch_ms(dataset)
    table, columns = build_item_table(dataset, retrieval.item_vectors, collaborative.item_vectors, epoch_ms)
    schema = FeatureSchema(
        embedding_dim=retrieval.item_vectors.shape[1],
        collaborative_dim=collaborative.item_vectors.shape[1],
        profile=PROFILE,
        vocabularies=dataset.vocabularies,
        item_columns=columns,
        epoch_ms=epoch_ms,
    )
    torch.manual_seed(seed)
    network = RankerNetwork(schema, config)
    network.features.use_spaces(retrieval.item_vectors, collaborative.item_vectors)
    network.features.use_moments(split.moments_ms)
    network.eval()

    # Profiles and stale counts come from the head: they must not know the answers.
    stale = item_popularity(dataset.with_interactions(split.head)).table(epoch_ms)
    stats = ItemStats.from_tables(schema, table, stale)
    examples = build_examples(dataset, split, retrieval, collaborative, stats, item_popularity(dataset), config, seed)
    sample = examples.inputs.take(np.arange(min(len(examples), _SAMPLED_REQUESTS)))
    fitting, stopping, calibrating, testing = _by_user(examples.users, config.held_out_users, seed)
    # Where retrieval did not bring the chosen item, serving could not have ranked it.
    fitting, stopping = fitting[examples.retrieved[fitting]], stopping[examples.retrieved[stopping]]
    if min(map(len, (fitting, stopping, calibrating, testing))) == 0:
        return RankerModel(network, schema, RankerReport(len(examples), _share(examples), (), None), sample)
    batches = ExampleBatches(examples, table, stale, config.code_dropout)
    losses = fit_network(network, batches, fitting, stopping, config, seed, progress)
    calibration = fit_calibration(*_weighted_clicks(network, batches, calibrating))
    network.calibration.copy_(torch.tensor([calibration.slope, calibration.intercept]))
    tested = _weighted_clicks(network, batches, testing)
    # Nothing to report on where retrieval brought none of these examples' items, and no negatives of its own are kept.
    quality = calibration_report(calibration, *tested) if len(tested[0]) else None
    report = RankerReport(len(examples), _share(examples), tuple(losses), quality)
    return RankerModel(network, schema, report, sample)


def export_ranker(model: RankerModel, item_table: Float32Array, item_dynamic: Float32Array, path: Path) -> float:
    """Write ranker.onnx for serving with these tables, whose vectors may be of later models than it learned from.

    Returns the largest difference of probability between the file and the network; raises EngineError above 1e-4.
    """
    return export_network(_beside(model, item_table), model.sample, item_table, item_dynamic, path)


def export_half_ranker(
    model: RankerModel, item_table: Float32Array, item_dynamic: Float32Array, path: Path
) -> float | None:
    """The same for GPUs, ranker.fp16.onnx: see export_half_network."""
    return export_half_network(_beside(model, item_table), model.sample, item_table, item_dynamic, path)


def _beside(model: RankerModel, item_table: Float32Array) -> RankerNetwork:
    """The network with the measures of the spaces that the table's vectors are in."""
    columns = model.schema.item_columns
    network = copy.deepcopy(model.network)
    network.features.use_spaces(
        item_table[:, slice(*columns["embedding"])], item_table[:, slice(*columns["collaborative"])]
    )
    return network


def _epoch_ms(dataset: Dataset) -> int:
    """Midnight (UTC) after the last event: days near serving time are small numbers, which float16 records keep."""
    last_ms = int(dataset.interactions.timestamps_ms.max(initial=0))
    return int((last_ms // MS_PER_DAY + 1) * MS_PER_DAY)


def _share(examples: Examples) -> float:
    return float(examples.retrieved.mean()) if len(examples) else 0.0


def _by_user(users: Int64Array, held_out: float, seed: int) -> tuple[Int64Array, Int64Array, Int64Array, Int64Array]:
    """Positions of the examples for fitting, for stopping, for calibrating and for reporting; no user is in two.

    The last three share the held-out users: half of them stop, a quarter calibrates, a quarter reports. All but the
    first are empty below four users.
    """
    distinct = np.random.default_rng(seed).permutation(np.unique(users))
    count = max(3, round(len(distinct) * held_out))
    if len(distinct) <= count:
        nothing = np.empty(0, np.int64)
        return np.arange(len(users)), nothing, nothing, nothing
    quarter = max(1, count // 4)
    parts = np.split(distinct, [quarter, 2 * quarter, count])
    testing, calibrating, stopping, fitting = (np.flatnonzero(np.isin(users, part)) for part in parts)
    return fitting, stopping, calibrating, testing


@torch.no_grad()
def _weighted_clicks(
    network: RankerNetwork, batches: ExampleBatches, positions: Int64Array
) -> tuple[Float64Array, Float64Array, Float64Array]:
    """Logits, clicks and weights of the retrieved candidates of these examples, each (n,).

    Random negatives are left out, and so are chosen items that retrieval would not have brought: a probability is
    about items that are served, and that users see.
    """
    examples = batches.examples.take(positions)
    # An item that was shown twice as much has been passed over twice as often.
    weights = examples.sample_weight.astype(np.float64) * examples.exposure
    weights[:, 0] = examples.retrieved
    counted = weights > 0
    logits = batches.logits(network, positions, np.zeros(len(positions), np.bool_)).double().numpy()
    clicked = np.zeros_like(weights)
    clicked[:, 0] = 1.0
    return logits[counted], clicked[counted], weights[counted]
