"""What the towers say in torch, for what is exported of them."""

import numpy as np
import torch

from engine.features.content import ContentFeatures
from engine.training.two_tower.model import TwoTowerModel
from engine.types import Float32Array


def content_vectors(model: TwoTowerModel, features: ContentFeatures) -> Float32Array:
    """float32 (n, dim): where n items belong by content alone."""
    with torch.inference_mode():
        vectors = model.network.items.content(torch.from_numpy(features.token_ids), torch.from_numpy(features.dense))
    return np.ascontiguousarray(vectors.numpy(), np.float32)
