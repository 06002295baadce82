"""DCN-v2 with its user half computed once a request (Wang et al., WWW 2021; low-rank cross layers beside an MLP)."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from engine.features.schema import FeatureSchema
from engine.training.config import RankerConfig
from engine.training.ranker.features import RankerFeatures


class CrossNetwork(nn.Module):
    """x_{l+1} = x_0 * (U_l V_l x_l + b_l) + x_l over x_0 = [user; item], then one output per candidate.

    The user half of x_l differs from candidate to candidate through V_l x_l alone, which has `rank` numbers. So the
    user half is never formed: what later layers need of it is u * (U h + b) projected by V, and for one request
    V_u diag(u) U_u is a (rank, rank) matrix. Its constant part is a column of the weights, beside the item's row of
    ones: a product adds it in passing, where a sum would go over all candidates once more.
    """

    def __init__(self, user_dim: int, item_dim: int, layers: int, rank: int) -> None:
        super().__init__()
        self.user_dim = user_dim
        width = user_dim + item_dim
        self.down = nn.ParameterList(nn.Parameter(torch.randn(width, rank) * width**-0.5) for _ in range(layers))
        self.up = nn.ParameterList(nn.Parameter(torch.randn(rank, width) * rank**-0.5) for _ in range(layers))
        self.bias = nn.ParameterList(nn.Parameter(torch.zeros(width)) for _ in range(layers))
        self.out = nn.Parameter(torch.zeros(width, 1))

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        """(B, 1, N) from user (B, user_dim) and item (B, item_dim + 1, N), whose last row is 1."""
        cut = self.user_dim
        state = item
        hidden: list[Tensor] = []
        for down, up, bias in zip(self.down, self.up, self.bias, strict=True):
            hidden.append(self._project(user, state, hidden, down))
            # The row of ones has no weights, and stays what it is. At first the state is the item itself: once more
            # itself is one more in the bias.
            first = len(hidden) == 1
            change = nn.functional.pad(up[:, cut:].T, (0, 0, 0, 1)) @ hidden[-1]
            change = change + (nn.functional.pad(bias[cut:], (0, 1)) + (1.0 if first else 0.0))[:, None]
            state = item * change if first else item * change + state
        return self._project(user, state, hidden, self.out)

    def _project(self, user: Tensor, state: Tensor, hidden: list[Tensor], projection: Tensor) -> Tensor:
        """Both halves of the current state times projection (user_dim + item_dim, p): (B, p, N)."""
        cut = self.user_dim
        # What weights alone decide is put together first: it is computed once, when a graph is loaded.
        constant = projection[:cut]
        for bias in self.bias[: len(hidden)]:
            constant = constant + bias[:cut, None] * projection[:cut]
        out = _beside_ones(projection[cut:].T, user @ constant) @ state
        for layer, projected in enumerate(hidden):
            out = out + (projection[:cut].T @ (user[:, :, None] * self.up[layer][:, :cut].T)) @ projected
        return out

    def tiled(self, both: Tensor) -> Tensor:
        """The same from x_0 itself, (..., user_dim + item_dim), word for word: the reference."""
        state = both
        for down, up, bias in zip(self.down, self.up, self.bias, strict=True):
            state = both * (state @ down @ up + bias) + state
        return state @ self.out


class Tower(nn.Module):
    """An MLP whose first layer adds a user half, computed once a request, to an item half."""

    def __init__(self, user_dim: int, item_dim: int, hidden: tuple[int, ...], dropout: float) -> None:
        super().__init__()
        self.user_dim = user_dim
        widths = [user_dim + item_dim, *hidden]
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(widths))
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(widths[-1], 1)
        # Zero at first, like the cross network's: training starts from retrieval's own order.
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        """(B, 1, N) from user (B, user_dim) and item (B, item_dim + 1, N), whose last row is 1."""
        first = self.layers[0]
        user_half = user @ first.weight[:, : self.user_dim].T + first.bias
        hidden = item.transpose(1, 2) @ _beside_ones(first.weight[:, self.user_dim :], user_half).transpose(1, 2)
        # As one matrix: ONNX Runtime fuses bias and activation into products of two dimensions alone.
        return self._rest(hidden.reshape(-1, first.out_features)).reshape(item[:, :1].shape)

    def tiled(self, both: Tensor) -> Tensor:
        return self._rest(self.layers[0](both))

    def _rest(self, hidden: Tensor) -> Tensor:
        hidden = self.dropout(torch.relu(hidden))
        for layer in self.layers[1:]:
            hidden = self.dropout(torch.relu(layer(hidden)))
        return self.out(hidden)


def _beside_ones(weight: Tensor, constant: Tensor) -> Tensor:
    """(B, p, item_dim + 1) from weight (p, item_dim) and constant (B, p), which the row of ones picks up."""
    left = nn.functional.pad(weight, (0, 1))
    return left + nn.functional.pad(constant[:, :, None], (weight.shape[1], 0))


class RankerNetwork(nn.Module):
    """Click logits: a learned positive weight times the standardized retrieval score, plus DCN-v2.

    The rest starts at zero, so that an untrained ranker keeps retrieval's order and training only departs from it
    where that pays. `calibration` (slope > 0, intercept) turns ranking logits into log odds of a click.
    """

    def __init__(self, schema: FeatureSchema, config: RankerConfig) -> None:
        super().__init__()
        self.features = RankerFeatures(schema)
        user_dim, item_dim = self.features.user_dim, self.features.item_dim
        self.cross = CrossNetwork(user_dim, item_dim, config.cross_layers, config.cross_rank)
        self.tower = Tower(user_dim, item_dim, config.hidden, config.dropout)
        self.log_retrieval_weight = nn.Parameter(torch.zeros(1))
        self.register_buffer("calibration", torch.tensor([1.0, 0.0]))

    def forward(
        self,
        query: Tensor,
        session: Tensor,
        collaborative: Tensor,
        dense: Tensor,
        codes: Tensor,
        items: Tensor,
        dynamic: Tensor,
    ) -> Tensor:
        """Ranking logits.

        Args:
            query, session (B, dim), collaborative (B, c), dense (B, d): float32. codes: int64 (B, C).
            items: float32 (B, N, K), rows of the item table. dynamic: float32 (B, N, D), rows of the live counts.

        Returns:
            float32 (B, N).
        """
        user = self.features.user(dense, codes)
        item, retrieval = self.features.item(query, session, collaborative, dense, items, dynamic)
        return self.logits(retrieval, self.cross(user, item) + self.tower(user, item))

    def tiled(
        self,
        query: Tensor,
        session: Tensor,
        collaborative: Tensor,
        dense: Tensor,
        codes: Tensor,
        items: Tensor,
        dynamic: Tensor,
    ) -> Tensor:
        """The same with the user half repeated beside every candidate: slower, and what forward is held against."""
        user = self.features.user(dense, codes)
        item, retrieval = self.features.item(query, session, collaborative, dense, items, dynamic)
        rows = item[:, :-1].transpose(1, 2)
        both = torch.cat([user[:, None, :].expand(-1, rows.shape[1], -1), rows], dim=2)
        return self.logits(retrieval, (self.cross.tiled(both) + self.tower.tiled(both)).transpose(1, 2))

    def logits(self, retrieval: Tensor, learned: Tensor) -> Tensor:
        """(B, N) from the logarithm of the retrieval score and what the layers add to it, both (B, 1, N)."""
        return (torch.exp(self.log_retrieval_weight) * retrieval + learned)[:, 0]

    def click_probability(self, logits: Tensor) -> Tensor:
        """Calibrated probabilities; the order of the logits stays."""
        # Written out: ONNX Runtime's Sigmoid is exact to 1e-7 in all, and would tie the many candidates below 1e-5.
        return torch.reciprocal(1.0 + torch.exp(logits * -self.calibration[0] - self.calibration[1]))
