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
    V_u diag(u) U_u is a (rank, rank) matrix.
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
        """(B, N, 1) from user (B, user_dim) and item (B, N, item_dim)."""
        cut = self.user_dim
        item_state = item
        hidden: list[Tensor] = []
        for down, up, bias in zip(self.down, self.up, self.bias, strict=True):
            hidden.append(item_state @ down[cut:] + self._user_half(user, hidden, down[:cut]))
            item_state = item * (hidden[-1] @ up[:, cut:] + bias[cut:]) + item_state
        return item_state @ self.out[cut:] + self._user_half(user, hidden, self.out[:cut])

    def _user_half(self, user: Tensor, hidden: list[Tensor], projection: Tensor) -> Tensor:
        """The user half of the current state times projection (user_dim, p): (B, N, p), or (B, 1, p) at first."""
        cut = self.user_dim
        constant = user
        for bias in self.bias[: len(hidden)]:
            constant = constant + user * bias[:cut]
        out = (constant @ projection)[:, None, :]
        for layer, projected in enumerate(hidden):
            out = out + projected @ ((user[:, None, :] * self.up[layer][:, :cut]) @ projection)
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
        first = self.layers[0]
        weight = first.weight.T
        user_half = user @ weight[: self.user_dim] + first.bias
        return self._rest(item @ weight[self.user_dim :] + user_half[:, None, :])

    def tiled(self, both: Tensor) -> Tensor:
        return self._rest(self.layers[0](both))

    def _rest(self, hidden: Tensor) -> Tensor:
        hidden = self.dropout(torch.relu(hidden))
        for layer in self.layers[1:]:
            hidden = self.dropout(torch.relu(layer(hidden)))
        return self.out(hidden)


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
        return self._logits(retrieval, self.cross(user, item) + self.tower(user, item))

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
        both = torch.cat([user[:, None, :].expand(-1, item.shape[1], -1), item], dim=2)
        return self._logits(retrieval, self.cross.tiled(both) + self.tower.tiled(both))

    def _logits(self, retrieval: Tensor, learned: Tensor) -> Tensor:
        return (torch.exp(self.log_retrieval_weight) * retrieval + learned).squeeze(2)

    def click_probability(self, logits: Tensor) -> Tensor:
        """Calibrated probabilities; the order of the logits stays."""
        # Written out: ONNX Runtime's Sigmoid is exact to 1e-7 in all, and would tie the many candidates below 1e-5.
        return 1.0 / (1.0 + torch.exp(-(logits * self.calibration[0] + self.calibration[1])))
