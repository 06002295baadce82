"""Reading and writing the canonical tables, and the sentence for everything that can be wrong with them."""

import gzip
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from engine.data.rules import TableRules
from engine.data.schema import INTERACTIONS, ITEMS, USERS
from engine.data.tables import Tables, make_tables, read_tables, write_tables
from engine.errors import DataError
from tests.engine.data.frames import T0_MS, small_interactions, small_items, small_tables, small_users


def write_raw(directory: Path, suffix: str = ".csv", **frames: pl.DataFrame) -> Path:
    """The small tables, some replaced, written without any check."""
    tables = {"interactions": small_interactions(), "items": small_items(), "users": small_users()} | frames
    for name, frame in tables.items():
        path = directory / f"{name}{suffix}"
        if suffix == ".parquet":
            frame.write_parquet(path)
        elif suffix == ".csv.gz":
            path.write_bytes(gzip.compress(frame.write_csv().encode()))
        else:
            frame.write_csv(path)
    return directory


def assert_same(found: Tables, wanted: Tables) -> None:
    assert_frame_equal(found.interactions, wanted.interactions)
    assert_frame_equal(found.items, wanted.items)
    assert_frame_equal(found.users, wanted.users)


def error_of(call: Callable[[], object]) -> str:
    with pytest.raises(DataError) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".parquet"])
def test_every_format_reads_back_the_same(tmp_path: Path, suffix: str) -> None:
    assert_same(read_tables(write_raw(tmp_path, suffix)), small_tables())


def test_what_is_written_reads_back_the_same(tmp_path: Path) -> None:
    out = tmp_path / "new" / "directory"
    write_tables(small_tables(), out)
    assert_same(read_tables(out), small_tables())
    assert sorted(path.name for path in out.iterdir()) == ["interactions.parquet", "items.parquet", "users.parquet"]


def test_absent_columns_and_table_are_filled(tmp_path: Path) -> None:
    small_interactions().select("user_id", "item_id", "event_type", "timestamp_ms").write_csv(
        tmp_path / "interactions.csv"
    )
    small_items().select("item_id", "title").write_parquet(tmp_path / "items.parquet")
    tables = read_tables(tmp_path)
    assert dict(tables.interactions.schema) == {name: dtype() for name, dtype in INTERACTIONS.polars.items()}
    assert dict(tables.items.schema) == {name: dtype() for name, dtype in ITEMS.polars.items()}
    assert dict(tables.users.schema) == {name: dtype() for name, dtype in USERS.polars.items()}
    assert tables.items["in_stock"].all()
    assert tables.items["price"].null_count() == 3
    assert tables.users.height == 0


def test_empty_users_survive_a_round_trip(tmp_path: Path) -> None:
    tables = make_tables(small_interactions(), small_items())
    write_tables(tables, tmp_path)
    assert_same(read_tables(tmp_path), tables)


def test_friendly_types_are_converted() -> None:
    items = pl.DataFrame({"item_id": [7, 8], "title": ["a", "b"], "published_ms": [1.0e12, None], "price": [3, 4]})
    interactions = pl.DataFrame(
        {"user_id": [1], "item_id": [8], "event_type": ["view"], "timestamp_ms": [T0_MS]},
        schema_overrides={"user_id": pl.Int32},
    ).with_columns(pl.col("event_type").cast(pl.Categorical))
    tables = make_tables(interactions, items)
    assert tables.items["item_id"].to_list() == ["7", "8"]
    assert tables.items["published_ms"].to_list() == [10**12, None]
    assert tables.interactions.row(0)[:3] == ("1", "8", "view")


def test_csv_accepts_usual_spellings_of_truth(tmp_path: Path) -> None:
    items = small_items().with_columns(in_stock=pl.Series(["YES", "0", "False"]))
    assert read_tables(write_raw(tmp_path, items=items)).items["in_stock"].to_list() == [True, False, False]


# table, column, values in the raw file, 1-based row that is wrong, part of the reason
BAD_COLUMNS = [
    ("interactions", "user_id", ["ann", "bob", None, None], 3, "required"),
    ("interactions", "item_id", ["a", None, "b", "c"], 2, "required"),
    ("interactions", "item_id", ["a", "b", "c", "ghost"], 4, "no such item"),
    ("interactions", "event_type", ["view", "buy", "click", "buy"], 2, "'buy'"),
    ("interactions", "timestamp_ms", [str(T0_MS), str(T0_MS), "yesterday", "x"], 3, "'yesterday'"),
    ("interactions", "timestamp_ms", [str(T0_MS), f"{T0_MS}.5", str(T0_MS), str(T0_MS)], 2, "whole number"),
    ("interactions", "timestamp_ms", [T0_MS, T0_MS // 1000, T0_MS, T0_MS], 2, "milliseconds"),
    ("interactions", "timestamp_ms", [T0_MS, T0_MS, T0_MS, T0_MS * 1000], 4, "microseconds"),
    ("interactions", "timestamp_ms", [T0_MS, -5, T0_MS, T0_MS], 2, "-5"),
    ("interactions", "value", ["1", "NaN", "2", "3"], 2, "finite"),
    ("interactions", "value", ["1", "2", "-inf", "3"], 3, "finite"),
    ("interactions", "value", ["1", "2", "3", "9,5"], 4, "'9,5'"),
    ("interactions", "surface", ["home", "x" * 65, "cart", "home"], 2, "64 bytes"),
    ("items", "item_id", ["a", "b", "a"], 3, "appears a second time"),
    ("items", "item_id", ["a", "b", "ü" * 129], 3, "256 bytes"),
    ("items", "title", ["A", "", "C"], 2, "required"),
    ("items", "price", ["1", "-0.01", "-3"], 2, "-0.01"),
    ("items", "price", ["free", "1", "2"], 1, "'free'"),
    ("items", "published_ms", [0, 0, 5_000_000_000_000], 3, "5000000000000"),
    ("items", "in_stock", ["true", "perhaps", "no"], 2, "'perhaps'"),
    ("users", "user_id", ["zoe", "zoe"], 2, "appears a second time"),
    ("users", "user_id", ["zoe", None], 2, "required"),
    ("users", "location", ["p" * 65, "q"], 1, "64 bytes"),
]  # fmt: skip


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".parquet"])
@pytest.mark.parametrize(("table", "column", "values", "row", "reason"), BAD_COLUMNS)
def test_bad_value_names_file_column_and_row(
    tmp_path: Path, suffix: str, table: str, column: str, values: list[object], row: int, reason: str
) -> None:
    frames = {"interactions": small_interactions(), "items": small_items(), "users": small_users()}
    broken = frames[table].with_columns(pl.Series(column, values))
    text = error_of(lambda: read_tables(write_raw(tmp_path, suffix, **{table: broken})))
    assert text.startswith(f"{tmp_path / table}{suffix}: column {column!r}, row {row}: ")
    assert reason in text


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_parquet_floats_must_be_finite(tmp_path: Path, value: float) -> None:
    items = small_items().with_columns(price=pl.Series([1.0, 2.0, value]))
    assert "column 'price', row 3: not a finite number" in error_of(
        lambda: read_tables(write_raw(tmp_path, ".parquet", items=items))
    )


@pytest.mark.parametrize(
    ("column", "values"),
    [("item_id", [1.0, 2.0, 3.0]), ("price", [True, False, True]), ("in_stock", [1, 0, 1]), ("title", [[1], [2], [3]])],
)
def test_type_that_cannot_be_meant_is_refused(column: str, values: list[object]) -> None:
    items = small_items().with_columns(pl.Series(column, values))
    assert f"table items: column {column!r} holds " in error_of(lambda: make_tables(small_interactions(), items))


def test_datetimes_are_refused_rather_than_guessed() -> None:
    interactions = small_interactions().with_columns(pl.from_epoch("timestamp_ms", "ms"))
    assert "'timestamp_ms' holds Datetime" in error_of(lambda: make_tables(interactions, small_items()))


def test_missing_column_is_named(tmp_path: Path) -> None:
    text = error_of(lambda: read_tables(write_raw(tmp_path, items=small_items().drop("title"))))
    assert text.startswith(f"{tmp_path / 'items.csv'}: required column 'title' is missing")


def test_unknown_column_gets_a_suggestion(tmp_path: Path) -> None:
    items = small_items().rename({"published_ms": "publishd_ms"})
    text = error_of(lambda: read_tables(write_raw(tmp_path, items=items)))
    assert text == f"{tmp_path / 'items.csv'}: unknown column 'publishd_ms'; did you mean 'published_ms'?"


def test_unknown_column_without_a_near_one_lists_them() -> None:
    text = error_of(lambda: make_tables(small_interactions(), small_items().with_columns(qqq=pl.lit(1))))
    assert "unknown column 'qqq'; known columns: item_id, title" in text


@pytest.mark.parametrize("table", ["interactions", "items"])
def test_table_without_rows_is_refused(tmp_path: Path, table: str) -> None:
    frames = {"interactions": small_interactions(), "items": small_items()}
    directory = write_raw(tmp_path, **{table: frames[table].head(0)})
    assert error_of(lambda: read_tables(directory)) == f"{tmp_path / table}.csv: the table has no rows"


def test_file_without_bytes_is_refused(tmp_path: Path) -> None:
    (write_raw(tmp_path) / "items.csv").write_bytes(b"")
    assert error_of(lambda: read_tables(tmp_path)) == f"{tmp_path / 'items.csv'}: the file is empty"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("items.parquet", b"not parquet at all"),
        ("items.csv.gz", b"\x1f\x8b\x08\x00cut off"),
        ("items.csv", b"item_id,title\na,A\nb,B,extra\n"),
        ("items.csv", b"item_id,title\na,\xff\xfe\n"),
    ],
)
def test_unreadable_file_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    write_raw(tmp_path)
    (tmp_path / "items.csv").unlink()
    (tmp_path / name).write_bytes(content)
    assert error_of(lambda: read_tables(tmp_path)).startswith(f"{tmp_path / name}: cannot be read: ")


def test_empty_lines_at_the_end_are_no_rows_but_one_in_the_middle_is(tmp_path: Path) -> None:
    write_raw(tmp_path)
    lines = (tmp_path / "interactions.csv").read_text()
    (tmp_path / "interactions.csv").write_text(lines + "\n\n")
    assert_same(read_tables(tmp_path), small_tables())
    (tmp_path / "interactions.csv").write_text(lines + "\nann,b,view,1700000000000,,,,,,\n")
    assert "column 'user_id', row 5: a value is required" in error_of(lambda: read_tables(tmp_path))


def test_places_with_wildcards_in_their_names(tmp_path: Path) -> None:
    odd = tmp_path / "a[1]*"
    write_tables(small_tables(), odd)
    assert_same(read_tables(odd), small_tables())


def test_missing_directory_and_table_are_named(tmp_path: Path) -> None:
    assert error_of(lambda: read_tables(tmp_path / "none")) == f"{tmp_path / 'none'}: no such directory"
    assert error_of(lambda: read_tables(tmp_path)).startswith(f"{tmp_path}: no items table")


def test_two_files_for_one_table_are_refused(tmp_path: Path) -> None:
    write_raw(tmp_path)
    small_items().write_parquet(tmp_path / "items.parquet")
    assert "both items.parquet and items.csv" in error_of(lambda: read_tables(tmp_path))


def test_writing_beside_another_format_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    small_users().write_csv(tmp_path / "users.csv")
    assert "users.csv: in the way of users.parquet" in error_of(lambda: write_tables(small_tables(), tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["users.csv"]


def test_unwritable_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert error_of(lambda: write_tables(small_tables(), tmp_path / "file")).startswith(
        f"{tmp_path / 'file'}: cannot be written: "
    )


def test_long_values_are_shortened_in_the_sentence() -> None:
    items = small_items().with_columns(item_id=pl.Series(["a", "b", "c" * 5000]))
    assert len(error_of(lambda: make_tables(small_interactions(), items))) < 250


def two_bad_rows() -> pl.DataFrame:
    far = [T0_MS, 4_070_908_800_000, T0_MS, T0_MS]
    return small_interactions().with_columns(
        timestamp_ms=pl.Series(far), user_id=pl.Series(["ann", "bob", "a\tb", "cem"])
    )


def test_a_wrong_clock_is_refused_with_its_date(tmp_path: Path) -> None:
    """Case 06-event-from-the-future."""
    text = error_of(lambda: read_tables(write_raw(tmp_path, interactions=two_bad_rows().tail(3))))
    assert "column 'user_id', row 2: must not hold control characters" in text
    assert "1 more problem; `engine data check" in text


def test_so_many_bad_rows_are_left_out_as_are_allowed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_raw(tmp_path, interactions=two_bad_rows())
    rules = replace(TableRules.default(), skip_bad_rows=2)
    assert read_tables(tmp_path, rules=rules).interactions["user_id"].to_list() == ["ann", "cem"]
    assert "found '2099-01-01T00:00:00Z'" in caplog.text
    error_of(lambda: read_tables(tmp_path, rules=replace(rules, skip_bad_rows=1)))


def test_events_of_an_item_that_is_left_out_go_with_it(tmp_path: Path) -> None:
    write_raw(tmp_path, items=small_items().with_columns(price=pl.Series([-1.0, None, 0.0])))
    tables = read_tables(tmp_path, rules=replace(TableRules.default(), skip_bad_rows=1))
    assert tables.items["item_id"].to_list() == ["b", "c"]
    assert tables.interactions["item_id"].to_list() == ["b", "c"]


def test_a_missing_column_is_nothing_to_leave_out(tmp_path: Path) -> None:
    write_raw(tmp_path, items=small_items().drop("title"))
    error_of(lambda: read_tables(tmp_path, rules=replace(TableRules.default(), skip_bad_rows=10**9)))
