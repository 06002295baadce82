"""What a user's history is mostly about, and how much of a slate is."""

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from engine.contract.limits import LIST_SEPARATOR
from engine.data.dataset import Dataset
from engine.features.history import Histories

MAIN_CATEGORIES: Final = 3


@dataclass(frozen=True, slots=True)
class Match:
    """Of the first `shown` items of a slate, how many are in the user's main categories.

    chance: how many would be if the slate were drawn from all items that the surface shows.
    """

    categories: tuple[str, ...]
    shown: int
    matching: int
    chance: float

    @property
    def sentence(self) -> str:
        return (
            f"{self.matching} of {self.shown} in this user's main categories ({', '.join(self.categories)}); "
            f"chance {self.chance:.1f}"
        )


class Tastes:
    """Titles, categories and histories of a data set, looked up by id."""

    def __init__(self, dataset: Dataset) -> None:
        items = dataset.items
        self._dataset = dataset
        ids = items["item_id"].to_list()
        self._titles = dict(zip(ids, items["title"], strict=True))
        self._categories = dict(zip(ids, items["category"], strict=True))

    def title(self, item_id: str) -> str:
        """The title, or the id of an item that has none or that the data does not hold."""
        return self._titles.get(item_id) or item_id

    def category(self, item_id: str) -> str:
        """The category, "" where there is none."""
        return self._categories.get(item_id) or ""

    def history(self, user_id: str) -> list[str]:
        """The items of a user's positive events, latest first, each once."""
        return list(dict.fromkeys(self._events(user_id)[::-1]))

    def main_categories(self, user_id: str) -> tuple[str, ...]:
        """The categories of most of a user's positive events, the largest first; none for an unknown user."""
        counts: dict[str, int] = {}
        for item_id in self._events(user_id):
            category = self.category(item_id)
            if category:
                counts[category] = counts.get(category, 0) + 1
        return tuple(sorted(counts, key=lambda name: (-counts[name], name))[:MAIN_CATEGORIES])

    def match(self, user_id: str, slate: list[str], surface: str) -> Match | None:
        """How far a slate is what the user mostly wants; None where nothing says what that is."""
        categories = self.main_categories(user_id)
        if not categories:
            return None
        matching = sum(self.category(item_id) in categories for item_id in slate)
        return Match(categories, len(slate), matching, len(slate) * self._share(categories, surface))

    def _share(self, categories: tuple[str, ...], surface: str) -> float:
        items = self._dataset.items
        shown = [
            category or ""
            for category, stock, places in zip(items["category"], items["in_stock"], items["surfaces"], strict=True)
            if stock is not False and (not places or surface in places.split(LIST_SEPARATOR))
        ]
        return float(np.mean([category in categories for category in shown])) if shown else 0.0

    def _events(self, user_id: str) -> list[str]:
        place = self._places.get(user_id)
        if place is None:
            return []
        histories = self._histories
        rows = histories.rows[histories.offsets[place] : histories.offsets[place + 1]]
        item_ids = self._dataset.items["item_id"]
        return [item_ids[int(row)] for row in rows]

    @cached_property
    def _places(self) -> dict[str, int]:
        return {name: place for place, name in enumerate(self._dataset.users["user_id"])}

    @cached_property
    def _histories(self) -> Histories:
        return self._dataset.histories()
