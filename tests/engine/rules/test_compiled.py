"""Bitmaps and groups against one item at a time, and what a request gets of them."""

import threading
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.kernels.membership import pack_mask
from engine.kernels.membership import test_rows as rows_in  # under its own name pytest would collect it
from engine.rules.active import ActiveRules
from engine.rules.compiled import CompiledRules
from engine.rules.schema import Rules
from tests.engine.rules.files import SURFACES, catalogues, items_of, rules_of
from tests.engine.rules.naive import matches

NOW_MS = 1_780_000_000_000

_values = st.lists(st.sampled_from(["a", "b", "c", "ab", "a.", "*", "zz"]), min_size=1, max_size=3)
_prices = st.sampled_from(
    [{"min": 0}, {"max": 0}, {"min": 1, "max": 2.5}, {"max": 9.99}, {"min": 2.5, "max": 2.5}, {"min": 10.5}]
)
_leaves: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        "category": _values,
        "brand": _values.map(lambda values: values[0]),
        "seller": _values,
        "attribute": _values,
        "price": _prices,
        "item_ids": st.lists(st.integers(0, 45).map(lambda index: f"i{index}"), min_size=1, max_size=30),
    },
).filter(bool)
selectors = st.recursive(
    _leaves,
    lambda inner: st.tuples(
        st.one_of(st.just({}), _leaves),
        st.fixed_dictionaries(
            {},
            optional={
                "not": inner,
                "any_of": st.lists(inner, min_size=1, max_size=3),
                "all_of": st.lists(inner, min_size=1, max_size=3),
            },
        ).filter(bool),
    ).map(lambda parts: {**parts[0], **parts[1]}),
    max_leaves=6,
)


def rules_about(*pieces: tuple[str, dict[str, Any]]) -> Rules:
    """Rules of an action's text and a selector each; YAML reads Python's dicts and texts as its own."""
    return rules_of("\n".join(f"- {{name: r{i}, {text}, items: {items!r}}}" for i, (text, items) in enumerate(pieces)))


def let_through(active: ActiveRules, rows: np.ndarray) -> np.ndarray:
    """Which of the rows deny and allow rules let through."""
    bitmap = np.full(int(rows.max()) // 8 + 1, 0xFF, np.uint8)
    active.restrict(bitmap)
    return rows_in(bitmap, rows)


def everything(rules: CompiledRules, rows: np.ndarray) -> list[Any]:
    """All that requests can see, on every surface and for two kinds of users."""
    seen: list[Any] = []
    for surface in SURFACES:
        for country in ("", "DE"):
            active = rules.for_request(surface, country=country, time_ms=NOW_MS)
            bitmap = np.full((rules.capacity + 7) // 8, 0xFF, np.uint8)
            active.restrict(bitmap)
            weights = active.factors(rows)
            # Codes are only equal or different; they become the first place where each occurs.
            caps = [[cap.codes.tolist().index(code) if code >= 0 else -1 for code in cap.codes.tolist()]
                    for cap in active.caps(rows)]  # fmt: skip
            seen.append((
                rows_in(rules.surface_bitmap(surface), rows).tolist(), rows_in(bitmap, rows).tolist(),
                None if weights is None else weights.tolist(), caps,
                [one.members.tolist() for one in active.min_shares(rows)], active.touching(rows),
                [one.members.tolist() for one in active.slots(rows)],
            ))  # fmt: skip
    return seen


@settings(deadline=None, max_examples=150)
@given(catalogues, selectors)
def test_selectors_against_one_item_at_a_time(rows: list[dict[str, Any]], selector: dict[str, Any]) -> None:
    rules = CompiledRules(rules_about(("action: deny", selector)), items_of(rows), len(rows) + 9)
    expected = [matches(selector, row) for row in rows]
    every = np.arange(len(rows) + 9)
    active = rules.for_request("home", time_ms=NOW_MS)
    assert let_through(active, every).tolist() == [not one for one in expected] + [True] * 9
    assert active.touching(every) == [["r0"] if one else [] for one in [*expected, *[False] * 9]]
    by_id = [rules.rules.rules[0].items.decided_by_id(row["item_id"]) for row in rows]  # type: ignore[union-attr]
    assert all(told in (None, one) for told, one in zip(by_id, expected, strict=True))


@pytest.mark.parametrize(
    "selector",
    [
        *({"price": price} for price in (
            {"min": 0}, {"max": 0}, {"min": 1}, {"max": 1}, {"min": 1, "max": 2.5}, {"min": 2.5, "max": 2.5},
            {"min": 10.5},
        )),
        *({key: value} for key in ("category", "brand", "seller", "attribute") for value in ("a", ["b", "zz"])),
        {"item_ids": ["i0", "i7"]},
        {"not": {"price": {"max": 2.5}}},
    ],
    ids=str,
)  # fmt: skip
def test_each_key_alone_against_one_item_at_a_time(selector: dict[str, Any]) -> None:
    """Of several keys at random hardly an item matches all, and nobody would miss one of them."""
    values, prices = [None, "a", "b", "zz"], [None, 0.0, 1.0, 2.5, 10.0]
    rows = [
        {
            "item_id": f"i{place}",
            "price": price,
            **dict.fromkeys(("category", "brand", "seller", "attributes"), value),
        }
        for place, (value, price) in enumerate((value, price) for value in values for price in prices)
    ]
    expected = [matches(selector, row) for row in rows]
    active = CompiledRules(rules_about(("action: deny", selector)), items_of(rows), len(rows)).for_request(
        "home", time_ms=NOW_MS
    )
    assert (~let_through(active, np.arange(len(rows)))).tolist() == expected


@settings(deadline=None, max_examples=25)
@given(catalogues, catalogues, st.lists(selectors, min_size=8, max_size=8), st.randoms(use_true_random=False))
def test_updating_rows_is_building_anew(
    before: list[dict[str, Any]], after: list[dict[str, Any]], chosen: list[dict[str, Any]], random: Any
) -> None:
    rules = rules_about(
        ("action: deny", chosen[0]),
        ("action: deny, when: {country: DE}", chosen[1]),
        ("action: allow, surfaces: [home, cart]", chosen[2]),
        ("action: allow, surfaces: cart, when: {country: DE}", chosen[3]),
        ("action: boost, factor: 2", chosen[4]),
        ("action: bury, factor: 0.25, when: {country: DE}", chosen[4]),
        ("action: cap, by: seller, limit: 2, window: 5", chosen[5]),
        ("action: min_share, share: 0.5", chosen[6]),
        ("action: slot, position: 3", chosen[7]),
    )
    capacity = len(before) + 12
    every = np.arange(capacity)
    compiled = CompiledRules(rules, items_of(before), capacity)
    # The rows past the old ones are filled up without a gap, so that a rebuild can have the same.
    rows = list(range(len(before)))
    changed = dict(zip(random.sample(rows, min(len(rows), len(after))), after, strict=False))
    changed |= dict(zip(range(len(before), capacity), after, strict=False))
    compiled.update_rows(np.array(list(changed), np.int64), items_of(list(changed.values())))
    final = [changed.get(row, before[row] if row < len(before) else None) for row in range(capacity)]
    rebuilt = CompiledRules(rules, items_of([row for row in final if row is not None]), capacity)
    assert everything(compiled, every) == everything(rebuilt, every)


ITEMS = items_of(
    [
        {"item_id": "a", "brand": "x", "category": "c"},
        {"item_id": "b", "brand": "y", "category": "c"},
        {"item_id": "c", "brand": "x", "category": "d"},
        {"item_id": "d"},
    ]
)
ROWS = np.arange(4)


def test_what_a_request_gets() -> None:
    rules = CompiledRules(
        rules_of(
            """
            - {name: strong, action: boost, factor: 3, items: {brand: x}}
            - {name: weak, action: bury, factor: 0.5, items: {category: c}}
            - {name: abroad, action: boost, factor: 10, items: {brand: x}, when: {country_not: DE}}
            - {name: brands, action: cap, by: brand, limit: 2, window: 5}
            - {name: c brands, action: cap, by: brand, limit: 1, items: {category: c}, surfaces: home}
            - {name: first, action: pin, item_id: d, position: 1}
            - {name: third, action: slot, position: 3, items: {category: d}}
            - {name: some x, action: min_share, share: 0.4, items: {brand: x}}
            """
        ),
        ITEMS,
    )
    active = rules.for_request("home", country="de", time_ms=NOW_MS)
    factors = active.factors(ROWS)
    assert factors is not None
    assert factors.dtype == np.float32
    assert factors.tolist() == [1.5, 0.5, 3.0, 1.0]
    everywhere, in_c = active.caps(np.array([3, 2, 1, 0, -1]))
    assert (everywhere.name, everywhere.limit, everywhere.window) == ("brands", 2, 5)
    none, x, y, again_x, stranger = everywhere.codes.tolist()
    assert none == stranger == -1
    assert x == again_x
    assert len({-1, x, y}) == 3
    assert everywhere.codes.dtype == np.int32
    assert (in_c.codes.tolist(), in_c.limit, in_c.window) == ([-1, -1, y, x, -1], 1, None)
    assert [(pin.name, pin.position, pin.item_id) for pin in active.pins] == [("first", 1, "d")]
    [slot] = active.slots(ROWS)
    assert (slot.name, slot.position, slot.members.tolist()) == ("third", 3, [False, False, True, False])
    [share] = active.min_shares(ROWS)
    assert (share.name, share.share, share.members.tolist()) == ("some x", 0.4, [True, False, True, False])
    assert active.touching(ROWS[:1]) == [["strong", "weak", "brands", "c brands", "some x"]]
    abroad = rules.for_request("cart", country="FR", time_ms=NOW_MS)
    assert abroad.factors(ROWS).tolist() == [15.0, 0.5, 30.0, 1.0]  # type: ignore[union-attr]
    assert [cap.name for cap in abroad.caps(ROWS)] == ["brands"]
    with pytest.raises(KeyError):
        rules.for_request("shop", time_ms=NOW_MS)


def allowed(rules: CompiledRules, surface: str = "home", **known: str) -> str:
    """The ids that get through, by row and by bitmap, with and without the surface's part done before."""
    active = rules.for_request(surface, time_ms=NOW_MS, **known)  # type: ignore[arg-type]
    whole, rest = np.full(1, 0xFF, np.uint8), rules.surface_bitmap(surface).copy()
    active.restrict(whole)
    active.restrict(rest, surface_applied=True)
    through = rows_in(whole, ROWS)
    assert through.tolist() == rows_in(rest, ROWS).tolist()
    explained = [rows_in(whole | 0xFF, ROWS), *(rows_in(bitmap, ROWS) for _, bitmap in active.restrictions())]
    assert np.logical_and.reduce(explained).tolist() == through.tolist()
    return "".join(name for name, kept in zip("abcd", through, strict=True) if kept)


def test_allow_rules_add_up_and_deny_rules_win() -> None:
    rules = CompiledRules(
        rules_of(
            """
            - {name: x, action: allow, surfaces: [home, email], items: {brand: x}}
            - {name: y at night, action: allow, surfaces: [email, cart], items: {brand: y}, when: {device: tv}}
            - {name: z, action: allow, surfaces: email, items: {item_ids: d}, when: {country: DE}}
            - {name: no d, action: deny, items: {category: d}}
            - {name: grown up, action: deny, items: {item_ids: a}, when: {age_group_not: "18+"}}
            - {name: up, action: boost, factor: 2, items: {brand: y}}
            """
        ),
        ITEMS,
    )
    assert allowed(rules) == ""
    assert allowed(rules, age_group="18+") == "a"
    assert allowed(rules, age_group="0-17") == ""
    assert allowed(rules, "email", age_group="18+") == "a"
    assert allowed(rules, "email", age_group="18+", device="tv") == "ab"
    assert allowed(rules, "email", age_group="18+", device="tv", country="DE") == "abd"
    assert allowed(rules, "cart", age_group="18+") == "abd"
    assert allowed(rules, "cart", age_group="18+", device="tv") == "b"
    assert allowed(rules, "category") == "bd"
    active = rules.for_request("home", time_ms=NOW_MS)
    assert [(name, rows_in(bitmap, ROWS).tolist()) for name, bitmap in active.restrictions()] == [
        ("no d", [True, True, False, True]),
        ("grown up", [False, True, True, True]),
        ("x", [True, False, True, False]),
    ]
    at_night = rules.for_request("email", device="tv", time_ms=NOW_MS).restrictions()
    assert [name for name, _ in at_night] == ["no d", "grown up", "x|y at night"]
    bitmap = rules.surface_bitmap("home")
    assert rows_in(bitmap, ROWS).tolist() == [True, False, False, False]
    assert not bitmap.flags.writeable
    rules.update_rows(np.array([3]), ITEMS.filter(item_id="a"))
    assert rows_in(bitmap, ROWS).tolist() == [True, False, False, True]
    assert allowed(rules) == ""
    assert allowed(rules, age_group="18+") == "ad"


def test_no_rules_let_everything_through() -> None:
    rules = CompiledRules(Rules.none(SURFACES), ITEMS)
    assert allowed(rules) == "abcd"
    active = rules.for_request("home", time_ms=NOW_MS)
    assert active.factors(ROWS) is None
    assert (active.caps(ROWS), active.min_shares(ROWS), active.slots(ROWS), active.pins) == ((), (), (), ())


def test_many_boosts_stay_finite() -> None:
    boosts = [(f"action: {kind}", {"brand": "x" if kind == "boost, factor: 100" else "y"})
              for kind in ("boost, factor: 100", "bury, factor: 0.01") for _ in range(200)]  # fmt: skip
    factors = CompiledRules(rules_about(*boosts), ITEMS).for_request("home", time_ms=NOW_MS).factors(ROWS)
    assert factors is not None
    np.testing.assert_allclose(factors, [1e6, 1e-6, 1e6, 1.0])


def test_older_tables_have_no_seller() -> None:
    rules = rules_of("- {name: s, action: deny, items: {seller: s}}\n- {name: c, action: cap, by: seller, limit: 1}")
    active = CompiledRules(rules, ITEMS.drop("seller")).for_request("home", time_ms=NOW_MS)
    assert let_through(active, ROWS).all()
    assert active.caps(ROWS)[0].codes.tolist() == [-1] * 4


def test_what_does_not_fit_is_refused_and_changes_nothing() -> None:
    rules = CompiledRules(rules_of("- {name: d, action: deny, items: {brand: x}}"), ITEMS, 5)
    before = rules.surface_bitmap("home").copy()
    two = ITEMS.head(2)
    for rows, reason in (([1], "1 rows for 2"), ([1, 5], "capacity"), ([-1, 1], "capacity"), ([3, 3], "twice")):
        with pytest.raises(ValueError, match=reason):
            rules.update_rows(np.array(rows), two)
    rules.update_rows(np.empty(0, np.int64), ITEMS.head(0))
    np.testing.assert_array_equal(rules.surface_bitmap("home"), before)
    with pytest.raises(ValueError, match="capacity of 3"):
        CompiledRules(rules.rules, ITEMS, 3)
    with pytest.raises(ValueError, match="longer"):
        rules.for_request("home", time_ms=NOW_MS).restrict(np.zeros(2, np.uint8))


def test_rules_with_the_same_selector_share_a_bitmap() -> None:
    rules = CompiledRules(
        rules_about(
            ("action: boost, factor: 2", {"brand": ["x", "y"]}), ("action: slot, position: 1", {"brand": ["y", "x"]})
        ),
        ITEMS,
    )
    first, second = rules.for_request("home", time_ms=NOW_MS).rules
    assert first.members is second.members


def test_readers_see_rows_that_do_not_change_unharmed() -> None:
    """Every other row changes all the time; readers must never see its neighbours in the same byte flicker."""
    count = 4096
    items = pl.DataFrame({"item_id": [f"i{row}" for row in range(count)], "brand": ["x", "y"] * (count // 2)})
    rules = CompiledRules(
        rules_about(("action: deny", {"brand": "x"}), ("action: deny, when: {country: DE}", {"brand": ["x", "z"]})),
        items,
    )
    still = np.arange(0, count, 2)
    moving = np.arange(1, count, 2)
    expected_clear = pack_mask(np.arange(count) % 2 == 0)
    failures: list[str] = []
    done = threading.Event()

    def read() -> None:
        try:
            while not done.is_set():
                active = rules.for_request("home", country="DE", time_ms=NOW_MS)
                bitmap = np.full(count // 8, 0xFF, np.uint8)
                active.restrict(bitmap)
                if (bitmap & expected_clear).any() or let_through(active, still).any():
                    failures.append("a denied row was let through")
        except Exception as error:
            failures.append(repr(error))

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for turn in range(100):
        brand = "xz"[turn % 2]
        rules.update_rows(moving, items[moving].with_columns(brand=pl.lit(brand)))
    done.set()
    for reader in readers:
        reader.join()
    assert failures == []
