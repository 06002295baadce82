"""The Complete Journey files into canonical tables: on a few hand-written lines, and on the real ones."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from engine.data.build import load_dataset
from engine.data.tables import read_tables
from engine.errors import DataError
from engine_bench.datasets.completejourney import import_completejourney

TRANSACTIONS = """\
household_id,store_id,basket_id,product_id,quantity,sales_value,transaction_timestamp
1,9,100,11,2,6.0,2017-03-01 18:30:00
1,9,100,12,1,1.5,2017-03-01 18:30:00
2,9,101,11,1,5.0,2017-03-02 07:00:01
2,9,101,11,0,0.0,2017-03-02 07:00:01
3,9,102,11,-1,-4.0,2017-03-03 09:00:00
3,9,102,99,1,4.0,2017-03-03 09:00:00
"""
PRODUCTS = """\
product_id,manufacturer_id,department,brand,product_category,product_type,package_size
11,69,GROCERY,Private,BREAD,BREAD:ITALIAN/FRENCH,22 OZ
12,70,MISCELLANEOUS,National,,,
13,71,PRODUCE,National,TROPICAL FRUIT,BANANAS,
14,72,MISCELLANEOUS,National,,,
"""
DEMOGRAPHICS = "household_id,age,income\n1,65+,35-49K\n5,,Under 15K\n"


def write_source(directory: Path, **files: str | None) -> Path:
    directory.mkdir()
    texts = {"transactions_sample": TRANSACTIONS, "products": PRODUCTS, "demographics": DEMOGRAPHICS} | files
    for name, text in texts.items():
        if text is not None:
            (directory / f"{name}.csv").write_text(text)
    return directory


def test_lines_become_purchases(tmp_path: Path) -> None:
    imported = import_completejourney(write_source(tmp_path / "in"), tmp_path / "out")
    half_past_six = int(datetime(2017, 3, 1, 18, 30, tzinfo=UTC).timestamp()) * 1000
    events = read_tables(tmp_path / "out").interactions
    assert set(events["event_type"]) == {"purchase"}
    assert events.select("user_id", "item_id", "value", "session_id").rows() == [
        ("1", "11", 6.0, "100"), ("1", "12", 1.5, "100"), ("2", "11", 5.0, "101"),
    ]  # fmt: skip
    assert events["timestamp_ms"][0] == half_past_six
    assert imported.notes == (
        "2 lines without a positive quantity dropped",
        "local shop times are taken as UTC",
        "1 lines of products that are not in the product file dropped",
    )


def test_products_with_a_category_or_sales_become_items(tmp_path: Path) -> None:
    import_completejourney(write_source(tmp_path / "in"), tmp_path / "out")
    items = read_tables(tmp_path / "out").items
    assert items.select("item_id", "title", "category", "brand", "price", "attributes").rows() == [
        ("11", "Bread:Italian/French, 22 OZ", "Bread", "69", 4.0,
         "department:grocery|type:bread:italian/french|label:private"),
        ("12", "Product 12", None, "70", 1.5, "department:miscellaneous|label:national"),
        ("13", "Bananas", "Tropical Fruit", "71", None, "department:produce|type:bananas|label:national"),
    ]  # fmt: skip


def test_demographics_become_users_and_are_optional(tmp_path: Path) -> None:
    imported = import_completejourney(write_source(tmp_path / "in"), tmp_path / "out")
    assert imported.tables.users.rows() == [("1", "65+", None, None), ("5", None, None, None)]
    without = import_completejourney(write_source(tmp_path / "in2", demographics=None), tmp_path / "out2")
    assert without.tables.users.height == 0


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("products", None, "neither products.csv nor products.csv.gz is there"),
        ("products", PRODUCTS + "11,1,A,B,C,D,E\n", "products.csv: column 'product_id', row 5: appears a second time"),
        ("transactions_sample", TRANSACTIONS + "1,9,1,11,two,1,2017-03-01 18:30:00\n",
         "transactions_sample.csv: column 'quantity', row 7: not a whole number, found 'two'"),
        ("transactions_sample", TRANSACTIONS + "1,9,1,11,1,1,2017-02-30 18:30:00\n",
         "transactions_sample.csv: column 'transaction_timestamp', row 7: not a time like"),
        ("transactions_sample", TRANSACTIONS.replace("sales_value", "sales"), "column 'sales_value' is missing"),
        ("demographics", DEMOGRAPHICS + "1,19-24,\n",
         "demographics.csv: column 'household_id', row 3: appears a second time"),
    ],
)  # fmt: skip
def test_bad_file_is_named(tmp_path: Path, name: str, text: str | None, message: str) -> None:
    with pytest.raises(DataError) as caught:
        import_completejourney(write_source(tmp_path / "in", **{name: text}), tmp_path / "out")
    assert message in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.shared_data
def test_the_real_files(shared_data: Path, tmp_path: Path) -> None:
    imported = import_completejourney(shared_data / "completejourney", tmp_path)
    dataset = load_dataset(tmp_path)
    # 75,000 lines less 416 without a quantity and one of a product that the product file does not have.
    assert (len(dataset.interactions), dataset.item_count, dataset.user_count) == (74_583, 91_841, 2_373)
    assert imported.notes[0] == "416 lines without a positive quantity dropped"
    assert imported.tables.users.height == 801
    assert imported.tables.interactions["item_id"].n_unique() == dataset.items["price"].count() == 20_832
    assert len(dataset.vocabularies["age_group"]) == 6
