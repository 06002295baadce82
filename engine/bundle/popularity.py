"""Popularity orders: global over every item, and shorter lists per surface and per demographic segment."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from engine.errors import BundleError
from engine.features.schema import DEMOGRAPHICS
from engine.types import Demographics, Float32Array, Int32Array

POPULARITY_FILES: Final = (
    "popularity.json", "popular_global_rows.npy", "popular_global_scores.npy", "popular_list_rows.npy",
    "popular_list_scores.npy",
)  # fmt: skip

# Finest first: the popularity source backs off along this list to the first segment that has a list.
SEGMENT_LEVELS: Final = (
    DEMOGRAPHICS,
    ("age_group", "location"),
    ("age_group",),
    ("location",),
    ("signup_source",),
)


@dataclass(frozen=True, slots=True)
class PopularityList:
    """Item rows int32 (n,), most popular first, and their scores float32 (n,) in (0, 1]: shares of interactions."""

    rows: Int32Array
    scores: Float32Array


def surface_key(surface: str) -> str:
    return json.dumps({"surface": surface})


def segment_key(level: tuple[str, ...], demographics: Demographics) -> str | None:
    """The name of a user's segment at one level; None where one of its values is unknown."""
    values = {name: getattr(demographics, name) for name in level}
    return json.dumps(values) if all(values.values()) else None


@dataclass(frozen=True, slots=True)
class Popularity:
    """All lists of one bundle. `overall` holds every item of the catalogue."""

    overall: PopularityList
    lists: dict[str, PopularityList]

    def of_surface(self, surface: str) -> PopularityList | None:
        return self.lists.get(surface_key(surface))

    def of_segment(self, demographics: Demographics) -> PopularityList | None:
        """The list of the finest segment that has one."""
        for level in SEGMENT_LEVELS:
            key = segment_key(level, demographics)
            if key is not None and key in self.lists:
                return self.lists[key]
        return None

    def write(self, directory: Path) -> None:
        """Write POPULARITY_FILES."""
        width = max((len(entry.rows) for entry in self.lists.values()), default=0)
        rows = np.full((len(self.lists), width), -1, np.int32)
        scores = np.zeros((len(self.lists), width), np.float32)
        for position, entry in enumerate(self.lists.values()):
            rows[position, : len(entry.rows)] = entry.rows
            scores[position, : len(entry.rows)] = entry.scores
        (directory / "popularity.json").write_text(json.dumps(list(self.lists)))
        np.save(directory / "popular_global_rows.npy", self.overall.rows)
        np.save(directory / "popular_global_scores.npy", self.overall.scores)
        np.save(directory / "popular_list_rows.npy", rows)
        np.save(directory / "popular_list_scores.npy", scores)

    @staticmethod
    def read(directory: Path, item_count: int) -> "Popularity":
        """Read POPULARITY_FILES. Raises BundleError where they do not fit the catalogue or each other."""
        keys = json.loads((directory / "popularity.json").read_text())
        global_rows = np.load(directory / "popular_global_rows.npy", mmap_mode="r")
        global_scores = np.load(directory / "popular_global_scores.npy", mmap_mode="r")
        rows = np.load(directory / "popular_list_rows.npy")
        scores = np.load(directory / "popular_list_scores.npy")
        if len(global_rows) != item_count or len(global_scores) != item_count:
            raise BundleError(
                f"{directory / 'popular_global_rows.npy'}: {len(global_rows)} rows where the catalogue has {item_count}"
            )
        if rows.shape != scores.shape or len(rows) != len(keys):
            raise BundleError(f"{directory / 'popular_list_rows.npy'}: {rows.shape} does not fit {len(keys)} lists")
        if rows.size and rows.max() >= item_count:
            raise BundleError(f"{directory / 'popular_list_rows.npy'}: row {rows.max()} of {item_count} items")
        lists = {
            key: PopularityList(rows[position][rows[position] >= 0], scores[position][rows[position] >= 0])
            for position, key in enumerate(keys)
        }
        return Popularity(PopularityList(global_rows, global_scores), lists)
