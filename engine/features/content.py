"""What an item is, as numbers: hashed tokens and dense features that the item tower reads.

No vocabulary is fitted, so that an item which training never saw is described by the same code, in the same way,
at serving time.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl
import xxhash
from pydantic import BaseModel, ConfigDict, Field

from engine.types import Float32Array, Float64Array, Int64Array

DENSE_FEATURES: Final = ("log_price", "has_price", "published", "has_published")
PADDING: Final = 0
_ATTRIBUTE_SEPARATOR: Final = "|"
_WORD: Final = r"[\p{L}\p{N}]+"
_MS_PER_DAY: Final = 86_400_000.0
# A price or date far outside the training range says "very": its size must not swamp the other features.
_DENSE_LIMIT: Final = 3.0


class ContentSchema(BaseModel):
    """How items become features; written into the bundle, because the item tower was trained on exactly this.

    buckets: token ids are in [1, buckets). max_tokens: tokens kept of an item, see content_features for the order.
    The means and deviations standardise log1p(price) and the publishing day.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    buckets: int = Field(32_768, ge=2)
    max_tokens: int = Field(32, ge=1, le=512)
    log_price_mean: float = 0.0
    log_price_std: float = Field(1.0, gt=0)
    published_days_mean: float = 0.0
    published_days_std: float = Field(1.0, gt=0)


@dataclass(frozen=True, slots=True)
class ContentFeatures:
    """n items as the item tower reads them.

    token_ids: int64 (n, max_tokens), padded on the right with PADDING. dense: float32 (n, len(DENSE_FEATURES)).
    """

    token_ids: Int64Array
    dense: Float32Array

    def __len__(self) -> int:
        return len(self.token_ids)

    def take(self, rows: npt.NDArray[np.integer]) -> "ContentFeatures":
        """The items at these rows, in this order."""
        return ContentFeatures(self.token_ids[rows], self.dense[rows])


def fit_content(items: pl.DataFrame, buckets: int = 32_768, max_tokens: int = 32) -> ContentSchema:
    """The schema for a catalogue: the location and spread of its prices and publishing days.

    Args:
        items: canonical item columns (engine.data.schema), any number of rows.
    """
    price_mean, price_std = _location(np.log1p(items["price"].drop_nulls().to_numpy()))
    day_mean, day_std = _location(items["published_ms"].drop_nulls().to_numpy() / _MS_PER_DAY)
    return ContentSchema(
        buckets=buckets,
        max_tokens=max_tokens,
        log_price_mean=price_mean,
        log_price_std=price_std,
        published_days_mean=day_mean,
        published_days_std=day_std,
    )


def content_features(items: pl.DataFrame, schema: ContentSchema) -> ContentFeatures:
    """Describe items by their own columns alone.

    Tokens are the category, brand, publishing year, attributes, and the words of title and description, in this
    order; past max_tokens they are dropped, so that a long description costs nothing else. Case is ignored and a
    token counts once an item. Fields hash apart: the brand "apple" and the word "apple" are different tokens.

    Args:
        items: canonical item columns, n rows; nulls allowed in all but the title.
        schema: from training.

    Returns:
        Features of n items, in order. Null prices and dates give 0 with their `has_` flag 0.

    Cost: about 10 microseconds an item; each distinct token is hashed once.
    """
    return ContentFeatures(_token_ids(items, schema), _dense(items, schema))


def _token_ids(items: pl.DataFrame, schema: ContentSchema) -> Int64Array:
    words = pl.concat_str(pl.col("title"), pl.col("description"), separator=" ", ignore_nulls=True)
    attributes = pl.col("attributes").str.to_lowercase().str.split(_ATTRIBUTE_SEPARATOR)
    year = pl.from_epoch("published_ms", "ms").dt.year().cast(pl.String)
    tokens = items.lazy().select(
        token=pl.concat_list(
            _prefixed("category", pl.concat_list(pl.col("category").str.to_lowercase())),
            _prefixed("brand", pl.concat_list(pl.col("brand").str.to_lowercase())),
            _prefixed("year", pl.concat_list(year)),
            _prefixed("attribute", attributes.list.eval(pl.element().filter(pl.element() != ""))),
            _prefixed("word", words.str.to_lowercase().str.extract_all(_WORD)),
        )
        .list.drop_nulls()
        .list.unique(maintain_order=True)
        .list.head(schema.max_tokens),
    )
    lists = tokens.collect()["token"]
    counts = lists.list.len().to_numpy().astype(np.int64)
    flat = lists.explode(empty_as_null=False, keep_nulls=False)
    distinct = flat.unique()
    hashes = pl.Series([bucket_of(token, schema.buckets) for token in distinct], dtype=pl.Int64)
    out = np.full((items.height, schema.max_tokens), PADDING, np.int64)
    filled = np.arange(schema.max_tokens)[None, :] < counts[:, None]
    out[filled] = flat.replace_strict(distinct, hashes, return_dtype=pl.Int64).to_numpy()
    return out


def bucket_of(token: str, buckets: int) -> int:
    """The id of one token, in [1, buckets): XXH3 of "field:value", the same on every machine."""
    return 1 + xxhash.xxh3_64_intdigest(token.encode()) % (buckets - 1)


def _prefixed(field: str, values: pl.Expr) -> pl.Expr:
    """A list expression with "field:" before each element; null lists become empty ones."""
    return values.list.eval(pl.format(field + ":{}", pl.element())).fill_null([])


def _dense(items: pl.DataFrame, schema: ContentSchema) -> Float32Array:
    log_price = np.log1p(items["price"].cast(pl.Float64).to_numpy().astype(np.float64))
    days = items["published_ms"].cast(pl.Float64).to_numpy().astype(np.float64) / _MS_PER_DAY
    out = np.zeros((items.height, len(DENSE_FEATURES)), np.float32)
    for column, values, mean, std in (
        (0, log_price, schema.log_price_mean, schema.log_price_std),
        (2, days, schema.published_days_mean, schema.published_days_std),
    ):
        known = np.isfinite(values)
        out[known, column] = np.clip((values[known] - mean) / std, -_DENSE_LIMIT, _DENSE_LIMIT)
        out[:, column + 1] = known
    return out


def _location(values: Float64Array) -> tuple[float, float]:
    if len(values) == 0:
        return 0.0, 1.0
    return float(values.mean()), float(values.std()) or 1.0
