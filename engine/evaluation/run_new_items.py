"""Does content find the users of an item that nobody has turned to yet, and the first interactions of it more?"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.app.model import open_item_tower
from engine.data.dataset import Dataset
from engine.errors import ConfigError
from engine.evaluation.metrics import MeanEstimate, gains, hits, seed_means
from engine.evaluation.new_items import NewItemsSplit, new_items
from engine.evaluation.revealed import ATTRIBUTES, CATEGORY, AttributeTaste, Revealed, folded_by, moved_by
from engine.evaluation.run_next_event import by_user
from engine.features.content import content_features
from engine.logs import Progress
from engine.training.als import AlsModel
from engine.training.config import TrainingConfig
from engine.training.train import train_embeddings
from engine.training.two_tower.model import TwoTowerModel, export_item_tower
from engine.types import Float32Array, Float64Array, Int64Array

CONTENT = "content"
REVEALED = (1, 5, 20)


@dataclass(frozen=True, slots=True)
class NewItemFigures:
    """Means over users, each user's seeds averaged first.

    hr_at_50_gain: against content alone, the difference taken user by user.
    """

    hr_at_10: MeanEstimate
    ndcg_at_10: MeanEstimate
    hr_at_50: MeanEstimate
    hr_at_50_gain: MeanEstimate


@dataclass(frozen=True, slots=True)
class NewItemsReport:
    """users: who was asked, with any seed. items: new items a seed. questions: users asked, over all seeds."""

    users: int
    items: int
    questions: int
    methods: dict[str, NewItemFigures]
    seed_means: dict[str, dict[str, list[float]]]


def evaluate_new_items(
    dataset: Dataset, config: TrainingConfig, seeds: Sequence[int], progress: Progress | None = None
) -> NewItemsReport:
    """Train once a seed without a fifth of the items, and rank all of those for each user who turned to one.

    See `new_items` for the split. Every method orders the same new items, all of them, none sampled and none left
    out, ties at random:

    - random;
    - category popularity, attribute popularity: what the category, or category, brand and attributes, of an item
      drew in training; own attributes: the same with the user's own share of each (see AttributeTaste);
    - content: the bundle's item tower against the user's vector before the moment;
    - content + k: moved by k interactions of other users (engine.features.item_evidence);
    - ALS + k: matrix factorization, which knows no content, folded in from the same interactions.

    Raises:
        ConfigError: the training settings ask for no towers. DataError: too little data, see new_items.

    Cost: training without the ranker; the rest takes seconds.
    """
    if config.embeddings != "two-tower":
        raise ConfigError('new items have vectors by content alone with embeddings = "two-tower" only')
    positions: dict[str, list[Int64Array]] = {}
    asked, items = [], 0
    for seed in seeds:
        split = new_items(dataset, seed)
        settings = config.model_copy(update={"seed": seed})
        als, towers = train_embeddings(split.train, settings, f"seed {seed}: ", progress)
        assert towers is not None
        rng = np.random.default_rng(seed)
        for method, scores in _scores(split, als, towers, seed).items():
            positions.setdefault(method, []).append(target_positions(scores, split.targets, rng))
        asked.append(split.users)
        items = len(split.items)
    users = np.concatenate(asked)
    content = np.concatenate(positions[CONTENT])
    return NewItemsReport(
        users=len(np.unique(users)),
        items=items,
        questions=len(users),
        methods={name: _figures(np.concatenate(found), content, users) for name, found in positions.items()},
        seed_means={name: seed_means(found) for name, found in positions.items()},
    )


def target_positions(scores: Float32Array | Float64Array, targets: Int64Array, rng: np.random.Generator) -> Int64Array:
    """int64 (n,): how many items stand above each line's target, its place among equals drawn at random.

    scores: float (n, items), finite. targets: int64 (n,).
    """
    reached = scores[np.arange(len(scores)), targets][:, None]
    equals = (scores == reached).sum(axis=1)
    positions: Int64Array = (scores > reached).sum(axis=1) + rng.integers(0, equals)
    return positions


def _scores(
    split: NewItemsSplit, als: AlsModel, towers: TwoTowerModel, seed: int
) -> dict[str, Float32Array | Float64Array]:
    """Of each method: (users asked, new items)."""
    shape = (len(split.users), len(split.items))
    codes = split.train.demographic_codes()
    taste = {
        columns: AttributeTaste.of(split.train.items, split.items, split.histories, columns)
        for columns in (CATEGORY, ATTRIBUTES)
    }
    queries = towers.user_vectors(split.histories, split.states, codes)
    content = _content_vectors(split, towers)
    scores: dict[str, Float32Array | Float64Array] = {
        "random": np.random.default_rng(seed).random(shape),
        "category popularity": np.broadcast_to(taste[CATEGORY].popularity(), shape),
        "attribute popularity": np.broadcast_to(taste[ATTRIBUTES].popularity(), shape),
        "own attributes": taste[ATTRIBUTES].of_users(split.histories, split.states),
        CONTENT: queries @ content.T,
    }
    folded_queries = als.user_vectors(split.histories, split.states, codes)
    sets = {k: Revealed.of(split, k) for k in REVEALED}
    for k, revealed in sets.items():
        scores[f"{CONTENT} + {k}"] = revealed.scores(queries, moved_by(split, revealed, towers, content, seed))
    for k, revealed in sets.items():
        scores[f"ALS + {k}"] = revealed.scores(folded_queries, folded_by(split, revealed, als))
    return scores


def _content_vectors(split: NewItemsSplit, towers: TwoTowerModel) -> Float32Array:
    """float32 (new items, dim), by the file that a bundle would hold."""
    with tempfile.TemporaryDirectory(prefix="engine-evaluate-") as scratch:
        path = Path(scratch) / "item_tower.onnx"
        export_item_tower(towers, path)
        return open_item_tower(path)(content_features(split.items, towers.content_schema))


def _figures(found: Int64Array, content: Int64Array, users: Int64Array) -> NewItemFigures:
    in_50 = by_user(hits(found, 50), users)
    return NewItemFigures(
        hr_at_10=MeanEstimate.of(by_user(hits(found, 10), users)),
        ndcg_at_10=MeanEstimate.of(by_user(gains(found, 10), users)),
        hr_at_50=MeanEstimate.of(in_50),
        hr_at_50_gain=MeanEstimate.of(in_50 - by_user(hits(content, 50), users)),
    )
