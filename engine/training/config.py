"""Settings of one training run: one TOML file, frozen, unknown keys refused."""

from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from engine.config.load import Section, load_settings
from engine.config.seen import SeenConfig
from engine.features.seen_history import EVERYTHING_S, windows_by_type
from engine.types import Int64Array


class AlsConfig(Section):
    """Implicit-feedback matrix factorization (Hu, Koren, Volinsky, ICDM 2008)."""

    dim: int = Field(64, ge=4, le=512)
    iterations: int = Field(20, ge=1, le=1_000)
    regularization: float = Field(0.1, ge=0, le=1e6)
    alpha: float = Field(2.0, gt=0, le=1e6)


class TwoTowerConfig(Section):
    """Item tower from content plus id; user tower by causal self-attention over the last events."""

    dim: int = Field(64, ge=8, le=512)
    window: int = Field(100, ge=2, le=1000)
    layers: int = Field(2, ge=1, le=8)
    heads: int = Field(2, ge=1, le=16)
    dropout: float = Field(0.2, ge=0, lt=1)
    id_dropout: float = Field(0.2, ge=0, le=1)
    negatives: int = Field(500, ge=1, le=1_000_000)
    # Sequence positions a step, padding included: 16 full windows by default, more of shorter ones.
    batch_positions: int = Field(1600, ge=1, le=10_000_000)
    learning_rate: float = Field(8e-3, gt=0, le=10)
    weight_decay: float = Field(0.01, ge=0, le=10)
    epochs: int = Field(12, ge=1, le=10_000)
    # Training stops at this many sequence positions, however many epochs were asked for: bounds the wall time.
    max_positions: int = Field(1_000_000_000, ge=1, le=1_000_000_000_000)

    @model_validator(mode="after")
    def _heads_share_the_vector(self) -> Self:
        if self.dim % self.heads:
            raise ValueError(f"heads: must divide dim, which is {self.dim}; {self.heads} does not")
        return self


class RankerConfig(Section):
    """DCN-v2: low-rank cross layers beside an MLP (Wang et al., WWW 2021)."""

    cross_layers: int = Field(2, ge=1, le=6)
    cross_rank: int = Field(32, ge=1, le=1_024)
    hidden: tuple[Annotated[int, Field(ge=1, le=8_192)], ...] = Field((128, 64), min_length=1, max_length=8)
    epochs: int = Field(8, ge=1, le=10_000)
    batch_size: int = Field(32, ge=1, le=65_536)
    learning_rate: float = Field(1e-3, gt=0, le=10)
    weight_decay: float = Field(0.01, ge=0, le=10)
    top_negatives: int = Field(40, ge=0, le=10_000, description="the first ones that retrieval brings")
    retrieved_negatives: int = Field(50, ge=0, le=10_000, description="sampled from the rest of what it brings")
    random_negatives: int = Field(10, ge=0, le=10_000, description="sampled from the catalogue")
    max_examples: int = Field(20_000, ge=100, le=100_000_000)
    split: Literal["per-user-tail", "global-time"] = "per-user-tail"
    tail_fraction: float = Field(0.2, gt=0, lt=1)
    tail_events: int = Field(20, ge=1, le=100_000, description="per user, for per-user-tail")
    candidate_count: int = Field(
        1000, ge=10, le=10_000, description="retrieved per example, the pool of hard negatives"
    )
    # Stops when this many epochs in a row bring nothing on held-out users.
    patience: int = Field(2, ge=1, le=10_000)
    dropout: float = Field(0.2, ge=0, lt=1)
    code_dropout: float = Field(0.5, ge=0, lt=1, description="request codes that are taken as unknown in training")
    stale_share: float = Field(0.5, ge=0, le=1, description="examples trained on counts that stand still")
    session_start_share: float = Field(
        0.5, ge=0, le=1, description="examples asked for before their session instead of just before their event"
    )
    session_unknown_share: float = Field(
        0.25, ge=0, le=1, description="examples that are not told of a session, as where events are not streamed"
    )
    exposure_correction: float = Field(
        1.0, ge=0, le=1, description="how far choices are corrected for how much an item was shown; 0: not at all"
    )
    held_out_users: float = Field(0.1, gt=0, lt=1)

    @model_validator(mode="after")
    def _something_to_tell_apart(self) -> Self:
        if not self.top_negatives + self.retrieved_negatives + self.random_negatives:
            raise ValueError("top_negatives, retrieved_negatives and random_negatives: one of them must be above 0")
        return self


class TrainingConfig(Section):
    """The whole file. `embeddings` chooses the retrieval space; ALS vectors are ranker inputs in both cases."""

    seed: int = Field(1, ge=0, lt=2**32)
    threads: int = Field(0, ge=0, le=1_024, description="0: all cores")
    embeddings: Literal["als", "two-tower"] = "two-tower"
    als: AlsConfig = AlsConfig()
    two_tower: TwoTowerConfig = TwoTowerConfig()
    ranker: RankerConfig = RankerConfig()
    repeats: bool = Field(
        False, description="ask as well for items that their users had met before, where [seen] lets them come again"
    )
    seen: SeenConfig = Field(SeenConfig(), description="for repeats; `engine train` takes that of the serving settings")

    def quiet_s(self) -> Int64Array:
        """int64 (256,): for how many seconds an event keeps its item from being asked for again, by type.

        Forever without `repeats`. With it, for as long as the policy hides or demotes: a model that learned to ask
        for what was just looked at would find items that serving then moves to the end.
        """
        if not self.repeats:
            return EVERYTHING_S
        return np.maximum(windows_by_type(self.seen.hide), windows_by_type(self.seen.demote))

    @staticmethod
    def load(path: Path | None) -> "TrainingConfig":
        """Read a TOML file; the defaults without one. Raises ConfigError with everything that is wrong in it."""
        return load_settings(TrainingConfig, path, {}, {})
