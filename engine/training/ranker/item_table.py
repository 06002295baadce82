"""What the ranker reads of each item: the wide, immutable item table and the small table of live counts."""

import numpy as np

from engine.data.dataset import Dataset
from engine.features.item_attributes import ImputationMeans, item_attributes
from engine.features.popularity import PopularityTimeline
from engine.types import Float32Array

ItemColumns = dict[str, tuple[int, int]]


def build_item_table(
    dataset: Dataset, item_vectors: Float32Array, collaborative_vectors: Float32Array, epoch_ms: int
) -> tuple[Float32Array, ItemColumns]:
    """The ranker's item table and the names of its columns (FeatureSchema.item_columns).

    Args:
        dataset: whose item rows are the table's rows.
        item_vectors: float32 (items, dim), the retrieval space.
        collaborative_vectors: float32 (items, collaborative dim), matrix factorization.
        epoch_ms: where days count from.

    Returns:
        float32 (items, columns), C-contiguous and finite. An unknown date or price holds the mean of the known ones,
        and says so in `published_missing` or `price_missing`.

    Cost: one copy of the vectors.
    """
    attributes = item_attributes(dataset.items, epoch_ms, ImputationMeans.of(dataset.items, epoch_ms))
    parts = {"embedding": item_vectors, "collaborative": collaborative_vectors} | {
        name: values[:, None] for name, values in attributes.items()
    }
    columns: ItemColumns = {}
    start = 0
    for name, values in parts.items():
        columns[name] = (start, start + values.shape[1])
        start += values.shape[1]
    return np.ascontiguousarray(np.concatenate(list(parts.values()), axis=1), np.float32), columns


def item_popularity(dataset: Dataset) -> PopularityTimeline:
    """The timeline of users' positive events; `.table(as_of_ms)` of it is the ranker's item_dynamic."""
    events = dataset.interactions.positive()
    return PopularityTimeline.build(events.users, events.rows, events.timestamps_ms, dataset.item_count)
