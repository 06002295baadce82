"""Live counts shown in what is served: whatever was shown before, only the latest counts hold."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.app.model import load_model
from engine.catalog.changes import Overlay
from engine.config.serving import EngineConfig
from engine.kernels.membership import test_rows as rows_in
from engine.request.model import ServingModel
from engine.stream.popularity import LIVE_WINDOWS, OVERALL
from engine.stream.trending import ItemCounts
from engine.types import item_keys
from tests.conftest import Trained
from tests.engine.catalog.items import upsert

NEW_BELOW = 10.0
FRESH = [f"new-{number}" for number in range(12)]
Make = Callable[[], ServingModel]
# Live counts of items, over the longest window; as often below NEW_BELOW as above it, and at it.
shown_counts = st.dictionaries(
    st.sampled_from([*FRESH, *range(0, 40, 3), "of another catalogue"]),
    st.sampled_from([0.5, 9.99, NEW_BELOW, 300.0]),
    max_size=20,
)


@pytest.fixture(scope="module")
def make(trained: Trained) -> Make:
    config = EngineConfig.load(catalog={"fresh_capacity": 16}, exploration={"max_interactions": NEW_BELOW})
    overlay = Overlay()
    overlay.add([upsert(name) for name in FRESH])

    def fresh_model() -> ServingModel:
        model = load_model(trained.bundles.current(), config)
        model.catalogue.apply(overlay.since(0), overlay.sequence)
        return model

    return fresh_model


def live(model: ServingModel, counts: dict[str | int, float]) -> ItemCounts:
    names = [name if isinstance(name, str) else model.bundle.items.ids(np.array([name]))[0] for name in counts]
    keys = item_keys(names)
    order = np.argsort(keys)
    # Half of it within a day, and a quarter within an hour.
    windows = np.array(list(counts.values()))[:, None] * np.array([0.25, 0.5, 1.0]) if counts else np.empty((0, 3))
    return ItemCounts(keys[order], windows[order])


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rounds=st.lists(shown_counts, min_size=1, max_size=3))
def test_counts_replace_those_of_before(rounds: list[dict[str | int, float]], make: Make) -> None:
    model = make()
    catalogue, popularity = model.catalogue, model.popularity
    told: list[set[int]] = []
    catalogue.row_listeners.append(lambda rows: told.append(set(rows.tolist())))
    bundle_counts = np.zeros_like(catalogue.item_dynamic)
    bundle_counts[: len(model.bundle.items)] = model.bundle.item_dynamic
    new_item_rows = np.arange(catalogue.row_count - catalogue.new_items.first_row)
    assert rows_in(popularity.new_rows, new_item_rows).all()
    for counts in rounds:
        before = catalogue.item_dynamic.copy()
        popularity.apply({OVERALL: live(model, counts)}, 50.0)
        expected, still_new = bundle_counts.copy(), np.ones(len(new_item_rows), np.bool_)
        for name, count in counts.items():
            row = name if isinstance(name, int) else int(catalogue.rows(item_keys([name]))[0])
            if row < 0:
                continue
            windows = count * np.array([0.25, 0.5, 1.0, 1.0, 1.0])
            expected[row] = np.maximum(expected[row], np.log1p(windows))
            if row >= catalogue.new_items.first_row:
                still_new[row - catalogue.new_items.first_row] = count < NEW_BELOW
        np.testing.assert_allclose(catalogue.item_dynamic, expected, rtol=1e-6)
        np.testing.assert_array_equal(rows_in(popularity.new_rows, new_item_rows), still_new)
        # Who keeps a copy of the counts hears of every row that is another one now.
        changed = set(np.flatnonzero((catalogue.item_dynamic != before).any(axis=1)).tolist())
        assert changed <= set().union(*told)
        told.clear()
    assert len(LIVE_WINDOWS) == 3
    # Without counts of anything the bundle is as it was.
    popularity.apply({OVERALL: live(model, {})}, 50.0)
    np.testing.assert_array_equal(catalogue.item_dynamic, bundle_counts)
    assert rows_in(popularity.new_rows, new_item_rows).all()
    assert popularity.lists is model.bundle.popularity


def test_the_scopes_are_those_of_the_bundles_lists(make: Make) -> None:
    model = make()
    assert model.popularity.scopes[0] == OVERALL
    assert len(model.popularity.scopes) == len(set(model.popularity.scopes)) > 1


def test_a_fresh_item_is_in_the_overall_list_by_its_live_counts(make: Make) -> None:
    """Which it was not in the bundle; nothing of the bundle's list is lost over it."""
    model = make()
    row = int(model.catalogue.rows(item_keys(["new-3"]))[0])
    model.popularity.apply({OVERALL: live(model, {"new-3": 10_000.0})}, 50.0)
    overall = model.popularity.lists.overall
    assert overall.rows[0] == row
    known = model.bundle.popularity.overall.rows
    np.testing.assert_array_equal(overall.rows[1:], known)
