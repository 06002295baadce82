"""Is a slate about its user's taste? How much of it is in their main categories, and how alike slates are."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
import uvloop

from engine.app.model import load_embedders
from engine.app.offline import PATIENCE_S, answers, published
from engine.bundle.bundle import Bundle
from engine.config.serving import EngineConfig
from engine.data.dataset import Dataset
from engine.errors import DataError
from engine.features.history import HistoryStates
from engine.kernels.membership import test_rows
from engine.logs import Progress
from engine.types import BoolArray, Int64Array, RecommendQuery

SLATE: Final = 10
RETRIEVED: Final = 200
MAIN_CATEGORIES: Final = 3
# When users ask: as soon as they stop, which few do, and long after the data of the bundle ended.
MOMENTS: Final = ("at once", "a month later")
_AT_ONCE_MS, _LATER_MS = 60_000, 30 * 86_400_000
# A table of more users takes longer and says the same.
USERS: Final = 400


@dataclass(frozen=True, slots=True)
class TasteFigures:
    """Slates of SLATE items for the same users, on one surface and at one of the MOMENTS.

    main_share: the share of the slates' items that is in their user's main categories.
    most_shared: the share of the slates that hold the item that most of them hold.
    distinct_items: how many different items the slates hold.
    retrieval_*: the same of the first SLATE, and of the first RETRIEVED, by retrieval score alone.
    chance: the main share of slates that were drawn by lot.
    """

    surface: str
    moment: str
    main_share: float
    most_shared: float
    distinct_items: int
    retrieval_share: float
    retrieval_share_at_200: float
    retrieval_most_shared: float
    chance: float


@dataclass(frozen=True, slots=True)
class _TasteRequests:
    """n users, their main categories and what they could be shown.

    users: int64 (n,). last_ms: int64 (n,), their last event. is_main: bool (n, categories + 1), the last one false.
    seen: per user the rows that they had an event on. categories: int64 (items,), the last one for none.
    """

    users: Int64Array
    last_ms: Int64Array
    is_main: BoolArray
    seen: list[Int64Array]
    categories: Int64Array

    def main_share(self, lists: Int64Array) -> float:
        """Of lists int64 (n, k), padded with -1."""
        there = lists >= 0
        mine = np.take_along_axis(self.is_main, self.categories[np.where(there, lists, 0)], axis=1) & there
        return float((mine.sum(axis=1) / np.maximum(there.sum(axis=1), 1)).mean())

    def chance(self, on_offer: BoolArray) -> float:
        """Of items drawn from those on offer, bool (items,), that a user has not had an event on."""
        shares = []
        for is_main, seen in zip(self.is_main, self.seen, strict=True):
            open_to = on_offer.copy()
            open_to[seen] = False
            shares.append(is_main[self.categories[open_to]].mean() if open_to.any() else 0.0)
        return float(np.mean(shares))


def measure_taste(
    bundle: Bundle,
    dataset: Dataset,
    serving: EngineConfig,
    scratch: Path,
    progress: Progress | None = None,
    user_count: int = USERS,
) -> list[TasteFigures]:
    """Ask the serving pipeline, over a private Redis, for slates of known users on every surface of the settings.

    Args:
        bundle: trained on the data set. serving: surfaces, diversity and whatever else requests depend on.
        scratch: an empty directory. user_count: ask for so many at most, drawn at random.

    Returns:
        One entry for each surface and moment.

    Raises:
        DataError: no user has enough interactions for personalized answers, or no item has a category.

    Cost: two requests a user and surface, one exact search a user and surface.
    """
    asked = _asked(dataset, serving, user_count)
    config = serving.model_copy(
        update={
            "bundle": serving.bundle.model_copy(update={"directory": bundle.path.parent}),
            "redis": serving.redis.model_copy(
                update={"url": "", "directory": scratch / "redis", "timeout_ms": PATIENCE_S * 1000}
            ),
        }
    )
    slates = _ask(bundle, dataset, config, asked, progress)
    figures = []
    for surface in config.surfaces:
        on_offer = test_rows(bundle.items.stock() & bundle.items.shown_on(surface), np.arange(len(bundle.items)))
        retrieved = _retrieve(bundle, dataset, asked, on_offer)
        chance = asked.chance(on_offer)
        for moment in MOMENTS:
            slate = slates[surface, moment]
            figures.append(
                TasteFigures(
                    surface=surface,
                    moment=moment,
                    main_share=asked.main_share(slate),
                    most_shared=_most_shared(slate),
                    distinct_items=len(np.unique(slate[slate >= 0])),
                    retrieval_share=asked.main_share(retrieved[:, :SLATE]),
                    retrieval_share_at_200=asked.main_share(retrieved),
                    retrieval_most_shared=_most_shared(retrieved[:, :SLATE]),
                    chance=chance,
                )
            )
    return figures


def _asked(dataset: Dataset, serving: EngineConfig, user_count: int) -> _TasteRequests:
    histories = dataset.histories()
    lengths = histories.lengths()
    known = np.flatnonzero(lengths >= max(1, serving.cold_start.min_interactions))
    names = dataset.items["category"].cast(pl.String).fill_null("")
    vocabulary = names.unique().sort().to_list()
    if not len(known) or vocabulary == [""]:
        raise DataError("taste is measured on users with history and items with categories; the data has none of one")
    code = {name: place for place, name in enumerate(name for name in vocabulary if name)}
    categories = np.array([code.get(name, len(code)) for name in names], np.int64)
    users = np.sort(np.random.default_rng(0).permutation(known)[:user_count])
    is_main = np.zeros((len(users), len(code) + 1), np.bool_)
    seen = [histories.rows[histories.offsets[user] : histories.offsets[user + 1]] for user in users]
    for place, rows in enumerate(seen):
        counts = np.bincount(categories[rows], minlength=len(code) + 1)[: len(code)]
        first = np.argsort(-counts, kind="stable")[:MAIN_CATEGORIES]
        is_main[place, first[counts[first] > 0]] = True
    states = HistoryStates(users, lengths[users])
    return _TasteRequests(users, histories.last_times_ms(states), is_main, seen, categories)


def _ask(
    bundle: Bundle, dataset: Dataset, config: EngineConfig, asked: _TasteRequests, progress: Progress | None
) -> dict[tuple[str, str], Int64Array]:
    """By surface and moment: slates int64 (n, SLATE), padded with -1."""
    with published(bundle, dataset, config):
        slates: dict[tuple[str, str], Int64Array] = uvloop.run(_slates(config, dataset, asked, progress))
        return slates


async def _slates(
    config: EngineConfig, dataset: Dataset, asked: _TasteRequests, progress: Progress | None
) -> dict[tuple[str, str], Int64Array]:
    user_ids = dataset.users["user_id"]
    later_ms = np.full(len(asked.users), int(dataset.interactions.timestamps_ms.max()) + _LATER_MS)
    times_ms = dict(zip(MOMENTS, (asked.last_ms + _AT_ONCE_MS, later_ms), strict=True))
    count = len(asked.users)
    lines = [(surface, moment) for surface in config.surfaces for moment in MOMENTS]
    queries = (
        RecommendQuery(user_ids[user], surface, SLATE, time_ms)
        for surface, moment in lines
        for user, time_ms in zip(asked.users.tolist(), times_ms[moment].tolist(), strict=True)
    )
    slates = {line: np.full((count, SLATE), -1, np.int64) for line in lines}
    done = 0
    async for answer in answers(config, queries):
        line, place = divmod(done, count)
        slates[lines[line]][place, : len(answer.slate)] = answer.slate.rows
        done += 1
        if progress is not None and done % count == 0:
            progress(done // count, len(lines), "slates")
    return slates


def _retrieve(bundle: Bundle, dataset: Dataset, asked: _TasteRequests, on_offer: BoolArray) -> Int64Array:
    """int64 (n, RETRIEVED), padded with -1: the best of what is on offer and new to each user, by exact search."""
    histories = dataset.histories()
    states = HistoryStates(asked.users, histories.lengths()[asked.users])
    queries = load_embedders(bundle)[0](histories, states, dataset.demographic_codes())
    scores = queries @ bundle.item_vectors.T
    scores[:, ~on_offer] = -np.inf
    for line, seen in zip(scores, asked.seen, strict=True):
        line[seen] = -np.inf
    best = np.argsort(-scores, axis=1, kind="stable")[:, :RETRIEVED]
    return np.where(np.isfinite(np.take_along_axis(scores, best, axis=1)), best, -1)


def _most_shared(slates: Int64Array) -> float:
    """No slate holds an item twice."""
    return float(np.bincount(slates[slates >= 0]).max(initial=0) / len(slates))


def worst(figures: Sequence[TasteFigures]) -> tuple[float, float]:
    """The lowest main share and the highest share of slates that hold one item."""
    return min(one.main_share for one in figures), max(one.most_shared for one in figures)
