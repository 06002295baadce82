"""A bundle's catalogue with changes on top: what is shown, what is found, and that every order of work ends alike."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.app.model import load_model
from engine.bundle.store import BundleStore
from engine.catalog.changes import Change, ContentChange, Overlay, StockChange, VectorChange
from engine.catalog.live import LiveCatalogue
from engine.config.serving import EngineConfig
from engine.kernels.membership import pack_mask
from engine.kernels.membership import test_rows as rows_in
from engine.request.model import ServingModel
from engine.rules.load import parse_rules
from engine.types import item_key, item_keys
from tests.conftest import Trained
from tests.engine.catalog.items import remove, stock, upsert

SURFACES = ("home", "category", "cart", "email")
CAPACITY = 64
Make = Callable[[], ServingModel]


@pytest.fixture
def make(trained: Trained) -> Make:
    config = EngineConfig.load(catalog={"fresh_capacity": CAPACITY})
    return lambda: load_model(trained.bundles.current(), config)


@pytest.fixture
def catalogue(make: Make) -> LiveCatalogue:
    return make().catalogue


@dataclass
class Replica:
    """An overlay and the catalogue that follows it."""

    catalogue: LiveCatalogue
    overlay: Overlay = field(default_factory=Overlay)

    def follow(self, *changes: Change) -> None:
        self.overlay.add(changes)
        self.catalogue.apply(self.overlay.since(self.catalogue.sequence), self.overlay.sequence)


def shown(catalogue: LiveCatalogue, surface: str = "home") -> set[str]:
    """The ids of everything that may be shown."""
    rows = np.flatnonzero(rows_in(catalogue.of_surface(surface), np.arange(catalogue.row_count)))
    return set(catalogue.ids(rows))


def test_without_changes_it_is_the_bundle(catalogue: LiveCatalogue) -> None:
    items = catalogue.bundle.items
    for surface in SURFACES:
        expected = np.flatnonzero(
            rows_in(items.stock(), np.arange(len(items))) & rows_in(items.shown_on(surface), np.arange(len(items)))
        )
        assert shown(catalogue, surface) == set(items.ids(expected))
    np.testing.assert_array_equal(catalogue.item_table[: len(items)], catalogue.bundle.item_table)
    np.testing.assert_array_equal(catalogue.item_dynamic[: len(items)], catalogue.bundle.item_dynamic)


def test_a_new_item_is_shown_found_and_ranked(make: Make) -> None:
    model = make()
    replica = Replica(model.catalogue)
    replica.follow(upsert("new", category="c", price=5.0, surfaces=["home", "email"]))
    assert [surface for surface in SURFACES if "new" in shown(model.catalogue, surface)] == ["home", "email"]
    row = model.catalogue.rows(item_keys(["new"]))
    assert row[0] >= len(model.bundle.items)
    assert model.catalogue.ids(row) == ("new",)
    vector = model.catalogue.item_vectors[row[0]]
    assert np.linalg.norm(vector) > 0
    found, scores = model.index.search(np.array(vector), 600, model.catalogue.of_surface("home"))
    assert row[0] in found
    assert scores[found.tolist().index(row[0])] == pytest.approx(float(vector @ vector), rel=1e-5)
    names = model.bundle.schema.item_columns
    assert model.catalogue.item_table[row[0], names["log_price"][0]] == pytest.approx(np.log1p(5.0))
    assert model.catalogue.item_table[row[0], names["published_missing"][0]] == 1.0


def test_an_item_of_the_bundle_keeps_what_the_models_learned_of_it(catalogue: LiveCatalogue) -> None:
    replica = Replica(catalogue)
    known = catalogue.bundle.items.ids(np.array([7]))[0]
    before = catalogue.item_table[7].copy()
    fresh = catalogue.new_items.count
    replica.follow(upsert(known, price=123.0))
    assert catalogue.new_items.count == fresh
    start = catalogue.bundle.schema.item_columns["log_price"][0]
    assert catalogue.item_table[7, start] == pytest.approx(np.log1p(123.0))
    np.testing.assert_array_equal(
        catalogue.item_table[7, : catalogue.bundle.schema.embedding_dim],
        before[: catalogue.bundle.schema.embedding_dim],
    )
    # Nothing of it reaches the file or another server's tables.
    assert catalogue.bundle.item_table[7, start] == before[start]


def test_stock_and_removal(catalogue: LiveCatalogue) -> None:
    replica = Replica(catalogue)
    known = sorted(shown(catalogue))[0]
    replica.follow(stock(known, False), upsert("new"), stock("later", False))
    assert known not in shown(catalogue)
    replica.follow(stock(known, True), remove("new"), upsert("later"))
    assert known in shown(catalogue)
    assert not {"new", "later"} & shown(catalogue)
    replica.follow(upsert("new"), stock("later", True), remove(known), remove("never there"))
    assert {"new", "later"} <= shown(catalogue)
    assert known not in shown(catalogue)
    replica.follow(upsert(known))
    assert known in shown(catalogue)


def test_rules_that_are_set_anew_change_nothing_of_what_the_overlay_says(catalogue: LiveCatalogue) -> None:
    replica = Replica(catalogue)
    sold_out, moved, gone, *_ = sorted(set.intersection(*(shown(catalogue, surface) for surface in SURFACES)))
    replica.follow(
        stock(sold_out, False), upsert(moved, surfaces=["email"]), remove(gone), upsert("new", surfaces=["home"])
    )
    before = {surface: shown(catalogue, surface) for surface in SURFACES}
    assert "new" in before["home"] - before["email"]
    assert moved in before["email"] - before["home"]
    assert not {sold_out, gone} & set.union(*before.values())
    catalogue.set_rules(catalogue.compile_rules(catalogue.rules.rules))
    assert {surface: shown(catalogue, surface) for surface in SURFACES} == before


def test_what_comes_later_is_judged_by_the_rules_that_were_set(catalogue: LiveCatalogue) -> None:
    rules = b"version: 1\nrules: [{name: gone, action: deny, items: {category: banned}}]"
    compiled = catalogue.compile_rules(parse_rules(rules, "rules.yaml", SURFACES))
    catalogue.set_rules(compiled)
    assert catalogue.rules is compiled
    replica = Replica(catalogue)
    replica.follow(upsert("new", category="banned"), upsert("other", category="welcome"))
    assert shown(catalogue) & {"new", "other"} == {"other"}
    replica.follow(upsert("new", category="welcome"), upsert("other", category="banned"))
    assert shown(catalogue) & {"new", "other"} == {"new"}


def test_every_item_of_the_bundle_and_every_fresh_one_is_known(catalogue: LiveCatalogue) -> None:
    Replica(catalogue).follow(*(upsert(f"new-{number}") for number in range(11)))
    count = len(catalogue.bundle.items)
    rows = np.concatenate([np.arange(count), catalogue.new_items.first_row + np.arange(11)])
    keys = item_keys(list(catalogue.ids(rows)))
    assert not any(catalogue.unknown(keys))
    np.testing.assert_array_equal(catalogue.rows(keys), rows)
    # And nothing else is an item: neither what fills up a byte between the two, nor the room that is left.
    items = catalogue.visibility.items(catalogue.new_items)
    assert len(items) * 8 == catalogue.row_count
    np.testing.assert_array_equal(np.flatnonzero(rows_in(items, np.arange(catalogue.row_count))), rows)


def test_fresh_items_fill_an_answer_that_is_short_and_beat_no_better_ones(make: Make) -> None:
    model = make()
    catalogue = model.catalogue
    Replica(catalogue).follow(*(upsert(f"new-{number}", category=f"c{number}") for number in range(5)))
    first = catalogue.new_items.first_row
    # The latest comes first.
    assert catalogue.new_items.newest_first().tolist() == [first + 4, first + 3, first + 2, first + 1, first]
    rows = np.array([3, 50, 200, *range(first, first + 5)])
    mask = np.zeros(catalogue.row_count, np.bool_)
    mask[rows] = True
    for sign in (1, -1):
        query = sign * np.array(catalogue.item_vectors[3])
        ranked = rows[np.argsort(-(catalogue.item_vectors[rows] @ query), kind="stable")]
        for k in (1, 2, 7, 8, 60):
            found, scores = model.index.search(query, k, pack_mask(mask))
            assert set(found.tolist()) == set(ranked[:k].tolist())
            assert (np.diff(scores) <= 0).all()


def test_nobody_writes_into_what_requests_read(catalogue: LiveCatalogue) -> None:
    with pytest.raises(ValueError, match="read-only"):
        catalogue.of_surface("home")[0] = 255


def test_what_the_overlay_forgets_is_as_the_bundle_says(catalogue: LiveCatalogue) -> None:
    replica = Replica(catalogue)
    everything = {surface: shown(catalogue, surface) for surface in SURFACES}
    table = catalogue.item_table.copy()
    known = sorted(everything["home"])[0]
    replica.follow(upsert(known, price=9.0, surfaces=["email"]), upsert("new"), stock(known, False))
    replica.overlay.replace([])
    replica.follow()
    assert {surface: shown(catalogue, surface) for surface in SURFACES} == everything
    np.testing.assert_array_equal(
        catalogue.item_table[: len(catalogue.bundle.items)], table[: len(catalogue.bundle.items)]
    )


def test_more_new_items_than_there_is_room_for(catalogue: LiveCatalogue, caplog: pytest.LogCaptureFixture) -> None:
    replica = Replica(catalogue)
    assert catalogue.spare_capacity == CAPACITY
    replica.follow(upsert("new-0"))
    assert not caplog.records
    replica.follow(*(upsert(f"new-{number}") for number in range(CAPACITY + 10)))
    assert catalogue.spare_capacity == 0
    assert "no capacity for 10 new items" in caplog.text
    assert len({item for item in shown(catalogue) if item.startswith("new-")}) == CAPACITY
    assert catalogue.unknown(item_keys(["new-0", "another"])) == [False, True]
    replica.follow(upsert("new-1", surfaces=["email"]), stock("new-2", False))
    assert not {"new-1", "new-2"} & shown(catalogue)


def test_moved_vectors_are_searched_in_their_own_space_alone(make: Make) -> None:
    model = make()
    replica = Replica(model.catalogue)
    dim, generation = model.index.dim, model.bundle.manifest.generation
    vector = np.full(dim, 2.0, np.float32)
    replica.follow(upsert("new"))
    content = model.catalogue.item_vectors[model.catalogue.rows(item_keys(["new"]))[0]].copy()
    replica.follow(VectorChange(item_key("new"), generation + 1, vector))
    row = int(model.catalogue.rows(item_keys(["new"]))[0])
    np.testing.assert_array_equal(model.catalogue.item_vectors[row], content)
    replica.follow(VectorChange(item_key("new"), generation, vector))
    np.testing.assert_array_equal(model.catalogue.item_vectors[row], vector)
    found, _ = model.index.search(vector, 1, model.catalogue.of_surface("home"))
    assert found.tolist() == [row]


IDS = [f"new-{number}" for number in range(6)]
a_change = st.one_of(
    st.builds(
        upsert,
        st.sampled_from(IDS),
        category=st.sampled_from(["", "a", "b"]),
        price=st.floats(0, 1e6),
        surfaces=st.lists(st.sampled_from(SURFACES), unique=True, max_size=2),
    ),
    st.builds(remove, st.sampled_from(IDS)),
    st.builds(stock, st.sampled_from(IDS), st.booleans()),
)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(a_change, max_size=25),
    known=st.lists(st.tuples(st.integers(0, 50), st.integers(0, 3)), max_size=10),
    data=st.data(),
)
def test_replicas_converge_however_the_changes_reach_them(
    changes: list[Change], known: list[tuple[int, int]], data: st.DataObject, make: Make
) -> None:
    one, other, late = (Replica(make().catalogue) for _ in range(3))
    ids = one.catalogue.bundle.items.ids(np.arange(51))
    ways = (upsert, remove, lambda item: stock(item, False), lambda item: stock(item, True))
    changes = data.draw(st.permutations([*changes, *(ways[way](ids[row]) for row, way in known)]))
    for change in changes:
        one.follow(change)
    cut = data.draw(st.integers(0, len(changes)))
    other.follow(*changes[:cut])
    # Twice, as a follower that starts with a snapshot may meet them.
    other.follow(*changes[max(0, cut - 3) :])
    late.follow(*_as_stored(changes))
    for replica in (other, late):
        for surface in SURFACES:
            assert (
                shown(replica.catalogue, surface) == shown(one.catalogue, surface) == _expected(one, changes, surface)
            )
        for item in [*IDS, *ids]:
            rows = [catalogue.rows(item_keys([item]))[0] for catalogue in (one.catalogue, replica.catalogue)]
            if item in shown(one.catalogue):
                # Close, and not equal: a matrix product may add up in another order for another number of items.
                np.testing.assert_allclose(
                    one.catalogue.item_table[rows[0]], replica.catalogue.item_table[rows[1]], rtol=1e-4, atol=1e-6
                )


def _as_stored(changes: list[Change]) -> Iterator[Change]:
    """What a store keeps: the last content and the last stock of each item."""
    last: dict[tuple[type, int], Change] = {(type(change), change.key): change for change in changes}
    return iter(last.values())


def _expected(replica: Replica, changes: list[Change], surface: str) -> set[str]:
    """An obvious oracle: item by item, from the last change of each kind."""
    items = replica.catalogue.bundle.items
    names = {item_key(item): item for item in [*IDS, *items.ids(np.arange(len(items)))]}
    rows = {item_key(item): row for row, item in enumerate(items.ids(np.arange(len(items))))}
    in_stock, on_surface = items.stock(), items.shown_on(surface)
    expected = set()
    for key, name in names.items():
        contents = [change.stored for change in changes if isinstance(change, ContentChange) and change.key == key]
        stocks = [change.in_stock for change in changes if isinstance(change, StockChange) and change.key == key]
        row = np.array([rows.get(key, -1)])
        here, there = bool(rows_in(on_surface, row)[0]), key not in rows or bool(rows_in(in_stock, row)[0])
        if contents:
            here = not contents[-1].removed and (
                not contents[-1].item.surfaces or surface in contents[-1].item.surfaces
            )
        if here and (stocks[-1] if stocks else there):
            expected.add(name)
    return expected


def test_readers_never_see_half_a_new_item(make: Make) -> None:
    model = make()
    replica = Replica(model.catalogue)
    query = np.array(model.bundle.item_vectors[0])
    done: list[int] = []

    def read() -> int:
        count = 0
        while not done:
            rows, scores = model.index.search(query, 50, model.catalogue.of_surface("home"))
            assert np.isfinite(scores).all()
            assert len(model.catalogue.ids(rows)) == len(rows)
            count += 1
        return count

    with ThreadPoolExecutor(2) as threads:
        readers = [threads.submit(read) for _ in range(2)]
        for number in range(CAPACITY):
            replica.follow(upsert(f"new-{number}"), stock(f"new-{number - 3}", number % 2 == 0))
        done.append(1)
        assert all(reader.result() for reader in readers)


def test_a_factorization_gives_new_items_their_category(trained: Trained, factorized: BundleStore) -> None:
    model = load_model(factorized.current(), EngineConfig.load())
    replica = Replica(model.catalogue)
    categories = np.array(trained.dataset.items["category"].to_list())
    replica.follow(upsert("new", category=str(categories[0])), upsert("strange", category="?"), upsert("plain"))
    rows = model.catalogue.rows(item_keys(["new", "strange", "plain"]))
    vectors = model.bundle.item_vectors
    np.testing.assert_allclose(
        model.catalogue.item_vectors[rows[0]], vectors[categories == categories[0]].mean(axis=0), atol=1e-5
    )
    np.testing.assert_allclose(model.catalogue.item_vectors[rows[1]], vectors.mean(axis=0), atol=1e-5)
    np.testing.assert_array_equal(model.catalogue.item_vectors[rows[1]], model.catalogue.item_vectors[rows[2]])
