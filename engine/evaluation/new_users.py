"""Evaluates popularity by segment for users of whom only the demographics are known."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.bundle.popularity import Popularity
from engine.data.dataset import Dataset
from engine.errors import DataError
from engine.evaluation.metrics import MeanEstimate, gains, hit_positions, hits
from engine.features.history import Histories
from engine.features.schema import DEMOGRAPHICS
from engine.stages.cold_start import popular_candidates
from engine.training.popular import build_popularity
from engine.types import BoolArray, Demographics, Float64Array, Int64Array, Strategy

LIST_SIZE = 50
# Each fifth of the users is held out once a seed.
FOLDS = 5
FIRST_ITEMS = 5
METHODS = ("global popularity", "segment popularity")


@dataclass(frozen=True, slots=True)
class NewUserFigures:
    """Means over users, seeds averaged first.

    hr_at_10, ndcg_at_10, hr_at_50: whether the item of the user's first event is in the list, and where.
    first_items_at_10, first_items_at_50: which share of their first FIRST_ITEMS different items is.
    """

    hr_at_10: MeanEstimate
    ndcg_at_10: MeanEstimate
    hr_at_50: MeanEstimate
    first_items_at_10: MeanEstimate
    first_items_at_50: MeanEstimate


@dataclass(frozen=True, slots=True)
class NewUsersReport:
    """users: users with demographics and events, all of them compared. by_segment: of those, the share that was
    served a segment's list (mean over seeds); the others' lists are the same in both methods.

    methods: by METHODS. gain: segment popularity less global popularity, the difference taken user by user.
    """

    users: int
    all_users: int
    by_segment: float
    methods: dict[str, NewUserFigures]
    gain: NewUserFigures


def evaluate_new_users(dataset: Dataset, seeds: Sequence[int]) -> NewUsersReport:
    """Leave whole users out of training, a fifth at a time, and look for the first things that they turned to.

    Each seed deals the users into FOLDS parts; everything of one part's users is taken out, popularity lists are made
    of the rest, and the part's users with demographics are served by the code of the cold-start source: every item
    in stock, no surface, nothing seen. So each of them is asked once a seed. The lists' smoothing is measured again on
    the users of each training set (engine.training.popular), so that no held-out user has a say in it.

    Raises DataError where nobody has demographics and events.

    Cost: FOLDS times building popularity lists, a seed.
    """
    histories = dataset.histories()
    tested = np.flatnonzero((dataset.demographic_codes() > 0).any(axis=1) & (histories.lengths() > 0))
    if not len(tested):
        raise DataError("no user has both demographics and interactions: there is no segment to be compared")
    firsts = first_items(histories, tested)
    measured: dict[str, list[Float64Array]] = {method: [] for method in METHODS}
    by_segment = []
    for seed in seeds:
        everyone, segment, has_segment = _lists(dataset, tested, seed)
        by_segment.append(has_segment.mean())
        for method, ranked in zip(METHODS, (everyone, segment), strict=True):
            measured[method].append(_measure(ranked, firsts))
    means: dict[str, Float64Array] = {method: np.mean(values, axis=0) for method, values in measured.items()}
    return NewUsersReport(
        users=len(tested),
        all_users=int(np.count_nonzero(histories.lengths())),
        by_segment=float(np.mean(by_segment)),
        methods={method: _figures(values) for method, values in means.items()},
        gain=_figures(means["segment popularity"] - means["global popularity"]),
    )


def first_items(histories: Histories, users: Int64Array) -> Int64Array:
    """int64 (n, FIRST_ITEMS): the first different items of each user (n,), in time order, padded with -1."""
    found = np.full((len(users), FIRST_ITEMS), -1, np.int64)
    is_first = histories.first_events()
    for place, user in enumerate(users):
        own = slice(histories.offsets[user], histories.offsets[user + 1])
        rows = histories.rows[own][is_first[own]][:FIRST_ITEMS]
        found[place, : len(rows)] = rows
    return found


def _lists(dataset: Dataset, tested: Int64Array, seed: int) -> tuple[Int64Array, Int64Array, BoolArray]:
    """Of each tested user (n,) both lists, int64 (n, LIST_SIZE), and whether a segment's list was served."""
    fold = np.random.default_rng(seed).permutation(dataset.user_count) % FOLDS
    everyone = np.full((len(tested), LIST_SIZE), -1, np.int64)
    segment = everyone.copy()
    has_segment = np.zeros(len(tested), np.bool_)
    events = dataset.interactions
    users = dataset.users.select(*DEMOGRAPHICS).rows()
    for held_out in range(FOLDS):
        popularity = build_popularity(dataset.with_interactions(events.select(fold[events.users] != held_out)))
        head = _served(popularity, Demographics(), dataset.item_count)[0]
        served: dict[Demographics, tuple[Int64Array, bool]] = {}
        for place in np.flatnonzero(fold[tested] == held_out):
            user = Demographics(*(value or "" for value in users[tested[place]]))
            if user not in served:
                served[user] = _served(popularity, user, dataset.item_count)
            everyone[place, : len(head)] = head
            rows, has_segment[place] = served[user]
            segment[place, : len(rows)] = rows
    return everyone, segment, has_segment


def _served(popularity: Popularity, user: Demographics, item_count: int) -> tuple[Int64Array, bool]:
    eligible = np.packbits(np.ones(item_count, np.bool_), bitorder="little")
    candidates, strategy = popular_candidates(popularity, user, "", eligible, LIST_SIZE)
    return candidates.rows, strategy is Strategy.DEMOGRAPHIC


def _measure(ranked: Int64Array, firsts: Int64Array) -> Float64Array:
    """float64 (n, 5): each user's figures, in the order of NewUserFigures."""
    position = hit_positions(ranked, firsts[:, 0])
    asked = firsts >= 0
    places = [np.where(asked[:, i], hit_positions(ranked, firsts[:, i]), -1) for i in range(FIRST_ITEMS)]
    shares = [np.sum([hits(place, k) for place in places], axis=0) / asked.sum(axis=1) for k in (10, 50)]
    return np.stack([hits(position, 10), gains(position, 10), hits(position, 50), *shares], axis=1)


def _figures(values: Float64Array) -> NewUserFigures:
    return NewUserFigures(*(MeanEstimate.of(column) for column in values.T))
