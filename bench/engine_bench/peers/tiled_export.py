"""The ranker in its tiled form: one graph over a dense matrix whose every row repeats the user's columns.

It is what a ranker that knows nothing of requests is: rows in, probabilities out. The bundle's ranker.onnx computes the
same from the user's half once and the items' rows.
"""

import copy
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from engine.bundle.bundle import Bundle
from engine.training.ranker.features import Space
from engine.training.ranker.network import RankerNetwork
from engine.training.ranker.train import RankerModel

_OPSET = 17
_DAYS_PER_YEAR = 365.25


class TiledNetwork(nn.Module):  # type: ignore[misc]
    """A trained network over rows [query, session, collaborative, dense, codes, item table row, item counts].

    Written for rows from the start: every tensor is (n, columns), and an inner product is a product of columns and
    their sum. The network's own forms, called with one candidate a request, take about twice as long.
    """

    def __init__(self, network: RankerNetwork, widths: list[int]) -> None:
        super().__init__()
        self.network = network
        self.widths = widths

    def forward(self, matrix: Tensor) -> Tensor:
        """float32 (n,) click probabilities from float32 (n, sum of the widths)."""
        query, session, collaborative, dense, codes, items, dynamic = torch.split(matrix, self.widths, dim=1)
        features = self.network.features
        raw = self._raw_item(query, session, collaborative, dense, items, dynamic)
        both = torch.cat([features.user(dense, codes.long()), features.item_scale(raw)], dim=1)
        retrieval = torch.sign(raw[:, :1]) * _log1p(torch.abs(raw[:, :1]))
        learned = self.network.cross.tiled(both) + self.network.tower.tiled(both)
        logits = torch.exp(self.network.log_retrieval_weight) * retrieval + learned
        return self.network.click_probability(logits)[:, 0]

    def _raw_item(
        self, query: Tensor, session: Tensor, collaborative: Tensor, dense: Tensor, items: Tensor, dynamic: Tensor
    ) -> Tensor:
        """RankerFeatures.raw_item, a row at a time."""
        features = self.network.features
        columns, profile, now = features._columns, features._profile, features._now

        def item(name: str) -> Tensor:
            return items[:, slice(*columns[name])]

        def profiled(name: str) -> Tensor:
            return dense[:, profile[name] : profile[name] + 1]

        published, log_price = item("published_days"), item("log_price")
        until_years = (published - dense[:, now : now + 1]) / _DAYS_PER_YEAR
        age_years = (features._learned_now(dense) - published) / _DAYS_PER_YEAR
        means = torch.cat([profiled("mean_published_days"), profiled("recent_published_days")], dim=1)
        return torch.cat(
            [
                _product(features.retrieval, query, item("embedding")),
                _product(features.retrieval, session, item("embedding")),
                _product(features.collaborative, collaborative, item("collaborative")),
                dynamic,
                dynamic[:, -1:] - profiled("recent_popularity"),
                log_price,
                item("published_missing"),
                item("price_missing"),
                torch.abs(log_price - profiled("mean_log_price")),
                torch.clamp(until_years, 0.0, 1.0),
                _log1p(torch.relu(age_years)),
                _log1p(torch.abs(published - means) / _DAYS_PER_YEAR),
            ],
            dim=1,
        )


def _product(space: Space, query: Tensor, vectors: Tensor) -> Tensor:
    """(n, 1) standardized inner products, row by row."""
    variance = ((query @ space.covariance) * query).sum(1, keepdim=True)
    return (query * (vectors - space.mean)).sum(1, keepdim=True) / torch.sqrt(torch.clamp(variance, min=1e-12))


def _log1p(values: Tensor) -> Tensor:
    return torch.log(values + 1.0)


def export_tiled(model: RankerModel, bundle: Bundle, path: Path) -> None:
    """Write the tiled form of a bundle's ranker: input `matrix` float32 (n, columns), output `click` float32 (n,).

    Args:
        model: what the bundle's ranker.onnx was exported from. Nothing here holds one against the other.
    """
    network = copy.deepcopy(model.network)
    network.features.use_spaces(bundle.column("embedding"), bundle.column("collaborative"))
    schema = bundle.schema
    widths = [
        schema.embedding_dim, schema.embedding_dim, schema.collaborative_dim, schema.dense_dim,
        model.sample.codes.shape[1], schema.table_width, bundle.item_dynamic.shape[1],
    ]  # fmt: skip
    with warnings.catch_warnings():
        # The exporter that reads TorchScript announces its retirement with every call.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            TiledNetwork(network, widths).eval(),
            (torch.zeros(2, sum(widths)),),
            str(path),
            input_names=["matrix"],
            output_names=["click"],
            dynamic_axes={"matrix": {0: "candidates"}, "click": {0: "candidates"}},
            opset_version=_OPSET,
            dynamo=False,
        )
