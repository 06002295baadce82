"""Both towers as ONNX, for the jobs that refresh users and embed new items without PyTorch."""

import warnings
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from engine.features.content import DENSE_FEATURES
from engine.training.two_tower.model import TwoTowerModel
from engine.training.two_tower.user_tower import UserTower

OPSET: Final = 18
# A batch of one may be taken for a constant.
_EXAMPLES: Final = 2


def export_item_tower(model: TwoTowerModel, path: Path) -> None:
    """Write the content tower: token_ids int64 (n, max_tokens), dense float32 (n, d) -> vectors float32 (n, dim)."""
    schema = model.content_schema
    inputs = {
        "token_ids": torch.ones(_EXAMPLES, schema.max_tokens, dtype=torch.int64),
        "dense": torch.zeros(_EXAMPLES, len(DENSE_FEATURES)),
    }
    _export(model.network.items.content, inputs, path)


def export_user_tower(model: TwoTowerModel, path: Path) -> None:
    """Write the user tower for full windows.

    item_vectors float32 (n, window, dim), event_types int64 (n, window), ages_s float32 (n, window),
    valid bool (n, window), demographics int64 (n, 3) -> vectors float32 (n, dim). Right-aligned, as window_of gives.
    """
    users = model.network.users
    shape = (_EXAMPLES, users.window)
    inputs = {
        "item_vectors": torch.zeros(*shape, model.dim),
        "event_types": torch.zeros(shape, dtype=torch.int64),
        "ages_s": torch.zeros(shape),
        "valid": torch.ones(shape, dtype=torch.bool),
        "demographics": torch.zeros(_EXAMPLES, len(users.demographics), dtype=torch.int64),
    }
    _export(_LastQuery(users), inputs, path)


class _LastQuery(nn.Module):
    def __init__(self, users: UserTower) -> None:
        super().__init__()
        self.users = users

    def forward(
        self, item_vectors: Tensor, event_types: Tensor, ages_s: Tensor, valid: Tensor, demographics: Tensor
    ) -> Tensor:
        return self.users(item_vectors, event_types, ages_s, valid, demographics)[:, -1]


def _export(module: nn.Module, inputs: dict[str, Tensor], path: Path) -> None:
    """One self-contained file with a dynamic batch.

    By the exporter that reads TorchScript, as the ranker's: 0.5 s of processor time for both towers, against 8 s by the
    one that reads torch.export, for graphs that answer alike.
    """
    with warnings.catch_warnings():
        # It announces its retirement with every call.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(),
            tuple(inputs.values()),
            str(path),
            input_names=list(inputs),
            output_names=["vectors"],
            dynamic_axes={name: {0: "batch"} for name in (*inputs, "vectors")},
            opset_version=OPSET,
            dynamo=False,
        )
