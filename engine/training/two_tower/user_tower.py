"""The user tower: a query vector from the last events in order, by causal self-attention."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.types import EventType

# Time between events in powers of two of a second: bucket 0 for none, the last one from 2^30 s (34 years) up.
_TIME_BUCKETS = 32
_EMBEDDING_STD = 0.02
_MASKED = -1e9


class UserTower(nn.Module):
    """Item vectors, event types, time gaps and demographics, through pre-norm transformer blocks.

    The output at an event depends on it and on earlier events only, so that one pass over a sequence trains every
    prefix of it. Order and time enter attention as learned biases on how many events and how many seconds lie between
    two events, so that nothing depends on where a sequence was cut.

    Source: Kang & McAuley, ICDM 2018 (SASRec); biases of Zhai et al., ICML 2024 (HSTU), section 3.1.
    """

    def __init__(
        self, dim: int, window: int, layers: int, heads: int, dropout: float, demographic_sizes: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.window = window
        self.event_types = _small_embedding(len(EventType), dim)
        self.gaps = _small_embedding(_TIME_BUCKETS, dim)
        self.distance_bias = nn.Parameter(torch.zeros(window, heads))
        self.time_bias = nn.Parameter(torch.zeros(_TIME_BUCKETS, heads))
        # Code 0, unknown, adds nothing; the others start there and learn only from users who have them.
        self.demographics = nn.ModuleList(nn.Embedding(size, dim, padding_idx=0) for size in demographic_sizes)
        for embedding in self.demographics:
            nn.init.zeros_(embedding.weight)
        self.blocks = nn.ModuleList(_Block(dim, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, item_vectors: Tensor, event_types: Tensor, ages_s: Tensor, valid: Tensor, demographics: Tensor
    ) -> Tensor:
        """The query vector after each event.

        Args:
            item_vectors: float32 (n, length, dim), right-aligned, length <= window; what padding holds is ignored.
            event_types: int64 (n, length). ages_s: float32 (n, length), against any one moment of each sequence.
            valid: bool (n, length), False where padded.
            demographics: int64 (n, features), 0 for unknown.

        Returns:
            float32 (n, length, dim); entry [:, -1] answers for the whole sequence.
        """
        user = torch.stack([table(demographics[:, i]) for i, table in enumerate(self.demographics)]).sum(dim=0)
        hidden = item_vectors + self.event_types(event_types) + self.gaps(gap_buckets(ages_s, valid))
        hidden = self.dropout(hidden + user.unsqueeze(1)) * valid.unsqueeze(-1)
        bias = self._attention_bias(ages_s, valid)
        for block in self.blocks:
            hidden = block(hidden, bias)
        return self.norm(hidden)

    def _attention_bias(self, ages_s: Tensor, valid: Tensor) -> Tensor:
        """float32 (n, heads, length, length): what is added to the attention of each event to each other."""
        steps = torch.arange(valid.shape[1])
        distance = steps[:, None] - steps[None, :]
        elapsed = time_buckets(ages_s[:, None, :] - ages_s[:, :, None])
        # F.embedding and not an index: the gradient of an index adds up in whatever order the threads come.
        learned = F.embedding(distance.clamp(min=0), self.distance_bias) + F.embedding(elapsed, self.time_bias)
        # An event sees itself even where padded: a row with nothing to attend to would be NaN.
        visible = (distance >= 0) & valid[:, None, :] | (distance == 0)
        return learned.permute(0, 3, 1, 2).masked_fill(~visible.unsqueeze(1), _MASKED)


class _Block(nn.Module):
    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(dim)
        self.query_key_value = nn.Linear(dim, 3 * dim)
        self.attention_out = nn.Linear(dim, dim)
        self.feed_norm = nn.LayerNorm(dim)
        self.feed_in = nn.Linear(dim, dim)
        self.feed_out = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: Tensor, bias: Tensor) -> Tensor:
        batch, length, dim = hidden.shape
        split = self.query_key_value(self.attention_norm(hidden)).view(batch, length, 3, self.heads, dim // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4)
        # Written out: with a bias per head PyTorch's fused attention on CPU is this very code, and does not export.
        scores = query @ key.transpose(-2, -1) / math.sqrt(dim // self.heads) + bias
        mixed = self.dropout(torch.softmax(scores, dim=-1)) @ value
        mixed = mixed.transpose(1, 2).reshape(batch, length, dim)
        hidden = hidden + self.dropout(self.attention_out(mixed))
        return hidden + self.dropout(self.feed_out(self.dropout(F.gelu(self.feed_in(self.feed_norm(hidden))))))


def gap_buckets(ages_s: Tensor, valid: Tensor) -> Tensor:
    """int64 (n, length): log2 bucket of the seconds since the event before, 0 for the first and where padded."""
    before = F.pad(ages_s[:, :-1], (1, 0))
    has_before = F.pad(valid[:, :-1], (1, 0)) & valid
    return torch.where(has_before, time_buckets(before - ages_s), torch.zeros_like(ages_s, dtype=torch.int64))


def time_buckets(elapsed_s: Tensor) -> Tensor:
    """int64, of the same shape: 1 + floor(log2(1 + seconds)), negative seconds counting as none."""
    return (torch.log2(elapsed_s.clamp(min=0.0) + 1.0) + 1.0).to(torch.int64).clamp(max=_TIME_BUCKETS - 1)


def _small_embedding(count: int, dim: int) -> nn.Embedding:
    embedding = nn.Embedding(count, dim)
    nn.init.normal_(embedding.weight, std=_EMBEDDING_STD)
    return embedding
