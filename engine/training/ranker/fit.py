"""Fit the network to examples: listwise softmax of the chosen item over its candidates, stopped by held-out users."""

import copy

import numpy as np
import torch
from torch import Tensor

from engine.logs import Progress
from engine.training.config import RankerConfig
from engine.training.ranker.examples import Examples
from engine.training.ranker.network import RankerNetwork
from engine.types import Float32Array

# Examples that the features' means and deviations are taken from.
_MEASURED = 2000
# Weight of the anchor beside the ranking loss: small, since it is there for the offset alone.
_ANCHOR = 0.05


class ExampleBatches:
    """Examples as tensors, with the candidates' table rows gathered batch by batch.

    Popularity comes in two forms, as of the example's moment and from one fixed table, since serving knows both: live
    counts, and a bundle whose counts have stood still. `stale_share` of the examples read the fixed one.

    In training each code is now and then unknown, by `code_dropout`: so that an unknown value has a meaning, and what
    few examples say of one value does not outweigh what all the others say.
    """

    def __init__(
        self, examples: Examples, item_table: Float32Array, stale_dynamic: Float32Array, code_dropout: float = 0.0
    ) -> None:
        self.examples = examples
        self._code_dropout = code_dropout
        self._table = torch.from_numpy(item_table)
        self._stale = torch.from_numpy(stale_dynamic)

    def logits(self, network: RankerNetwork, positions: np.ndarray, stale: np.ndarray) -> Tensor:
        """Ranking logits (n, k) of the examples at these positions; stale: bool (n,)."""
        part = self.examples.take(positions)
        rows = torch.from_numpy(part.rows)
        dynamic = torch.from_numpy(part.dynamic)
        dynamic = torch.where(torch.from_numpy(stale)[:, None, None], self._stale[rows], dynamic)
        query, session, collaborative, dense, codes = self.request(part)
        if network.training:
            codes = torch.where(torch.rand(codes.shape) < self._code_dropout, 0, codes)
        return network(query, session, collaborative, dense, codes, self._table[rows], dynamic)

    def losses(self, network: RankerNetwork, positions: np.ndarray, stale: np.ndarray) -> Tensor:
        """(n,): -log softmax of the chosen item over its whole pool, plus an anchor of the pool's sum.

        Each sampled negative has the weight of all that it represents (Bengio & Senecal, 2008). The softmax leaves
        each request a free offset; pulling the log of the pool's sum to zero makes exp(logit) the probability itself,
        comparable between requests, which is what calibration builds on.

        What is chosen is a matter of what is shown as well: the log holds exposure times exp(logit). With the
        exposure as a fixed factor, the logit learns what is left, how much the item is wanted once it is seen; see
        docs/adr/0023.
        """
        log_sum, chosen = self._log_sum_and_chosen(network, positions, stale)
        return log_sum - chosen + _ANCHOR * log_sum**2

    @torch.no_grad()
    def centre(self, network: RankerNetwork, positions: np.ndarray, stale: np.ndarray) -> None:
        """Start the logits where the anchor wants them, on average; the order does not change."""
        log_sum, _ = self._log_sum_and_chosen(network, positions, stale)
        network.tower.out.bias -= log_sum.mean()

    def _log_sum_and_chosen(
        self, network: RankerNetwork, positions: np.ndarray, stale: np.ndarray
    ) -> tuple[Tensor, Tensor]:
        part = self.examples.take(positions)
        exposed = torch.log(torch.from_numpy(part.exposure))
        logits = self.logits(network, positions, stale) + exposed
        return torch.logsumexp(logits + torch.log(torch.from_numpy(part.weights())), dim=1), logits[:, 0]

    @staticmethod
    def request(part: Examples) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        inputs = part.inputs
        return (
            torch.from_numpy(inputs.query),
            torch.from_numpy(inputs.session),
            torch.from_numpy(inputs.collaborative),
            torch.from_numpy(inputs.dense),
            torch.from_numpy(inputs.codes),
        )

    def measure(self, network: RankerNetwork, positions: np.ndarray, stale: np.ndarray) -> None:
        """Set the network's standardizers from these examples."""
        part = self.examples.take(positions)
        query, session, collaborative, dense, _ = self.request(part)
        rows = torch.from_numpy(part.rows)
        dynamic = torch.where(torch.from_numpy(stale)[:, None, None], self._stale[rows], torch.from_numpy(part.dynamic))
        raw = network.features.raw_item(query, session, collaborative, dense, self._table[rows], dynamic)
        network.features.item_scale.measure(raw.transpose(1, 2)[torch.from_numpy(part.valid)])
        network.features.user_scale.measure(network.features.raw_user(dense))


def fit_network(
    network: RankerNetwork,
    batches: ExampleBatches,
    train: np.ndarray,
    held_out: np.ndarray,
    config: RankerConfig,
    seed: int,
    progress: Progress | None = None,
) -> list[float]:
    """Train in place and keep the weights of the best epoch. Returns the held-out loss, before and after each epoch.

    Args:
        train, held_out: int64 positions of examples; held_out ones belong to other users than the train ones.
    """
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    stale = rng.random(len(batches.examples)) < config.stale_share
    measured = rng.permutation(train)[:_MEASURED]
    batches.measure(network, measured, stale[measured])
    batches.centre(network, measured, stale[measured])
    optimizer = torch.optim.AdamW(network.parameters(), config.learning_rate, weight_decay=config.weight_decay)
    losses = [_loss_of(network, batches, held_out, stale, config)]
    best = copy.deepcopy(network.state_dict())
    for epoch in range(config.epochs):
        network.train()
        order = rng.permutation(train)
        stale[train] = rng.random(len(train)) < config.stale_share
        for begin in range(0, len(order), config.batch_size):
            positions = order[begin : begin + config.batch_size]
            loss = batches.losses(network, positions, stale[positions]).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        losses.append(_loss_of(network, batches, held_out, stale, config))
        if losses[-1] == min(losses):
            best = copy.deepcopy(network.state_dict())
        if progress is not None:
            progress(epoch + 1, config.epochs, f"ranker, held-out loss {losses[-1]:.4f}")
        if len(losses) - 1 - int(np.argmin(losses)) >= config.patience:
            break
    network.load_state_dict(best)
    network.eval()
    return losses


@torch.no_grad()
def _loss_of(
    network: RankerNetwork, batches: ExampleBatches, positions: np.ndarray, stale: np.ndarray, config: RankerConfig
) -> float:
    network.eval()
    total = 0.0
    for begin in range(0, len(positions), config.batch_size):
        part = positions[begin : begin + config.batch_size]
        total += float(batches.losses(network, part, stale[part]).sum())
    return total / len(positions)
