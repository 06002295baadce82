"""The ranker's inputs made comparable: what the network sees of a request and of each candidate.

Candidates' features are laid out feature by feature, (B, features, N): what is done to a feature is then done to a row
of N numbers at once, and not N times to a few. Adding its own number to each of 17 features of 1,000 candidates takes
ONNX Runtime 5 µs instead of 60.

Nothing here depends on the basis of an embedding space: vectors enter only through standardized inner products. A
ranker trained beside one pair of models therefore serves beside their successors, once `use_spaces` has measured those.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from engine.features.context import MS_PER_DAY
from engine.features.schema import CLOCK_FEATURES, CODE_FEATURES, ITEM_DYNAMIC, SESSION_DENSE, FeatureSchema
from engine.types import Float32Array, Int64Array

_DAYS_PER_YEAR = 365.25
_CODE_DIM = 4
# Standardized features beyond this many deviations are clipped: an outlier must not carry a request away.
_CLIP = 5.0
# Relative deviations below these are rounding, or nothing to learn from: such a feature counts as constant.
_LEAST_SPREAD = 3e-3
_LEAST_DEVIATION = 1e-4

# Profile features that are used as they are; the days among them are compared with the request or the item instead.
_PLAIN_PROFILE = (
    "log_event_count", "share_view", "share_cart", "share_purchase", "mean_log_price", "std_log_price",
    "mean_popularity", "recent_popularity", "std_published_days",
)  # fmt: skip
_PROFILE_DAYS = ("mean_published_days", "recent_published_days", "last_event_days")
# Each is a linear function of a candidate's columns and the request, bent in one of four ways.
_PRODUCTS = ("retrieval", "session", "collaborative")
_STRAIGHT = (
    *_PRODUCTS, *ITEM_DYNAMIC, "popularity_from_recent", "log_price", "published_missing", "price_missing",
)  # fmt: skip
_DISTANCES = ("log_price_from_mean",)
_SHARES = ("unreleased",)
# Years from something, as log(1 + years): of an age what lies in the future is none, of the others either side counts.
_LOGS = ("log_age", "log_years_from_mean", "log_years_from_recent")
_ITEM_FEATURES = (*_STRAIGHT, *_DISTANCES, *_SHARES, *_LOGS)


class Space(nn.Module):
    """One embedding space, as its catalogue fills it: standardizes inner products.

    For an item drawn from the catalogue, q·v has mean q·mu and variance q'Sq, with mu and S the mean and covariance
    of the item vectors. (q·v - q·mu) / sqrt(q'Sq) is thus the same number whatever the basis and the scale of the
    space, it depends on no other candidate, and it orders items as the inner product does. Where items hardly differ
    for a query, by less than _LEAST_SPREAD of the lengths that are multiplied, the product tends to 0 instead: what is
    left of the difference is float32's rounding, which must not decide.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("covariance", torch.eye(dim))
        self.register_buffer("least_variance", torch.zeros(1))

    def measure(self, item_vectors: Float32Array) -> None:
        """Take the statistics of the items' vectors, float32 (items, dim)."""
        vectors = item_vectors.astype(np.float64)
        mean = vectors.mean(axis=0)
        covariance = vectors.T @ vectors / len(vectors) - np.outer(mean, mean)
        self.mean.copy_(torch.from_numpy(mean))
        self.covariance.copy_(torch.from_numpy(covariance))
        self.least_variance.fill_(_LEAST_SPREAD**2 * float((vectors**2).sum(axis=1).mean()))

    def forward(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Directions (B, n, dim) and offsets (B, n) of queries (B, n, dim).

        The standardized product of an item is v·direction + offset.
        """
        variance = ((queries @ self.covariance) * queries).sum(2, keepdim=True)
        variance = torch.maximum(variance, self.least_variance * (queries * queries).sum(2, keepdim=True))
        directions = queries / torch.sqrt(torch.clamp(variance, min=1e-12))
        return directions, -(directions @ self.mean)


class RankerFeatures(nn.Module):
    """From the ranker's raw inputs to two standardized blocks: user (B, user_dim) and item (B, item_dim + 1, N)."""

    def __init__(self, schema: FeatureSchema) -> None:
        super().__init__()
        self._profile = {name: position for position, name in enumerate(schema.profile)}
        self._columns = schema.item_columns
        self._width = schema.table_width
        self._now = len(schema.profile)
        self._epoch_ms = schema.epoch_ms
        self.retrieval = Space(schema.embedding_dim)
        self.collaborative = Space(schema.collaborative_dim)
        self.register_buffer("first_day", torch.tensor(torch.finfo(torch.float32).min))
        self.register_buffer("last_day", torch.tensor(torch.finfo(torch.float32).max))
        sizes = [CLOCK_FEATURES.get(name) or len(schema.vocabularies.get(name, ())) for name in CODE_FEATURES]
        self.codes = nn.ModuleList(nn.Embedding(size + 1, _CODE_DIM) for size in sizes)
        for table in self.codes:
            nn.init.normal_(table.weight, std=0.1)
        ends = np.cumsum([size + 1 for size in sizes])
        self.register_buffer("first_code", torch.from_numpy(np.append(0, ends[:-1])), persistent=False)
        plain = len(_PLAIN_PROFILE) + len(_PROFILE_DAYS) + len(SESSION_DENSE)
        self.user_dim = plain + _CODE_DIM * len(CODE_FEATURES)
        self.item_dim = len(_ITEM_FEATURES)
        self.user_scale = Standardizer(plain)
        self.item_scale = Standardizer(self.item_dim)
        for name, values in self._constants(schema).items():
            self.register_buffer(name, torch.from_numpy(values.astype(np.float32)), persistent=False)

    def _constants(self, schema: FeatureSchema) -> dict[str, npt.NDArray[np.floating]]:
        """The linear functions as matrices, one row a feature: many small steps over all candidates would cost more
        than the network itself. And how each is bent: by max(x, x * slope), then min(x, cap)."""
        place = {name: position for position, name in enumerate(_ITEM_FEATURES)}
        of_item = np.zeros((self._width, len(place)))
        of_dynamic = np.zeros((len(ITEM_DYNAMIC), len(place)))
        # The last row is of _learned_now.
        of_request = np.zeros((schema.dense_dim + 1, len(place)))
        year = 1.0 / _DAYS_PER_YEAR
        published, log_price = self._columns["published_days"][0], self._columns["log_price"][0]
        for row, name in enumerate(ITEM_DYNAMIC):
            of_dynamic[row, place[name]] = 1.0
        of_dynamic[-1, place["popularity_from_recent"]] = 1.0
        of_request[self._profile["recent_popularity"], place["popularity_from_recent"]] = -1.0
        for name in ("log_price", "published_missing", "price_missing"):
            of_item[self._columns[name][0], place[name]] = 1.0
        of_item[log_price, place["log_price_from_mean"]] = 1.0
        of_request[self._profile["mean_log_price"], place["log_price_from_mean"]] = -1.0
        for name, sign, now in (("unreleased", 1.0, self._now), ("log_age", -1.0, schema.dense_dim)):
            of_item[published, place[name]] = sign * year
            of_request[now, place[name]] = -sign * year
        for name in ("mean", "recent"):
            of_item[published, place[f"log_years_from_{name}"]] = year
            of_request[self._profile[f"{name}_published_days"], place[f"log_years_from_{name}"]] = -year
        slope = np.ones(len(place))
        for name in (*_SHARES, "log_age"):
            slope[place[name]] = 0.0
        for name in (*_DISTANCES, "log_years_from_mean", "log_years_from_recent"):
            slope[place[name]] = -1.0
        cap = np.full(len(place), np.finfo(np.float32).max)
        cap[[place[name] for name in _SHARES]] = 1.0
        return {
            "of_item": np.ascontiguousarray(of_item.T),
            "of_dynamic": np.ascontiguousarray(of_dynamic.T),
            "of_request": of_request,
            "slope": slope[:, None],
            "cap": cap[:, None],
        }

    def use_spaces(self, item_vectors: Float32Array, collaborative_vectors: Float32Array) -> None:
        """Measure the spaces whose vectors the inputs hold from now on."""
        self.retrieval.measure(item_vectors)
        self.collaborative.measure(collaborative_vectors)

    def use_moments(self, moments_ms: Int64Array) -> None:
        """Take the first and the last of the moments that training asks at, int64 (n,)."""
        days = (moments_ms - self._epoch_ms) / MS_PER_DAY
        self.first_day.fill_(float(days.min()))
        self.last_day.fill_(float(days.max()))

    def _learned_now(self, dense: Tensor) -> Tensor:
        """(B, 1): the day of the request, or the nearest one that training has seen.

        A bundle is asked after its data ended. A month later every item is a month older and every user has been away
        for as long: a state that training never saw, in which the network would say anything.
        """
        return torch.clamp(dense[:, self._now : self._now + 1], self.first_day, self.last_day)

    def user(self, dense: Tensor, codes: Tensor) -> Tensor:
        """(B, user_dim) from dense (B, d) and codes int64 (B, C)."""
        # One gather in the tables laid end to end, which are constants of the graph.
        embedded = nn.functional.embedding(codes + self.first_code, torch.cat([table.weight for table in self.codes]))
        return torch.cat([self.user_scale(self.raw_user(dense)), embedded.flatten(1)], dim=1)

    def raw_user(self, dense: Tensor) -> Tensor:
        """The user's features before standardizing, without the codes."""
        plain = dense[:, [self._profile[name] for name in _PLAIN_PROFILE]]
        days_ago = self._learned_now(dense) - dense[:, [self._profile[name] for name in _PROFILE_DAYS]]
        session = dense[:, self._now + 1 : self._now + 1 + len(SESSION_DENSE)]
        return torch.cat([plain, session, _log1p(torch.relu(days_ago))], dim=1)

    def item(
        self, query: Tensor, session: Tensor, collaborative: Tensor, dense: Tensor, items: Tensor, dynamic: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The item block (B, item_dim + 1, N), ending in ones, and the logarithm of the retrieval score (B, 1, N).

        From the request and the candidates' table rows (B, N, K) and live counts (B, N, D). The score is not clipped:
        the logarithm (odd, so that it keeps the order) tames the long tail of a matrix factorization's scores, tens of
        deviations above the mean, which no bounded correction could put right.
        """
        raw = self.raw_item(query, session, collaborative, dense, items, dynamic)
        return nn.functional.pad(self.item_scale(raw, dim=1), (0, 0, 0, 1), value=1.0), _symmetric_log(raw[:, :1])

    def raw_item(
        self, query: Tensor, session: Tensor, collaborative: Tensor, dense: Tensor, items: Tensor, dynamic: Tensor
    ) -> Tensor:
        """The candidates' features before standardizing, in the order of _ITEM_FEATURES: (B, item_dim, N).

        A zero vector, of a user without a session, has the product 0 with every candidate.
        """
        directions, offsets = [], []
        for name, space, queries in (
            ("embedding", self.retrieval, torch.stack([query, session], dim=1)),
            ("collaborative", self.collaborative, collaborative[:, None, :]),
        ):
            start, stop = self._columns[name]
            direction, offset = space(queries)
            directions.append(nn.functional.pad(direction, (start, self._width - stop)))
            offsets.append(offset)
        others = self.item_dim - len(_PRODUCTS)
        of_item = nn.functional.pad(torch.cat(directions, dim=1), (0, 0, 0, others)) + self.of_item
        request = torch.cat([dense, self._learned_now(dense)], dim=1) @ self.of_request
        of_request = nn.functional.pad(torch.cat(offsets, dim=1), (0, others)) + request
        linear = of_item @ items.transpose(1, 2) + self.of_dynamic @ dynamic.transpose(1, 2) + of_request[:, :, None]
        bent = torch.minimum(torch.maximum(linear, linear * self.slope), self.cap)
        return torch.cat([bent[:, : -len(_LOGS)], _log1p(bent[:, -len(_LOGS) :])], dim=1)


class Standardizer(nn.Module):
    """(x - mean) / deviation, clipped; features that never vary, or hardly, come out as zeros."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))

    def measure(self, values: Tensor) -> None:
        """Take mean and deviation from values (n, width)."""
        deviation, mean = torch.std_mean(values.double(), dim=0, correction=0)
        self.mean.copy_(mean)
        varies = deviation > torch.clamp(_LEAST_DEVIATION * mean.abs(), min=1e-6)
        self.scale.copy_(torch.where(varies, 1.0 / torch.clamp(deviation, min=1e-6), 0.0))

    def forward(self, values: Tensor, dim: int = -1) -> Tensor:
        """The same shape as values, whose dimension `dim` is the features."""
        shape = [1] * values.dim()
        shape[dim] = -1
        return torch.clamp((values - self.mean.view(shape)) * self.scale.view(shape), -_CLIP, _CLIP)


def _symmetric_log(values: Tensor) -> Tensor:
    return torch.sign(values) * _log1p(torch.abs(values))


def _log1p(values: Tensor) -> Tensor:
    # ONNX has no Log1p; for years and days the plain logarithm is accurate enough.
    return torch.log(values + 1.0)
