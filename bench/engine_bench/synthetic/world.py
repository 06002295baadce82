"""A seeded synthetic world: items and users in one latent space, with the truth kept.

Items live on a tree of category, sub-category and topic; users have a few interests on that tree, which their
demographics make more or less likely. What a user does is in the module events; what the tables say of an item is in
catalogue. Nothing here reaches the tables except through those two.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from engine.types import BoolArray, Float32Array, Float64Array, Int16Array, Int64Array
from engine_bench.synthetic.words import AGE_GROUPS, CATEGORIES, DEVICES, LOCATIONS, SIGNUP_SOURCES

MS_PER_DAY: Final = 86_400_000
_CATEGORY_COUNT: Final = len(CATEGORIES)
_SUBS_PER_CATEGORY: Final = len(next(iter(CATEGORIES.values()))[2])
SUB_COUNT: Final = _CATEGORY_COUNT * _SUBS_PER_CATEGORY
INTERESTS_PER_USER: Final = 4
HOUR_BANDS: Final = 4  # night, morning, afternoon, evening
# How much each level of the tree and an item's own part count in its vector; topics are what tells tastes apart.
_TREE_WEIGHTS: Final = (0.55, 0.55, 0.55, 0.32)
_AFFINITY_SCALE: Final = 6.0
_CLICK_THRESHOLD: Final = 3.6
_FRESHNESS_DAYS: Final = 10.0
# Big arrays are filled part by part: temporaries of the whole would double the memory.
_PART_ROWS: Final = 65_536


@dataclass(frozen=True, slots=True)
class WorldSize:
    """What a world is determined by, with the seed. The observed period ends at `end_ms` (UTC) after `days`."""

    items: int
    users: int
    days: int = 60
    dim: int = 64
    end_ms: int = 1_767_225_600_000  # 2026-01-01

    @property
    def start_ms(self) -> int:
        return self.end_ms - self.days * MS_PER_DAY


@dataclass(frozen=True, slots=True)
class ItemTruth:
    """n items as parallel arrays.

    latents: float32 (n, dim), unit rows. subs: int16, sub-category, 0 to SUB_COUNT - 1 (category-major).
    topics: int16, topic within the sub-category. log_appeal: float32, log of the popularity weight (Zipf-like).
    prices: float64, money. price_z: float32, price against its category, in standard deviations.
    published_ms: int64. in_stock: bool. restrictions: int16, 0 for anywhere, else a place in SURFACE_SETS.
    """

    latents: Float32Array
    subs: Int16Array
    topics: Int16Array
    log_appeal: Float32Array
    prices: Float64Array
    price_z: Float32Array
    published_ms: Int64Array
    in_stock: BoolArray
    restrictions: Int16Array


# Where an item may be shown; the first is everywhere.
SURFACE_SETS: Final[tuple[tuple[str, ...], ...]] = (
    (),
    ("home", "category"),
    ("category", "cart"),
    ("category", "email"),
)
_RESTRICTION_SHARES: Final = (0.94, 0.03, 0.02, 0.01)


@dataclass(frozen=True, slots=True)
class UserTruth:
    """m users as parallel arrays.

    tastes: float32 (m, dim), unit rows, the long-term mixture of interests. interests: float32 (m, k, dim), unit rows.
    interest_subs: int16 (m, k). interest_weights: float32 (m, k), rows sum to 1. price_sensitivity: float32 (m,).
    activity: float64 (m,), relative session rate. joined_ms: int64 (m,), nobody acts before.
    age_groups, locations, signup_sources, devices: int16 (m,), places in engine_bench.synthetic.words.
    """

    tastes: Float32Array
    interests: Float32Array
    interest_subs: Int16Array
    interest_weights: Float32Array
    price_sensitivity: Float32Array
    activity: Float64Array
    joined_ms: Int64Array
    age_groups: Int16Array
    locations: Int16Array
    signup_sources: Int16Array
    devices: Int16Array


class World:
    """The truth, and what follows from it: who would click what. Deterministic from (seed, size).

    The same seed and number of items make the same items, however many users there are.
    Cost: O(items * dim) time and memory, about 0.3 GB a million items at dim 64.
    """

    def __init__(self, size: WorldSize, seed: int) -> None:
        tree_seed, item_seed, user_seed = np.random.SeedSequence(seed).spawn(3)
        self.size = size
        self.seed = seed
        self.topic_count = int(np.clip(size.items // (SUB_COUNT * 12), 4, 64))
        self._topic_vectors = _tree(np.random.default_rng(tree_seed), size.dim, self.topic_count)
        self.items = _make_items(np.random.default_rng(item_seed), size, self._topic_vectors)
        rng = np.random.default_rng(user_seed)
        self.hour_affinity = rng.normal(0, 0.5, (HOUR_BANDS, _CATEGORY_COUNT)).astype(np.float32)
        self.users = _make_users(rng, size, self._topic_vectors)

    @property
    def item_latents(self) -> Float32Array:
        """float32 (items, dim), unit rows, clustered: also good input for an index benchmark."""
        return self.items.latents

    def intents(
        self, users: Int64Array, times_ms: Int64Array, rng: np.random.Generator
    ) -> tuple[Float32Array, Int64Array]:
        """What each of n sessions sets out for: unit float32 (n, dim), and the sub-category int64 (n,) in focus.

        One interest is drawn by its weight and the hour of day, and mixed with the long-term taste.
        """
        chosen = draw_columns(self.interest_weights(users, times_ms), rng)
        return self.intents_of(users, chosen), self.users.interest_subs[users, chosen].astype(np.int64)

    def interest_weights(self, users: Int64Array, times_ms: Int64Array) -> Float32Array:
        """float32 (n, INTERESTS_PER_USER), not normalised: how likely each interest of n users is at these times."""
        truth = self.users
        bands = (times_ms // 3_600_000 % 24) // (24 // HOUR_BANDS)
        categories = truth.interest_subs[users] // _SUBS_PER_CATEGORY
        weights: Float32Array = truth.interest_weights[users] * np.exp(self.hour_affinity[bands[:, None], categories])
        return weights

    def intents_of(self, users: Int64Array, interests: Int64Array) -> Float32Array:
        """Unit float32 (n, dim): what n users set out for who follow these of their interests (n,)."""
        truth = self.users
        return normalise(0.35 * truth.tastes[users] + 0.75 * truth.interests[users, interests])

    def drift(self, intents: Float32Array, items: Int64Array, rng: np.random.Generator) -> Float32Array:
        """The intents (n, dim) after each session looked at one item (n,): pulled towards it, with some noise."""
        noise = rng.standard_normal(intents.shape, dtype=np.float32) * np.float32(0.2 / np.sqrt(intents.shape[1]))
        return normalise(0.65 * intents + 0.5 * self.items.latents[items] + noise)

    def utility(
        self, users: Int64Array, items: Int64Array, intents: Float32Array, times_ms: Int64Array
    ) -> Float32Array:
        """float32 (n, k): how much n users with these intents (n, dim) want k items (n, k) at these times (n,).

        Affinity to the intent, general appeal, price against the user's sensitivity, and novelty.
        """
        truth = self.items
        affinity = np.einsum("nd,nkd->nk", intents, truth.latents[items])
        age_days = np.maximum(times_ms[:, None] - truth.published_ms[items], 0) / MS_PER_DAY
        novelty = np.exp(-age_days / _FRESHNESS_DAYS)
        cost = self.users.price_sensitivity[users][:, None] * truth.price_z[items]
        utility: Float32Array = (
            _AFFINITY_SCALE * affinity + 0.25 * truth.log_appeal[items] + 0.7 * novelty - cost
        ).astype(np.float32)
        return utility

    def click_probability(
        self,
        users: Int64Array,
        items: Int64Array,
        intents: Float32Array,
        times_ms: Int64Array,
        positions: Int64Array,
    ) -> Float32Array:
        """float32 (n, k): chance that each item, shown at 0-based `positions` ((k,) or (n, k)) of a slate, is clicked.

        An examination model: seen with 1 / (1 + position / 4), clicked when seen with a logistic of the utility.
        """
        attraction = self.attraction(users, items, intents, times_ms)
        clicks: Float32Array = (attraction / (1.0 + positions / 4.0)).astype(np.float32)
        return clicks

    def attraction(
        self, users: Int64Array, items: Int64Array, intents: Float32Array, times_ms: Int64Array
    ) -> Float32Array:
        """float32 (n, k): chance that each item is clicked once it is seen, whatever its position."""
        attraction: Float32Array = 1.0 / (
            1.0 + np.exp(_CLICK_THRESHOLD - self.utility(users, items, intents, times_ms))
        )
        return attraction


def normalise(vectors: npt.NDArray[np.floating]) -> Float32Array:
    """The rows scaled to unit length, float32."""
    scaled: Float32Array = (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)
    return scaled


def draw_columns(weights: npt.NDArray[np.floating], rng: np.random.Generator) -> Int64Array:
    """int64 (n,): one column per row of non-negative weights (n, k), with probability in proportion."""
    cumulative = np.cumsum(weights, axis=1, dtype=np.float64)
    thresholds = rng.random(len(weights)) * cumulative[:, -1]
    drawn: Int64Array = np.minimum((cumulative <= thresholds[:, None]).sum(axis=1), weights.shape[1] - 1)
    return drawn


def _tree(rng: np.random.Generator, dim: int, topics: int) -> Float32Array:
    """float32 (SUB_COUNT, topics, dim): weighted sums down the tree, not yet of unit length."""

    def level(*shape: int) -> Float32Array:
        return normalise(rng.standard_normal((*shape, dim), dtype=np.float32))

    category, sub, topic, _ = _TREE_WEIGHTS
    vectors = category * level(_CATEGORY_COUNT, 1, 1) + sub * level(_CATEGORY_COUNT, _SUBS_PER_CATEGORY, 1)
    vectors = vectors + topic * level(_CATEGORY_COUNT, _SUBS_PER_CATEGORY, topics)
    tree: Float32Array = vectors.reshape(SUB_COUNT, topics, dim).astype(np.float32)
    return tree


def _make_items(rng: np.random.Generator, size: WorldSize, topic_vectors: Float32Array) -> ItemTruth:
    count, topics = size.items, topic_vectors.shape[1]
    subs = rng.choice(SUB_COUNT, count, p=rng.dirichlet(np.full(SUB_COUNT, 5.0)))
    topic = rng.integers(0, topics, count)
    latents = np.empty((count, size.dim), np.float32)
    own_scale = np.float32(_TREE_WEIGHTS[3] / np.sqrt(size.dim))
    for start in range(0, count, _PART_ROWS):
        part = slice(start, start + _PART_ROWS)
        own = rng.standard_normal((len(subs[part]), size.dim), dtype=np.float32) * own_scale
        latents[part] = normalise(topic_vectors[subs[part], topic[part]] + own)
    ranks = rng.permutation(count) + 1
    log_appeal = -0.8 * np.log(ranks) + 0.8 * np.log(count) / 2
    price_z = rng.standard_normal(count)
    medians = np.repeat([price for price, _, _ in CATEGORIES.values()], _SUBS_PER_CATEGORY)
    medians = medians * np.exp(rng.normal(0, 0.4, SUB_COUNT))
    # Four in five were there before the period, some for years; the rest keep appearing during it.
    before = rng.exponential(200.0, count) * MS_PER_DAY
    during = rng.random(count) * size.days * MS_PER_DAY
    is_new = rng.random(count) < 0.2
    is_new[0] = False  # so that there is something to see from the first moment, however small the world
    published = np.where(is_new, size.start_ms + during, size.start_ms - before)
    return ItemTruth(
        latents=latents,
        subs=subs.astype(np.int16),
        topics=topic.astype(np.int16),
        log_appeal=log_appeal.astype(np.float32),
        prices=np.round(medians[subs] * np.exp(0.6 * price_z), 2),
        price_z=price_z.astype(np.float32),
        published_ms=published.astype(np.int64),
        in_stock=rng.random(count) >= 0.03,
        restrictions=rng.choice(len(SURFACE_SETS), count, p=_RESTRICTION_SHARES).astype(np.int16),
    )


def _make_users(rng: np.random.Generator, size: WorldSize, topic_vectors: Float32Array) -> UserTruth:
    count, k = size.users, INTERESTS_PER_USER
    age = rng.integers(0, len(AGE_GROUPS), count)
    location = rng.choice(len(LOCATIONS), count, p=rng.dirichlet(np.full(len(LOCATIONS), 4.0)))
    source = rng.choice(len(SIGNUP_SOURCES), count, p=rng.dirichlet(np.full(len(SIGNUP_SOURCES), 4.0)))
    # Each demographic value likes some shelves more; what is left is the user's own.
    by_age = rng.normal(0, 1.2, (len(AGE_GROUPS), SUB_COUNT))
    by_location = rng.normal(0, 0.7, (len(LOCATIONS), SUB_COUNT))
    by_source = rng.normal(0, 0.5, (len(SIGNUP_SOURCES), SUB_COUNT))
    interest_subs = np.empty((count, k), np.int64)
    for start in range(0, count, _PART_ROWS):
        part = slice(start, start + _PART_ROWS)
        preference = by_age[age[part]] + by_location[location[part]] + by_source[source[part]]
        preference += rng.gumbel(0, 1.0, preference.shape)
        interest_subs[part] = np.argpartition(-preference, k, axis=1)[:, :k]  # Gumbel top-k: without replacement
    topics = rng.integers(0, topic_vectors.shape[1], (count, k))
    interests = normalise(topic_vectors[interest_subs, topics])
    weights = rng.dirichlet(np.full(k, 1.5), count).astype(np.float32)
    late = rng.random(count) < 0.3
    joined = np.where(late, rng.random(count) * (size.days - 1) * MS_PER_DAY, 0.0)
    return UserTruth(
        tastes=normalise(np.einsum("nk,nkd->nd", weights, interests)),
        interests=interests,
        interest_subs=interest_subs.astype(np.int16),
        interest_weights=weights,
        price_sensitivity=np.clip(rng.normal(0.35, 0.3, count), -0.2, None).astype(np.float32),
        activity=rng.lognormal(0.0, 0.9, count) * (1.0 - joined / (size.days * MS_PER_DAY)),
        joined_ms=(size.start_ms + joined).astype(np.int64),
        age_groups=age.astype(np.int16),
        locations=location.astype(np.int16),
        signup_sources=source.astype(np.int16),
        devices=rng.choice(len(DEVICES), count, p=(0.55, 0.3, 0.1, 0.05)).astype(np.int16),
    )
