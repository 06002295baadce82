"""What a batch of catalogue changes may hold, item by item."""

import math

import pytest

from engine.contract.items import CatalogueRules, split_ids, split_items, split_levels
from engine.errors import InvalidRequest
from engine_client.requests import MAX_REQUEST_BYTES
from engine_client.v1 import catalog_pb2 as pb

RULES = CatalogueRules(frozenset({"home", "email"}), frozenset())


def item(**fields: object) -> pb.Item:
    return pb.Item(**({"item_id": "i", "title": "t"} | fields))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("bad", "field", "reason"),
    [
        (item(item_id=""), "item_id", "must not be empty"),
        (item(item_id="x" * 257), "item_id", "at most 256 bytes"),
        (item(title=""), "title", "must not be empty"),
        (item(title="x" * 513), "title", "at most 512 bytes"),
        (item(title="a\nb"), "title", "control characters"),
        (item(description="é" * 2049), "description", "at most 4096 bytes"),
        (item(category="x" * 257), "category", "at most 256 bytes"),
        (item(brand="\x00"), "brand", "control characters"),
        (item(price=-0.01), "price", "not negative, got -0.01"),
        (item(price=math.nan), "price", "finite"),
        (item(price=math.inf), "price", "finite"),
        (item(published={"seconds": 5_000_000_000}), "published", "1582 to 2100"),
        (item(attributes=["a", ""]), "attributes[1]", "must not be empty"),
        (item(attributes=["a|b"]), "attributes[0]", "must not hold '|'"),
        (item(attributes=["a"] * 33), "attributes", "at most 32"),
        (item(surfaces=["home", "nowhere"]), "surfaces[1]", "knows email, home"),
    ],
)
def test_one_bad_item_is_told_so_and_the_others_are_taken(bad: pb.Item, field: str, reason: str) -> None:
    good, errors = split_items([item(item_id="first"), bad, item(item_id="last")], RULES)
    assert [one.item_id for one in good] == ["first", "last"]
    assert [(error.index, error.item_id, error.field) for error in errors] == [(1, bad.item_id, field)]
    assert reason in errors[0].reason


def test_all_that_is_allowed_is_taken() -> None:
    full = item(
        description="two\nlines\t", category="c", brand="b", seller="s", price=0.0, published={"seconds": 0},
        in_stock=False, attributes=["a"] * 32, surfaces=["home", "email"],
    )  # fmt: skip
    assert split_items([full], RULES) == ([full], [])


def test_categories_can_be_closed() -> None:
    rules = CatalogueRules(RULES.surfaces, frozenset({"shoes"}))
    good, errors = split_items([item(category="shoes"), item(item_id="j", category="hats")], rules)
    assert [one.item_id for one in good] == ["i"]
    assert errors[0].field == "category"
    assert "'hats' is not one of the categories" in errors[0].reason


def test_an_id_that_comes_twice_counts_once() -> None:
    good, errors = split_levels([pb.StockLevel(item_id="a", in_stock=True), pb.StockLevel(item_id="a")])
    assert [level.in_stock for level in good] == [True]
    assert [(error.index, error.reason) for error in errors] == [(1, "occurs before in this batch")]
    assert split_ids(["a", "b", "a"])[0] == ["a", "b"]


@pytest.mark.parametrize("count", [0, 101])
def test_a_batch_has_a_size(count: int) -> None:
    with pytest.raises(InvalidRequest, match=f"items: must hold 1 to 100, got {count}"):
        split_items([item()] * count, RULES)
    with pytest.raises(InvalidRequest, match="levels: must hold 1 to 1000"):
        split_levels([pb.StockLevel()] * (count * 10))


def test_the_largest_batch_fits_into_a_message() -> None:
    full = item(
        item_id="x" * 256, title="x" * 512, description="x" * 4096, category="x" * 256, brand="x" * 256,
        seller="x" * 256, price=1.0, published={"seconds": 1}, in_stock=True, attributes=["x" * 64] * 32,
        surfaces=["x" * 64] * 8,
    )  # fmt: skip
    assert pb.UpsertItemsRequest(items=[full] * 100).ByteSize() < MAX_REQUEST_BYTES
