from dataclasses import replace

import numpy as np
import pytest
import torch

from engine.features.profile import ItemStats
from engine.training.ranker.examples import Examples, build_examples
from engine.training.ranker.fit import ExampleBatches, fit_network
from engine.training.ranker.item_table import item_popularity
from engine.training.ranker.network import RankerNetwork
from tests.engine.training.ranker.small import CONFIG, head_model, ranker, scrambled, split, tables, world

FRESH = np.zeros(3, np.bool_)
FIRST = np.arange(3)


@pytest.fixture(scope="module")
def examples() -> Examples:
    stats = ItemStats.from_tables(ranker().schema, *tables())
    popularity = item_popularity(world())
    return build_examples(world(), split(), head_model(), head_model(), stats, popularity, CONFIG, seed=0)


def losses(examples: Examples, stale: np.ndarray = FRESH) -> torch.Tensor:
    with torch.no_grad():
        return ExampleBatches(examples, *tables()).losses(scrambled(ranker().schema), FIRST, stale)


def test_a_negative_that_stands_for_two_counts_like_two(examples: Examples) -> None:
    once = np.ones_like(examples.sample_weight)
    twice = once.copy()
    twice[:, 5] = 2.0
    repeated = replace(
        examples,
        rows=np.append(examples.rows, examples.rows[:, 5:6], axis=1),
        dynamic=np.append(examples.dynamic, examples.dynamic[:, 5:6], axis=1),
        sample_weight=np.append(once, once[:, :1], axis=1),
        exposure=np.append(examples.exposure, examples.exposure[:, 5:6], axis=1),
        valid=np.append(examples.valid, examples.valid[:, 5:6], axis=1),
    )
    weighted = losses(replace(examples, sample_weight=twice))
    torch.testing.assert_close(weighted, losses(repeated))
    assert not torch.allclose(weighted, losses(replace(examples, sample_weight=once)))


def test_padding_counts_for_nothing(examples: Examples) -> None:
    padded = replace(examples, valid=examples.valid & (np.arange(examples.rows.shape[1]) != 5))
    elsewhere = padded.rows.copy()
    elsewhere[:, 5] = 0
    torch.testing.assert_close(losses(replace(padded, rows=elsewhere)), losses(padded))
    assert not torch.allclose(losses(padded), losses(examples))


def test_stale_examples_read_the_table_that_stands_still(examples: Examples) -> None:
    blind = replace(examples, dynamic=np.full_like(examples.dynamic, np.nan))
    assert torch.isfinite(losses(blind, stale=~FRESH)).all()
    assert torch.isnan(losses(blind)).all()


def test_the_weights_of_the_best_epoch_are_kept(examples: Examples) -> None:
    config = CONFIG.model_copy(update={"epochs": 3, "learning_rate": 0.3, "patience": 10, "stale_share": 0.0})
    torch.manual_seed(0)
    network = RankerNetwork(ranker().schema, config)
    network.features.use_spaces(head_model().item_vectors, head_model().item_vectors)
    batches = ExampleBatches(examples, *tables())
    train, held_out = np.arange(100), np.arange(100, 200)
    calls: list[int] = []
    found = fit_network(network, batches, train, held_out, config, 0, lambda done, total, message: calls.append(done))
    assert calls == [1, 2, 3]
    assert len(found) == 4
    with torch.no_grad():
        now = float(batches.losses(network, held_out, np.zeros(100, np.bool_)).mean())
    assert now == pytest.approx(min(found), rel=1e-5)


def test_codes_are_now_and_then_unknown_in_training_alone(examples: Examples) -> None:
    network = scrambled(ranker().schema)
    unknown = replace(examples, inputs=replace(examples.inputs, codes=np.zeros_like(examples.inputs.codes)))
    dropping = ExampleBatches(examples, *tables(), code_dropout=0.999)
    with torch.no_grad():
        told, untold = losses(examples), losses(unknown)
        torch.testing.assert_close(dropping.losses(network, FIRST, FRESH), told)
        network.tower.dropout.p = 0.0
        torch.testing.assert_close(dropping.losses(network.train(), FIRST, FRESH), untold)
    assert not torch.allclose(told, untold)
