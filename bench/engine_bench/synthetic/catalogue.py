"""What the tables say of the synthetic world's items and users: ids, names, text, prices, segments."""

import numpy as np
import numpy.typing as npt
import polars as pl

from engine_bench.synthetic.words import (
    AGE_GROUPS,
    BRAND_ENDS,
    BRAND_STARTS,
    CATEGORIES,
    LOCATIONS,
    SIGNUP_SOURCES,
    STYLES,
)
from engine_bench.synthetic.world import SUB_COUNT, SURFACE_SETS, World

_CATEGORY_NAMES = tuple(CATEGORIES)
_SUB_NAMES = tuple(name for _, _, subs in CATEGORIES.values() for name in subs)
_CATEGORY_OF_SUB = np.repeat(np.arange(len(CATEGORIES)), SUB_COUNT // len(CATEGORIES))
_BRANDS = tuple(start + end for start in BRAND_STARTS for end in BRAND_ENDS)
_BRANDS_PER_SUB = 8
_COLOURS = ("black", "white", "red", "blue", "green", "grey", "beige", "yellow")


def item_ids(count: int) -> pl.Series:
    """`item-0000000` and so on: n ids in row order, equal in length, so that their order is the row order."""
    return _ids("item-", count)


def user_ids(count: int) -> pl.Series:
    """`user-0000000` and so on."""
    return _ids("user-", count)


def items_frame(world: World) -> pl.DataFrame:
    """The canonical items table. Words follow category, sub-category and topic, so that text alone tells much.

    Cost: a few string columns, about 0.4 GB and 3 s a million items.
    """
    truth = world.items
    rng = np.random.default_rng([world.seed, 1])
    count = len(truth.subs)
    categories = _CATEGORY_OF_SUB[truth.subs]
    words = pl.Series([word for _, words, _ in CATEGORIES.values() for word in words])
    words_per_category = len(words) // len(CATEGORIES)
    first = rng.integers(0, words_per_category, count)

    def word(offset: int) -> pl.Series:
        return words.gather(categories * words_per_category + (first + offset) % words_per_category)

    # Low numbers are drawn more often: each shelf has leading brands.
    brand_rank = np.minimum(rng.geometric(0.3, count) - 1, _BRANDS_PER_SUB - 1)
    frame = pl.DataFrame(
        {
            "brand": _pick(_BRANDS, (truth.subs.astype(np.int64) * 5 + brand_rank) % len(_BRANDS)),
            "style": _pick(STYLES, (truth.subs.astype(np.int64) * 11 + truth.topics) % len(STYLES)),
            "sub": _pick(_SUB_NAMES, truth.subs),
            "category": _pick(_CATEGORY_NAMES, categories),
            "colour": _pick(_COLOURS, rng.integers(0, len(_COLOURS), count)),
            "model": rng.integers(10, 1000, count),
            "w1": word(0), "w2": word(1), "w3": word(3),
            "item_id": item_ids(count),
            "price": truth.prices,
            "published_ms": truth.published_ms,
            "in_stock": truth.in_stock,
            "surfaces": _pick(tuple("|".join(names) or None for names in SURFACE_SETS), truth.restrictions),
        }
    )  # fmt: skip
    return frame.select(
        "item_id",
        pl.format("{} {} {} {}", "brand", "style", "sub", "model").alias("title"),
        pl.format("{} {} in {}: {}, {} and {}.", "style", pl.col("sub").str.to_lowercase(), "colour", "w1", "w2", "w3")
        .alias("description"),
        "category", "brand", "price", "published_ms", "in_stock",
        pl.format("type:{}|style:{}|colour:{}", pl.col("sub").str.to_lowercase(), pl.col("style").str.to_lowercase(),
                  "colour").alias("attributes"),
        "surfaces",
    )  # fmt: skip


def users_frame(world: World) -> pl.DataFrame:
    """The canonical users table; one value in ten is left out, as in life."""
    truth = world.users
    rng = np.random.default_rng([world.seed, 2])
    count = len(truth.activity)

    def known(values: pl.Series) -> pl.Series:
        return values.set(pl.Series(rng.random(count) < 0.1), None)

    return pl.DataFrame(
        {
            "user_id": user_ids(count),
            "age_group": known(_pick(AGE_GROUPS, truth.age_groups)),
            "location": known(_pick(tuple(LOCATIONS), truth.locations)),
            "signup_source": known(_pick(SIGNUP_SOURCES, truth.signup_sources)),
        }
    )


def _ids(prefix: str, count: int) -> pl.Series:
    width = max(7, len(str(count - 1)))
    return pl.select(pl.lit(prefix) + pl.int_range(count).cast(pl.String).str.zfill(width)).to_series()


def _pick(values: tuple[str | None, ...], positions: npt.NDArray[np.integer]) -> pl.Series:
    return pl.Series(values, dtype=pl.String).gather(positions)
