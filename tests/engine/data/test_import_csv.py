"""A shop's export by its mapping: numbers, times, types, guests, returns, and everything that is wrong at once."""

import gzip
from dataclasses import replace
from pathlib import Path

import pytest

from engine.data.import_csv import ImportRefused, import_csv
from engine.data.mapping import Mapping
from engine.data.rules import TableRules
from engine.data.tables import Imported, read_tables
from engine.errors import ConfigError

RULES = TableRules.default()
MAPPING = """
[events.columns]
user_id = "who"
item_id = "what"
time = "when"
quantity = "many"
price = "each"
"""
HEADER = "who,what,when,many,each\n"


def run(
    home: Path, lines: str, mapping: str = MAPPING, skip: int = 0, encoding: str = "utf-8", **others: str
) -> Imported:
    home.mkdir(exist_ok=True)
    (home / "m.toml").write_text(mapping)
    files = {"orders": lines} | others
    for name, text in files.items():
        (home / f"{name}.csv").write_bytes(text.encode(encoding))
    paths = [home / f"{name}.csv" for name in files]
    return import_csv(paths, home / "out", Mapping.load(home / "m.toml"), replace(RULES, skip_bad_rows=skip))


def refusal(home: Path, lines: str, mapping: str = MAPPING, **options: int) -> list[str]:
    with pytest.raises(ImportRefused) as refused:
        run(home, lines, mapping, **options)
    assert not (home / "out").exists()
    return [str(fault).removeprefix(f"{home}/") for fault in refused.value.faults]


def events(imported: Imported) -> list[tuple[object, ...]]:
    names = ("user_id", "item_id", "event_type", "timestamp_ms", "value")
    return imported.tables.interactions.select(names).rows()


def test_lines_become_purchases_and_returns_with_their_value(tmp_path: Path) -> None:
    """Case 07-returned-goods-count-as-bought: goods sent back are no purchase."""
    lines = (
        "u1,a,2026-01-02T03:04:05Z,2,2.50\nu1,a,2026-01-02T04:00:00Z,-2,2.50\nu2,b,2026-01-03,0,1\nu2,b,2026-01-03,,9\n"
    )
    imported = run(tmp_path, HEADER + lines)
    assert events(imported) == [
        ("u1", "a", "purchase", 1_767_323_045_000, 5.0),
        ("u1", "a", "return", 1_767_326_400_000, 5.0),
        ("u2", "b", "purchase", 1_767_398_400_000, 9.0),
    ]
    assert read_tables(tmp_path / "out").items["item_id"].to_list() == ["a", "b"]
    assert any("1 lines below zero are returns" in note for note in imported.notes)
    assert any("quantity 0" in note for note in imported.notes)


@pytest.mark.parametrize(
    ("form", "written", "wanted"),
    [
        ("", "1234.5", 1234.5),
        ("", "€ 12.50", 12.5),
        ('decimal = ","', "1234,5", 1234.5),
        ('decimal = ","\nthousands = "."', "1.234,50", 1234.5),
        ('decimal = ","\nthousands = "."', "1.234.567", 1_234_567.0),
        ('decimal = ","\nthousands = " "', "1 234,50 €", 1234.5),
        ('decimal = "."\nthousands = ","', "1,234.50", 1234.5),
        ('thousands = "\'"', "1'234.50", 1234.5),
        ('decimal = ","\nthousands = "."', "1.5", None),
        ('decimal = ","', "1.5", None),
        ("", "1,5", None),
        ("", "1.234.567", None),
        ("", "free", None),
        ("", "0x10", None),
        ("", "NaN", None),
        ("", "inf", None),
    ],
)
def test_a_number_is_read_in_one_way_or_refused(tmp_path: Path, form: str, written: str, wanted: float | None) -> None:
    mapping = f'{MAPPING}\n[format]\nseparator = ";"\n{form}\n'
    lines = HEADER.replace(",", ";") + f"u;a;2026-01-02T00:00:00Z;1;{written}\n"
    if wanted is None:
        [fault] = refusal(tmp_path, lines, mapping)
        assert fault.startswith("orders.csv: column 'each', row 1: not a number as [format] has them")
        assert repr(written) in fault
    else:
        assert events(run(tmp_path, lines, mapping))[0][4] == wanted


@pytest.mark.parametrize(
    ("form", "written", "wanted"),
    [
        ("", "2026-06-01T12:00:00Z", 1_780_315_200_000),
        ("", "2026-06-01 12:00:00", 1_780_315_200_000),
        ("", "2026-06-01T12:00", 1_780_315_200_000),
        ("", "2026-06-01T12:00:00.250+02:00", 1_780_308_000_250),
        ("", "2026-06-01T12:00:00-0330", 1_780_327_800_000),
        ("", "2026-06-01T12:00:00 +02", 1_780_308_000_000),
        ("", "2026-06-01", 1_780_272_000_000),
        ('zone = "Europe/Berlin"', "2026-06-01T12:00:00", 1_780_308_000_000),
        ('zone = "Europe/Berlin"', "2026-01-15T12:00:00", 1_768_474_800_000),
        ('zone = "Europe/Berlin"', "2026-06-01T12:00:00Z", 1_780_315_200_000),
        ('zone = "Europe/Berlin"', "2026-03-29T02:30:00", 1_774_747_800_000),
        ('zone = "Europe/Berlin"', "2025-10-26T02:30:00", 1_761_438_600_000),
        ("", "1780315200", 1_780_315_200_000),
        ("", "1780315200000", 1_780_315_200_000),
        ("", "1780315200.0", 1_780_315_200_000),
        ('time = "seconds"', "1780315200", 1_780_315_200_000),
        ('time = "milliseconds"', "1780315200000", 1_780_315_200_000),
        ('time = "%d.%m.%Y %H:%M"\nzone = "Europe/Berlin"', "01.06.2026 12:00", 1_780_308_000_000),
        ('time = "%d.%m.%Y"', "01.06.2026", 1_780_272_000_000),
        ('time = "%d/%b/%Y:%H:%M:%S %z"', "01/Jun/2026:12:00:00 +0200", 1_780_308_000_000),
        ("", "01.06.2026", None),
        ("", "2026-02-31", None),
        ("", "yesterday", None),
        ("", "", None),
        ('time = "milliseconds"', "1780315200", None),
        ('time = "seconds"', "1780315200000", None),
        ("", "2099-01-01T00:00:00Z", None),
    ],
)
def test_a_time_is_read_in_its_zone_or_refused(tmp_path: Path, form: str, written: str, wanted: int | None) -> None:
    """Case 06-event-from-the-future among them: local time that is taken for UTC lies ahead, and is refused."""
    mapping, lines = f"{MAPPING}\n[format]\n{form}\n", f"{HEADER}u,a,{written},1,1\n"
    if wanted is None:
        [fault] = refusal(tmp_path, lines, mapping)
        assert fault.startswith("orders.csv: column 'when', row 1: ")
    else:
        assert events(run(tmp_path, lines, mapping))[0][3] == wanted


SHOP = """
[events]
guests = "{guests}"
[events.types]
paid = "purchase"
look = "view"
login = "ignore"
[events.columns]
user_id = "who"
session_id = "visit"
item_id = "what"
time = "when"
event_type = "did"
value = "sum"
"""
VISITS = (
    "who,visit,what,when,did,sum,extra\n"
    "17850.0,s1, a ,2026-01-02,paid,5,x\n"
    ",s2,b,2026-01-02,look,,x\n"
    ",,b,2026-01-02,look,,x\n"
    "9.0,s3,,not a time,login,,x\n"
    "9.0,s3,b,2026-01-02,look,3,x\n"
)


def test_guests_ids_words_and_extra_columns(tmp_path: Path) -> None:
    dropped = run(tmp_path / "a", VISITS, SHOP.format(guests="drop"))
    assert [row[:3] for row in events(dropped)] == [("17850", "a", "purchase"), ("9", "b", "view")]
    assert [row[4] for row in events(dropped)] == [5.0, None]
    kept = run(tmp_path / "b", VISITS, SHOP.format(guests="session"))
    assert [row[0] for row in events(kept)] == ["17850", "s2", "9"]
    notes = " / ".join(kept.notes)
    for wanted in ("'who' is written like 17850.0", "ignored: extra", "1 lines of guests", "1 lines without a user",
                   "1 lines are of ignored types", "taken as UTC"):  # fmt: skip
        assert wanted in notes, wanted
    assert "2 lines without a user" in " / ".join(dropped.notes)


def test_a_word_without_a_type_is_refused(tmp_path: Path) -> None:
    [fault] = refusal(tmp_path, VISITS.replace("look", "peek"), SHOP.format(guests="drop"))
    assert fault.startswith("orders.csv: column 'did', row 2: no type for it in [events.types], which has paid, look")


def test_all_that_is_wrong_is_told_at_once_in_the_words_of_the_file(tmp_path: Path) -> None:
    rows = ("u,a,2026-01-02,1,1", "u,a,soon,1,1", ",a,never,1,1", "u,a,2026-01-02,many,1", "u,,2026-01-02,1,1",
            "u,a,2099-01-01,1,1", "u,b\x01,2026-01-02,1,1")  # fmt: skip
    lines = HEADER + "\n".join(rows)
    faults = refusal(tmp_path, lines, skip=4)
    places = [fault.split(": ")[1] for fault in faults]
    assert places == [
        "column 'many', row 4", "column 'when', row 2", "column 'what', row 5", "column 'what', row 7",
        "column 'when', row 6",
    ]  # fmt: skip
    imported = run(tmp_path, lines, skip=5)
    assert len(events(imported)) == 1
    assert sum("left out 1 rows" in note for note in imported.notes) == 5


def test_a_catalogue_of_its_own(tmp_path: Path) -> None:
    mapping = f"""{MAPPING}
    [items]
    files = ["goods*"]
    [items.columns]
    item_id = "sku"
    title = "name"
    price = "each"
    in_stock = "left"
    published = "since"
    attributes = ["colour", "size"]
    """
    goods = (
        "sku,name,each,left,since,colour,size\n"
        f'a,"24"" wide{chr(10)}screen",9,0,2025-01-01,Red|Blue,\nb,{"x" * 600},,yes,,,XL\n'
    )
    lines = HEADER + "u,a,2026-01-02,1,1\nu,b,2026-01-02,1,1\nu,ghost,2026-01-02,1,1\n"
    imported = run(tmp_path, lines, mapping, goods=goods)
    names = ("item_id", "title", "price", "in_stock", "published_ms", "attributes")
    assert imported.tables.items.select(names).rows() == [
        ("a", '24" wide screen', 9.0, False, 1_735_689_600_000, "colour:red blue"),
        ("b", "x" * 512, None, True, None, "size:xl"),
    ]  # fmt: skip
    assert any("1 events of items that no file has" in note for note in imported.notes)
    assert any("cut to 512 bytes" in note for note in imported.notes)


def test_items_of_the_lines(tmp_path: Path) -> None:
    mapping = f'{MAPPING}\n[items.columns]\ntitle = "name"\n'
    lines = "who,what,when,many,each,name\n" + "".join(
        f"u,{item},2026-01-02,1,{price},{name}\n"
        for item, price, name in [("a", 3, "Lamp"), ("a", 1, "LAMP?"), ("a", 2, "Lamp"), ("b", 0, "")]
    )
    items = run(tmp_path, lines, mapping).tables.items
    assert items.select("item_id", "title", "price").rows() == [("a", "Lamp", 2.0), ("b", "b", None)]


@pytest.mark.parametrize("encoding", ["windows-1252", "utf-16", "utf-8-sig"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    mapping = f'{MAPPING}\n[format]\nencoding = "{encoding}"\n'
    lines = HEADER + 'ü,24" é,2026-01-02,1,1\n"q""q",a,2026-01-02,1,1\n'
    assert [row[:2] for row in events(run(tmp_path, lines, mapping, encoding=encoding))] == [
        ("ü", '24" é'),
        ('q"q', "a"),
    ]


def test_bytes_of_another_encoding_are_named(tmp_path: Path) -> None:
    with pytest.raises(ImportRefused, match=r"cannot be read: row 1 \(line 2\): not UTF-8"):
        run(tmp_path, HEADER + "ü,a,2026-01-02,1,1\n", encoding="windows-1252")


@pytest.mark.parametrize(
    ("mapping", "wanted"),
    [
        (MAPPING.replace("price", "prise"), "unknown key 'events.columns.prise'; did you mean 'price'?"),
        (f"[formats]\n{MAPPING}", "unknown key 'formats'; did you mean 'format'?"),
        (f'[format]\ndecimals = ","\n{MAPPING}', "unknown key 'format.decimals'; did you mean 'decimal'?"),
        (f'[format]\nencoding = "latin-99"\n{MAPPING}', "format.encoding: unknown encoding 'latin-99'"),
        (f'[format]\nzone = "Berlin"\n{MAPPING}', "format.zone: unknown time zone 'Berlin'"),
        (f'[format]\ndecimal = ","\nthousands = ","\n{MAPPING}', "format: decimal and thousands are both ','"),
        (f'[events.types]\nx = "purchse"\n{MAPPING}', "did you mean 'purchase'?"),
        (f'[events]\nguests = "session"\n{MAPPING}', "needs session_id in [events.columns]"),
        (MAPPING.replace('item_id = "what"', ""), "events.columns.item_id: is required"),
        ("[events\n", "m.toml: "),
        ("", "events: is required"),
    ],
)
def test_a_mapping_with_a_mistake_is_refused(tmp_path: Path, mapping: str, wanted: str) -> None:
    with pytest.raises(ConfigError) as refused:
        run(tmp_path, HEADER, mapping)
    assert wanted in str(refused.value)


def test_a_column_that_is_not_there_gets_a_suggestion(tmp_path: Path) -> None:
    [fault] = refusal(tmp_path, HEADER.replace("when", "whenn") + "u,a,2026-01-02,1,1\n")
    assert fault == "orders.csv: no column 'when' (time of [events.columns]); did you mean 'whenn'?"


def test_the_wrong_separator_is_seen(tmp_path: Path) -> None:
    [fault] = refusal(tmp_path, HEADER.replace(",", ";"))
    assert "is a semicolon the separator, not a comma?" in fault


RETAIL = """
[format]
zone = "Europe/London"
[events.columns]
user_id = "CustomerID"
session_id = "InvoiceNo"
item_id = "StockCode"
time = "InvoiceDate"
quantity = "Quantity"
price = "UnitPrice"
[items.columns]
title = "Description"
"""


@pytest.mark.shared_data
def test_the_export_of_a_real_shop(shared_data: Path, tmp_path: Path) -> None:
    """Lines with a customer: 397,924 sold and 8,905 sent back, of 4,372 users (counted with awk)."""
    source = shared_data / "online-retail" / "export.csv.gz"
    if not source.exists():
        pytest.skip("the shop's export is not beside this checkout")
    with gzip.open(source) as packed:
        assert packed.readline().startswith(b"InvoiceNo")
    (tmp_path / "m.toml").write_text(RETAIL)
    imported = import_csv([source], tmp_path / "out", Mapping.load(tmp_path / "m.toml"), RULES)
    found = imported.tables.interactions
    assert dict(found["event_type"].value_counts().iter_rows()) == {"purchase": 397_924, "return": 8_905}
    assert found["user_id"].n_unique() == 4_372
    assert not found["user_id"].str.contains(".", literal=True).any()
    assert imported.tables.items.height == 4_070
