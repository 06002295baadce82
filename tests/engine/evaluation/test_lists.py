"""Lists by exact search, against sorting everything."""

import numpy as np
import pytest

from engine.app.model import load_embedders
from engine.bundle.bundle import open_bundle
from engine.bundle.store import BundleStore
from engine.evaluation.leave_one_out import leave_one_out, pipeline_name, popularity_lists, retrieval_lists
from engine.features.history import HistoryStates
from engine.types import Float32Array
from tests.conftest import Trained


@pytest.mark.parametrize("has_towers", [True, False])
def test_lists_hold_the_best_of_what_is_not_hidden_best_first(
    has_towers: bool, trained: Trained, factorized: BundleStore
) -> None:
    bundle = open_bundle((trained.bundles if has_towers else factorized).current())
    split = leave_one_out(trained.dataset)
    histories = split.train.histories()
    states = HistoryStates(split.users, histories.lengths()[split.users])
    embed, fold_in = load_embedders(bundle)
    codes = split.train.demographic_codes()
    popular = bundle.popularity.overall
    assert sorted(popular.rows.tolist()) == list(range(len(bundle.items)))
    shape = (len(split.users), len(bundle.items))
    scores: dict[str, Float32Array] = {
        "popularity": np.broadcast_to(popular.scores[np.argsort(popular.rows)], shape),
        "ALS": fold_in(histories, states, codes) @ bundle.column("collaborative").T,
    }
    if has_towers:
        scores["two-tower"] = embed(histories, states, codes) @ bundle.item_vectors.T
    found = {"popularity": popularity_lists(bundle, split), **retrieval_lists(bundle, split)}
    assert found.keys() == scores.keys()
    for method, lists in found.items():
        assert lists.shape == (len(split.users), 50)
        for place, line in enumerate(lists):
            offered = np.ones(len(bundle.items), np.bool_)
            offered[split.hidden_rows[split.hidden_places == place]] = False
            assert offered[line].all()
            assert len(set(line.tolist())) == 50
            best = np.sort(scores[method][place, offered])[::-1][:50]
            # Of equals any may come first.
            np.testing.assert_allclose(scores[method][place, line], best, rtol=1e-5, atol=1e-6)


def test_lists_of_the_pipeline_are_called_by_their_weight() -> None:
    assert [pipeline_name(weight) for weight in (0.0, 0.25)] == ["pipeline", "pipeline, MMR 0.25"]
