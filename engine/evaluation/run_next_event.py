"""Compares how well vectors of the last hour and vectors of the current session predict a user's next event."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.config.seen import SeenConfig, never_again
from engine.config.serving import EngineConfig
from engine.data.dataset import Dataset
from engine.errors import DataError
from engine.evaluation.metrics import MeanEstimate, gains, hits, seed_means
from engine.evaluation.next_event import METHODS, STALE, next_events, query_vectors, target_positions
from engine.features.seen_history import windows_by_type
from engine.logs import Progress
from engine.stages.blend import BlendSettings
from engine.training.config import TrainingConfig
from engine.training.train import train_embeddings
from engine.types import BoolArray, Float64Array, Int64Array


@dataclass(frozen=True, slots=True)
class Figures:
    """Means over users, each user's events and seeds averaged first, so that an error is one over users.

    hr_at_10_gain: against the stale vector, the difference taken user by user.
    """

    hr_at_10: MeanEstimate
    ndcg_at_10: MeanEstimate
    hr_at_50: MeanEstimate
    hr_at_10_gain: MeanEstimate


@dataclass(frozen=True, slots=True)
class NextEventReport:
    """How much was replayed, and the figures of each method, the stale vector's first.

    in_session: over the events alone before which a session was under way.
    seed_means: of each method and metric, one mean a seed.
    """

    users: int
    events: int
    in_session_users: int
    in_session_events: int
    overall: dict[str, Figures]
    in_session: dict[str, Figures]
    seed_means: dict[str, dict[str, list[float]]]


def evaluate_next_event(
    dataset: Dataset,
    config: TrainingConfig,
    serving: EngineConfig,
    seeds: Sequence[int],
    progress: Progress | None = None,
    seen: SeenConfig | None = None,
) -> NextEventReport:
    """Train once a seed on everything but each user's last events, and replay those one by one.

    Retrieval alone, by exact search over all items that the seen policy does not hide
    (None: that the user has not met); see `next_events` for the split and
    METHODS for what is compared. The session is mixed in by the stage and the settings that serve.

    Raises DataError where no user has enough events.

    Cost: training without the ranker; then about 1 ms an event and method in the towers, and
    O(events * items * dim) for the search.
    """
    events = next_events(
        dataset,
        serving.cold_start.min_interactions,
        serving.blend.window_s,
        serving.processor.session_events,
        windows_by_type((seen or never_again()).hide),
    )
    if not len(events):
        raise DataError("no user has enough events for some of them to be replayed")
    settings = BlendSettings.of(serving.blend)
    positions: dict[str, list[Int64Array]] = {method: [] for method in METHODS}
    for seed in seeds:
        als, towers = train_embeddings(
            events.train, config.model_copy(update={"seed": seed}), f"seed {seed}: ", progress
        )
        model = towers or als
        for method, queries in query_vectors(model, events, settings).items():
            positions[method].append(target_positions(queries, model.item_vectors, events))
    everywhere = np.ones(len(events), np.bool_)
    in_session = events.session_stops > events.session_starts
    stale = positions[STALE]

    def over_users(values: Float64Array) -> float:
        return float(by_user(values, events.users).mean())

    return NextEventReport(
        users=len(np.unique(events.users)),
        events=len(events),
        in_session_users=len(np.unique(events.users[in_session])),
        in_session_events=int(in_session.sum()),
        overall={name: _figures(found, stale, events.users, everywhere) for name, found in positions.items()},
        in_session={name: _figures(found, stale, events.users, in_session) for name, found in positions.items()},
        seed_means={name: seed_means(found, over_users) for name, found in positions.items()},
    )


def by_user(values: Float64Array, users: Int64Array) -> Float64Array:
    """float64 (distinct users,): the mean of each user's values (n,)."""
    _, places, counts = np.unique(users, return_inverse=True, return_counts=True)
    return np.bincount(places, weights=values, minlength=len(counts)) / counts


def _figures(found: list[Int64Array], stale: list[Int64Array], users: Int64Array, chosen: BoolArray) -> Figures:
    """Over the chosen (n,) events. found, stale: one int64 (n,) of positions a seed."""
    users = users[chosen]

    def mean_by_user(values: list[Float64Array]) -> Float64Array:
        return by_user(np.mean([one[chosen] for one in values], axis=0), users)

    hits_at_10 = mean_by_user([hits(one, 10) for one in found])
    return Figures(
        hr_at_10=MeanEstimate.of(hits_at_10),
        ndcg_at_10=MeanEstimate.of(mean_by_user([gains(one, 10) for one in found])),
        hr_at_50=MeanEstimate.of(mean_by_user([hits(one, 50) for one in found])),
        hr_at_10_gain=MeanEstimate.of(hits_at_10 - mean_by_user([hits(one, 10) for one in stale])),
    )
