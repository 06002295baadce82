"""Offline evaluation: every method on the same split, through the parts that serve."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.app.model import train_bundle
from engine.bundle.bundle import open_bundle
from engine.bundle.store import BundleStore
from engine.config.seen import SeenConfig, never_again
from engine.data.dataset import Dataset
from engine.evaluation.leave_one_out import leave_one_out, pipeline_lists, popularity_lists, retrieval_lists
from engine.evaluation.metrics import (
    MeanEstimate,
    coverage,
    gains,
    hit_positions,
    hits,
    intra_list_similarity,
    seed_means,
)
from engine.features.seen_history import windows_by_type
from engine.kernels.unit_rows import gather_unit_rows
from engine.logs import Progress
from engine.training.config import TrainingConfig
from engine.types import Float64Array, Int64Array


@dataclass(frozen=True, slots=True)
class MethodResult:
    """One method over all seeds; the estimates are over users, each user averaged over the seeds first."""

    method: str
    hr_at_10: MeanEstimate
    ndcg_at_10: MeanEstimate
    hr_at_50: MeanEstimate
    coverage_at_10: float
    intra_list_similarity_at_10: MeanEstimate
    intra_list_similarity_at_50: MeanEstimate
    seed_means: dict[str, list[float]]


def evaluate_leave_one_out(
    dataset: Dataset,
    config: TrainingConfig,
    seeds: Sequence[int],
    diversity_weights: Sequence[float],
    progress: Progress | None = None,
    seen: SeenConfig | None = None,
) -> tuple[int, list[MethodResult]]:
    """Train once a seed on everything but each user's last event, and look for that event.

    Rankings are unsampled: over all items that the seen policy does not hide from the user at that moment. The pipeline
    is asked once with each of the diversity weights, over the same bundle.

    Args:
        seen: the policy; None: what somebody has turned to is never offered to them again.

    Returns:
        How many users were tested, and one result a method.
    """
    policy = seen or never_again()
    split = leave_one_out(dataset, windows_by_type(policy.hide))
    lists: dict[str, list[Int64Array]] = {}
    similarities: dict[str, list[tuple[MeanEstimate, MeanEstimate]]] = {}
    for seed in seeds:
        with tempfile.TemporaryDirectory(prefix="engine-evaluate-") as scratch:
            store = BundleStore(Path(scratch) / "bundles")
            path = train_bundle(split.train, config.model_copy(update={"seed": seed}), store, progress)
            bundle = open_bundle(path)
            ranked = {
                "popularity": popularity_lists(bundle, split),
                **retrieval_lists(bundle, split),
                **pipeline_lists(bundle, split, Path(scratch), diversity_weights, policy),
            }
            vectors = gather_unit_rows(bundle.item_table, np.arange(len(bundle.items)), bundle.schema.embedding_dim)
        for method, rows in ranked.items():
            lists.setdefault(method, []).append(rows)
            both = intra_list_similarity(rows[:, :10], vectors), intra_list_similarity(rows, vectors)
            similarities.setdefault(method, []).append(both)
    return len(split.users), [
        _summarize(method, rows, split.targets, dataset.item_count, similarities[method])
        for method, rows in lists.items()
    ]


def _summarize(
    method: str,
    lists: list[Int64Array],
    targets: Int64Array,
    item_count: int,
    similarities: list[tuple[MeanEstimate, MeanEstimate]],
) -> MethodResult:
    positions = [hit_positions(rows, targets) for rows in lists]

    def over_seeds(metric: Callable[[Int64Array, int], Float64Array], k: int) -> MeanEstimate:
        return MeanEstimate.of(np.mean([metric(found, k) for found in positions], axis=0))

    return MethodResult(
        method=method,
        hr_at_10=over_seeds(hits, 10),
        ndcg_at_10=over_seeds(gains, 10),
        hr_at_50=over_seeds(hits, 50),
        coverage_at_10=float(np.mean([coverage(rows[:, :10], item_count) for rows in lists])),
        intra_list_similarity_at_10=_mean_estimate([at_10 for at_10, _ in similarities]),
        intra_list_similarity_at_50=_mean_estimate([at_50 for _, at_50 in similarities]),
        seed_means=seed_means(positions),
    )


def _mean_estimate(estimates: list[MeanEstimate]) -> MeanEstimate:
    """Over seeds: the users are the same users, so that their error does not shrink with the seeds."""
    return MeanEstimate(
        float(np.mean([estimate.mean for estimate in estimates])),
        float(np.mean([estimate.standard_error for estimate in estimates])),
    )
