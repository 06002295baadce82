"""The item tower: a vector from content, plus what the item's own id has learned."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.features.content import DENSE_FEATURES, PADDING, ContentFeatures
from engine.types import BoolArray, Int64Array

# A token of one item only says no more than the item's id does, and nothing at all of other items.
_MIN_ITEMS_PER_TOKEN = 2
_VECTOR_STD = 0.1
_WEIGHT_STD = 0.02


class ContentTower(nn.Module):
    """Sum of token vectors over the square root of their number, plus a linear map of the dense features.

    Only tokens that the training catalogue repeats have a vector; `slot_of` maps the token ids of the content
    schema to rows of the compact table, 0 for all others, so that an unknown token changes nothing.
    """

    def __init__(self, slot_of: Int64Array, dim: int) -> None:
        super().__init__()
        self.register_buffer("slot_of", torch.from_numpy(slot_of))
        self.tokens = nn.Parameter(torch.randn(int(slot_of.max()) + 1, dim) * _VECTOR_STD)
        self.dense = nn.Linear(len(DENSE_FEATURES), dim, bias=False)
        nn.init.normal_(self.dense.weight, std=_WEIGHT_STD)
        with torch.no_grad():
            self.tokens[0] = 0.0

    def forward(self, token_ids: Tensor, dense: Tensor) -> Tensor:
        """float32 (n, dim) from token ids int64 (n, max_tokens) and dense features float32 (n, d)."""
        slots = self.slot_of[token_ids]
        known = (slots > 0).unsqueeze(-1)
        total = (F.embedding(slots, self.tokens) * known).sum(dim=1)
        return self._scaled(total, known.sum(dim=1)) + self.dense(dense)

    def from_slots(self, slots: Tensor, dense: Tensor) -> Tensor:
        """The same from slots, by the kernel that is fast to train and that ONNX does not have."""
        total = F.embedding_bag(slots, self.tokens, mode="sum", padding_idx=0)
        return self._scaled(total, (slots > 0).sum(dim=1, keepdim=True)) + self.dense(dense)

    @staticmethod
    def _scaled(total: Tensor, count: Tensor) -> Tensor:
        return total / count.clamp(min=1).to(total.dtype).sqrt()


class ItemTower(nn.Module):
    """Content vector plus id vector, for the items of one catalogue.

    In training an item's id vector is left out with probability `id_dropout`, so that content alone must serve too.
    An item without training events has no id vector at all: what it would hold is noise.
    """

    def __init__(
        self, features: ContentFeatures, has_events: BoolArray, buckets: int, dim: int, id_dropout: float
    ) -> None:
        super().__init__()
        slot_of = _slots(features.token_ids, buckets)
        slots = slot_of[features.token_ids]
        slots = np.take_along_axis(slots, np.argsort(slots == 0, axis=1, kind="stable"), axis=1)
        widest = max(1, int((slots > 0).sum(axis=1).max(initial=0)))
        self.content = ContentTower(slot_of, dim)
        self.ids = nn.Parameter(torch.randn(len(features), dim) * _VECTOR_STD)
        self.id_dropout = id_dropout
        # The catalogue is data, not state: a later model brings its own.
        self.register_buffer("slots", torch.from_numpy(np.ascontiguousarray(slots[:, :widest])), persistent=False)
        self.register_buffer("dense", torch.from_numpy(features.dense), persistent=False)
        self.register_buffer("has_events", torch.from_numpy(has_events), persistent=False)

    def forward(self, rows: Tensor) -> Tensor:
        """float32 (n, dim) of catalogue rows int64 (n,), each at most once."""
        keep = self.has_events[rows]
        if self.training and self.id_dropout:
            keep = keep & (torch.rand(len(rows)) >= self.id_dropout)
        content = self.content.from_slots(self.slots[rows], self.dense[rows])
        return content + F.embedding(rows, self.ids, sparse=self.training) * keep.unsqueeze(-1)


def _slots(token_ids: Int64Array, buckets: int) -> Int64Array:
    """int64 (buckets,): the table row of each token id, 1 and up for those of several items, else 0."""
    items_of = np.bincount(token_ids.ravel(), minlength=buckets)
    repeated = items_of >= _MIN_ITEMS_PER_TOKEN
    repeated[PADDING] = False
    return np.where(repeated, np.cumsum(repeated), 0).astype(np.int64)
