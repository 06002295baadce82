"""An item of the API as a row of the table."""

from engine.catalog.content import COLUMNS, canonical, to_frame
from engine_client.v1 import catalog_pb2 as pb


def test_every_field_has_its_column_and_what_is_absent_is_null() -> None:
    full = pb.Item(
        item_id="full", title="A title", description="All about it", category="c", brand="b", seller="s", price=0.0,
        in_stock=False, attributes=["red", "sale"], surfaces=["home", "cart"],
    )  # fmt: skip
    full.published.seconds, full.published.nanos = 1_700_000_000, 987_654_321
    before_1970 = pb.Item(item_id="old")
    before_1970.published.seconds, before_1970.published.nanos = -2, 500_000_000
    frame = to_frame([full, pb.Item(item_id="bare", title="Bare"), before_1970])
    assert frame.columns == list(COLUMNS)
    rows = frame.to_dicts()
    assert rows[0] == {
        "item_id": "full", "title": "A title", "description": "All about it", "category": "c", "brand": "b",
        "seller": "s", "price": 0.0, "published_ms": 1_700_000_000_987, "in_stock": False, "attributes": "red|sale",
        "surfaces": "home|cart",
    }  # fmt: skip
    assert rows[1] == dict.fromkeys(COLUMNS) | {"item_id": "bare", "title": "Bare", "in_stock": True}
    assert rows[2]["published_ms"] == -1_500


def test_a_bundle_from_before_a_column_has_it_empty() -> None:
    frame = to_frame([pb.Item(item_id="a", title="A", brand="b")])
    assert canonical(frame.drop("seller")).equals(frame)
    assert canonical(frame.with_columns(more=1)).columns == list(COLUMNS)
