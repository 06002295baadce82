"""The ranker's inputs made comparable: what the network sees of a request and of each candidate.

Nothing here depends on the basis of an embedding space: vectors enter only through standardized inner products. A
ranker trained beside one pair of models therefore serves beside their successors, once `use_spaces` has measured those.
"""

import numpy as np
import torch
from torch import Tensor, nn

from engine.features.schema import CODE_FEATURES, ITEM_DYNAMIC, SESSION_DENSE, FeatureSchema
from engine.types import Float32Array

_DAYS_PER_YEAR = 365.25
_CODE_DIM = 4
# Standardized features beyond this many deviations are clipped: an outlier must not carry a request away.
_CLIP = 5.0
_HOURS, _WEEKDAYS = 24, 7

# Profile features that are used as they are; the days among them are compared with the request or the item instead.
_PLAIN_PROFILE = (
    "log_event_count", "share_view", "share_cart", "share_purchase", "mean_log_price", "std_log_price",
    "mean_popularity", "recent_popularity", "std_published_days",
)  # fmt: skip
_PROFILE_DAYS = ("mean_published_days", "recent_published_days", "last_event_days")
_ITEM_FEATURES = (
    "retrieval", "session", "collaborative", *ITEM_DYNAMIC, "log_age", "unreleased", "log_years_from_mean",
    "log_years_from_recent", "log_price", "log_price_from_mean", "popularity_from_recent", "published_missing",
    "price_missing",
)  # fmt: skip


class Space(nn.Module):
    """One embedding space, as its catalogue fills it: standardizes inner products.

    For an item drawn from the catalogue, q·v has mean q·mu and variance q'Sq, with mu and S the mean and covariance
    of the item vectors. (q·v - q·mu) / sqrt(q'Sq) is thus the same number whatever the basis and the scale of the
    space, it depends on no other candidate, and it orders items as the inner product does.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("covariance", torch.eye(dim))

    def measure(self, item_vectors: Float32Array) -> None:
        """Take the statistics of the items' vectors, float32 (items, dim)."""
        vectors = item_vectors.astype(np.float64)
        mean = vectors.mean(axis=0)
        covariance = vectors.T @ vectors / len(vectors) - np.outer(mean, mean)
        self.mean.copy_(torch.from_numpy(mean))
        self.covariance.copy_(torch.from_numpy(covariance))

    def forward(self, query: Tensor) -> tuple[Tensor, Tensor]:
        """Direction (B, dim) and offset (B, 1): the standardized product of an item is v·direction + offset."""
        variance = ((query @ self.covariance) * query).sum(1, keepdim=True)
        direction = query / torch.sqrt(torch.clamp(variance, min=1e-12))
        return direction, -(direction * self.mean).sum(1, keepdim=True)


class RankerFeatures(nn.Module):
    """From the ranker's raw inputs to two standardized blocks: user (B, user_dim) and item (B, N, item_dim)."""

    def __init__(self, schema: FeatureSchema) -> None:
        super().__init__()
        self._profile = {name: position for position, name in enumerate(schema.profile)}
        self._columns = schema.item_columns
        self._width = schema.table_width
        self._now = len(schema.profile)
        self.retrieval = Space(schema.embedding_dim)
        self.collaborative = Space(schema.collaborative_dim)
        sizes = [
            _HOURS if name == "hour" else _WEEKDAYS if name == "weekday" else len(schema.vocabularies.get(name, ()))
            for name in CODE_FEATURES
        ]
        self.codes = nn.ModuleList(nn.Embedding(size + 1, _CODE_DIM) for size in sizes)
        for table in self.codes:
            nn.init.normal_(table.weight, std=0.1)
        plain = len(_PLAIN_PROFILE) + len(_PROFILE_DAYS) + len(SESSION_DENSE)
        self.user_dim = plain + _CODE_DIM * len(CODE_FEATURES)
        self.item_dim = len(_ITEM_FEATURES)
        self.user_scale = Standardizer(plain)
        self.item_scale = Standardizer(self.item_dim)

    def use_spaces(self, item_vectors: Float32Array, collaborative_vectors: Float32Array) -> None:
        """Measure the spaces whose vectors the inputs hold from now on."""
        self.retrieval.measure(item_vectors)
        self.collaborative.measure(collaborative_vectors)

    def user(self, dense: Tensor, codes: Tensor) -> Tensor:
        """(B, user_dim) from dense (B, d) and codes int64 (B, C)."""
        embedded = [table(codes[:, position]) for position, table in enumerate(self.codes)]
        return torch.cat([self.user_scale(self.raw_user(dense)), *embedded], dim=1)

    def raw_user(self, dense: Tensor) -> Tensor:
        """The user's features before standardizing, without the codes."""
        plain = dense[:, [self._profile[name] for name in _PLAIN_PROFILE]]
        days_ago = dense[:, self._now : self._now + 1] - dense[:, [self._profile[name] for name in _PROFILE_DAYS]]
        session = dense[:, self._now + 1 : self._now + 1 + len(SESSION_DENSE)]
        return torch.cat([plain, session, _log1p(torch.relu(days_ago))], dim=1)

    def item(
        self, query: Tensor, session: Tensor, collaborative: Tensor, dense: Tensor, items: Tensor, dynamic: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The item block (B, N, item_dim) and, unclipped, the logarithm of the retrieval score (B, N, 1).

        From the request and the candidates' table rows (B, N, K) and live counts (B, N, D). The logarithm (odd, so
        that it keeps the order) tames the long tail of a matrix factorization's scores, tens of deviations above the
        mean, which no bounded correction could put right.
        """
        raw = self.raw_item(query, session, collaborative, dense, items, dynamic)
        return self.item_scale(raw), _symmetric_log(raw[:, :, :1])

    def raw_item(
        self, query: Tensor, session: Tensor, collaborative: Tensor, dense: Tensor, items: Tensor, dynamic: Tensor
    ) -> Tensor:
        """The candidates' features before standardizing, in the order of _ITEM_FEATURES.

        A zero vector, of a user without a session, has the product 0 with every candidate.
        """
        # The inner products and the scalar columns in one product with the gathered rows: no slices are copied.
        directions, offsets = [], []
        for name, space, vector in (
            ("embedding", self.retrieval, query), ("embedding", self.retrieval, session),
            ("collaborative", self.collaborative, collaborative),
        ):  # fmt: skip
            start, stop = self._columns[name]
            direction, offset = space(vector)
            directions.append(nn.functional.pad(direction, (start, self._width - stop)))
            offsets.append(offset)
        products = items @ torch.stack(directions, dim=2) + torch.cat(offsets, dim=1)[:, None, :]

        published = self._column(items, "published_days")
        log_price = self._column(items, "log_price")
        age_years = (dense[:, None, self._now : self._now + 1] - published) / _DAYS_PER_YEAR
        years_from = [
            torch.abs(published - self._profiled(dense, name)) / _DAYS_PER_YEAR
            for name in ("mean_published_days", "recent_published_days")
        ]
        return torch.cat(
            [
                products,
                dynamic,
                _log1p(torch.relu(age_years)),
                torch.clamp(-age_years, 0.0, 1.0),
                _log1p(torch.cat(years_from, dim=2)),
                log_price,
                torch.abs(log_price - self._profiled(dense, "mean_log_price")),
                dynamic[:, :, -1:] - self._profiled(dense, "recent_popularity"),
                self._column(items, "published_missing"),
                self._column(items, "price_missing"),
            ],
            dim=2,
        )

    def _column(self, items: Tensor, name: str) -> Tensor:
        start, stop = self._columns[name]
        return items[:, :, start:stop]

    def _profiled(self, dense: Tensor, name: str) -> Tensor:
        position = self._profile[name]
        return dense[:, None, position : position + 1]


class Standardizer(nn.Module):
    """(x - mean) / deviation, clipped; features that never vary come out as zeros."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))

    def measure(self, values: Tensor) -> None:
        """Take mean and deviation from values (n, width)."""
        deviation = values.double().std(dim=0, correction=0)
        self.mean.copy_(values.double().mean(dim=0))
        self.scale.copy_(torch.where(deviation > 1e-6, 1.0 / torch.clamp(deviation, min=1e-6), 0.0))

    def forward(self, values: Tensor) -> Tensor:
        return torch.clamp((values - self.mean) * self.scale, -_CLIP, _CLIP)


def _symmetric_log(values: Tensor) -> Tensor:
    return torch.sign(values) * _log1p(torch.abs(values))


def _log1p(values: Tensor) -> Tensor:
    # ONNX has no Log1p; for years and days the plain logarithm is accurate enough.
    return torch.log(values + 1.0)
