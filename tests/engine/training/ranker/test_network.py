import copy

import numpy as np
import pytest
import torch

from engine.features.schema import CLOCK_FEATURES
from engine.training.ranker.features import _ITEM_FEATURES
from engine.training.ranker.network import RankerNetwork
from tests.engine.training.ranker.small import CONFIG, arguments, head_model, ranker, scrambled, tables, world

ROWS = np.random.default_rng(0).integers(0, 120, (16, 40))


def test_forward_is_the_tiled_network() -> None:
    network = scrambled(ranker().schema)
    inputs = arguments(ranker().sample, ROWS)
    with torch.no_grad():
        torch.testing.assert_close(network(*inputs), network.tiled(*inputs), rtol=1e-4, atol=1e-4)


def test_an_untrained_network_keeps_the_order_of_retrieval() -> None:
    network = RankerNetwork(ranker().schema, CONFIG).eval()
    network.features.use_spaces(head_model().item_vectors, head_model().item_vectors)
    rows = np.tile(np.arange(world().item_count), (16, 1))
    with torch.no_grad():
        logits = network(*arguments(ranker().sample, rows)).numpy()
    scores = ranker().sample.query @ head_model().item_vectors.T
    assert np.ptp(scores, axis=1).min() > 0
    for found, expected in zip(logits, scores, strict=True):
        assert (np.diff(found[np.argsort(expected)]) >= 0).all()


def test_the_order_of_candidates_does_not_matter() -> None:
    network = scrambled(ranker().schema)
    shuffled = np.random.default_rng(1).permutation(ROWS.shape[1])
    with torch.no_grad():
        straight = network(*arguments(ranker().sample, ROWS))
        torch.testing.assert_close(network(*arguments(ranker().sample, ROWS[:, shuffled])), straight[:, shuffled])


def test_another_basis_and_scale_of_the_spaces_changes_nothing() -> None:
    network = scrambled(ranker().schema)
    inputs = arguments(ranker().sample, ROWS)
    turn = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(0)))[0]
    query, session, collaborative, dense, codes, items, dynamic = inputs
    turned_items = torch.cat([3.0 * items[:, :, :8] @ turn, 0.5 * items[:, :, 8:16] @ turn, items[:, :, 16:]], dim=2)
    vectors = torch.from_numpy(tables()[0][:, :8]) @ turn
    successor = copy.deepcopy(network)
    successor.features.use_spaces((3.0 * vectors).numpy(), (0.5 * vectors).numpy())
    with torch.no_grad():
        torch.testing.assert_close(
            successor(
                0.1 * query @ turn,
                2.0 * session @ turn,
                7.0 * collaborative @ turn,
                dense,
                codes,
                turned_items,
                dynamic,
            ),
            network(*inputs),
            rtol=1e-3,
            atol=1e-3,
        )


def test_a_user_without_a_session_has_no_product_with_it() -> None:
    network = scrambled(ranker().schema)
    query, session, collaborative, dense, _, items, dynamic = arguments(ranker().sample, ROWS)
    assert session.any()
    with torch.no_grad():
        product = network.features.raw_item(query, session * 0, collaborative, dense, items, dynamic)[:, 1]
        assert not product.any()
        assert network.features.raw_item(query, session, collaborative, dense, items, dynamic)[:, 1].any()


def test_a_user_without_vectors_gets_finite_scores() -> None:
    query, session, collaborative, *rest = arguments(ranker().sample, ROWS)
    with torch.no_grad():
        assert torch.isfinite(scrambled(ranker().schema)(query * 0, session * 0, collaborative * 0, *rest)).all()


@pytest.mark.parametrize("position", range(7))
def test_every_input_reaches_the_score(position: int) -> None:
    network = scrambled(ranker().schema)
    changed = arguments(ranker().sample, ROWS)
    with torch.no_grad():
        straight = network(*changed)
        if position == 4:  # of the codes, all but the clock's are unknown in this world
            clock = slice(-len(CLOCK_FEATURES), None)
            changed[4] = changed[4].clone()
            changed[4][:, clock] = torch.tensor(list(CLOCK_FEATURES.values())) + 1 - changed[4][:, clock]
        else:
            changed[position] = changed[position].flip(0)
        assert not torch.allclose(network(*changed), straight)


def test_a_day_that_training_never_saw_is_the_nearest_that_it_did() -> None:
    network = scrambled(ranker().schema)
    query, session, collaborative, dense, codes, items, dynamic = arguments(ranker().sample, ROWS)
    now = len(ranker().schema.profile)
    published = ranker().schema.item_columns["published_days"][0]
    last = float(network.features.last_day)

    def at(day: float, published_day: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits, and whether the items are not out yet."""
        asked, table = dense.clone(), items.clone()
        asked[:, now], table[:, :, published] = day, published_day
        with torch.no_grad():
            raw = network.features.raw_item(query, session, collaborative, asked, table, dynamic)
            logits: torch.Tensor = network(query, session, collaborative, asked, codes, table, dynamic)
        return logits, raw[:, _ITEM_FEATURES.index("unreleased")] > 0

    torch.testing.assert_close(at(last + 400.0, last - 50.0)[0], at(last + 30.0, last - 50.0)[0])
    assert not torch.allclose(at(last, last - 50.0)[0], at(last - 0.01, last - 50.0)[0], rtol=0, atol=0)
    # Whether an item is out yet is no matter of what training saw.
    assert at(last + 10.0, last + 100.0)[1].all()
    assert not at(last + 200.0, last + 100.0)[1].any()
