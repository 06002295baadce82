"""Files that are no table say where: row and line, encoding, header, end."""

import csv
import gzip
import io
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.data.careful_csv import reread
from engine.data.files import Unreadable, read_frame

HEADER = b"item_id,title,category,price\n"
ROWS = 9000


def lines(**changed: bytes) -> bytes:
    """Rows 1 to ROWS; `r123=...` is row 123 instead."""
    rows = [
        changed.get(f"r{row}", b"B%05d,Monitor %d,Screens,%d" % (row, row, row % 100)) for row in range(1, ROWS + 1)
    ]
    return HEADER + b"\n".join(rows) + b"\n"


def faults_of(path: Path) -> list[str]:
    with pytest.raises(Unreadable) as refusal:
        read_frame(path)
    assert str(refusal.value) == str(refusal.value.faults[0])
    return [str(fault).removeprefix(f"{path}: ") for fault in refusal.value.faults]


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b'B,"Monitor,Screens,1', 'a quote (") is opened and not closed'),
        (b'B,"24" Monitor",Screens,1', 'a quote (") inside a field in quotes is not doubled ("")'),
        (b"B,\xc9cran,Screens,1", "not UTF-8, the encoding that the file is read in: byte 0xC9"),
        (b"B,Monitor,Screens,1,x", "5 fields where the header has 4"),
    ],
)
def test_a_row_that_cannot_be_read_is_named(tmp_path: Path, suffix: str, row: bytes, reason: str) -> None:
    """Case 09-inch-mark-in-a-csv."""
    path = tmp_path / f"items{suffix}"
    content = lines(r7001=row)
    path.write_bytes(gzip.compress(content) if suffix.endswith("gz") else content)
    [fault] = faults_of(path)
    assert fault.startswith(f"cannot be read: row 7001 (line 7002): {reason}")


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_what_is_text_is_read(tmp_path: Path, end: str) -> None:
    path = tmp_path / "items.csv"
    content = lines(r7001=b'B,24" Monitor,Screens,1', r8001=b'B,"24"" Monitor, wide",Screens,1', r8002=b"short,row")
    path.write_bytes(b"\xef\xbb\xbf" + content.replace(b"\n", end.encode()))
    frame = read_frame(path)
    assert frame.columns == ["item_id", "title", "category", "price"]
    assert frame.height == ROWS
    assert frame["title"][7000] == '24" Monitor'
    assert frame["title"][8000] == '24" Monitor, wide'
    assert frame.row(8001) == ("short", "row", None, None)


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    wide = {f"r{row}": b"a,b,c,d,e" for row in range(100, 120)}
    path.write_bytes(lines(r5=b'B,"open,c,1', r6=b"B,\xff,c,1", r7=b'B,"closed",c,1', **wide))
    with pytest.raises(Unreadable) as refusal:
        read_frame(path)
    found = {fault.reason.split(",")[0]: fault for fault in refusal.value.faults}
    assert {name: ([one.row for one in fault.examples], fault.count) for name, fault in found.items()} == {
        'a quote (") is opened and not closed': ([5], 1),
        "not UTF-8": ([6], 1),
        "5 fields where the header has 4": ([100, 101, 102, 103, 104], 20),
    }


def test_line_and_row_differ_behind_a_field_of_several_lines(tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    path.write_bytes(HEADER + b'a,"two\nlines",c,1\nb,B,c,1,x\n')
    assert faults_of(path) == ["cannot be read: row 2 (line 4): 5 fields where the header has 4"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"item_id,title,title\na,A,A\n", "column 'title' is in the header more than once (columns 2, 3)"),
        (b"item_id,,\na,A,A\n", "columns 2, 3 of the header have no name"),
        (
            b"item_id;title\na;A\n",
            "the header 'item_id;title' is one column: is a semicolon the separator, not a comma?",
        ),
        ("item_id,title\na,A\n".encode("utf-16"), "the file is not UTF-8: it holds NUL bytes, as UTF-16 does"),
        (b"item_id,\xfftitle\na,A\n", "the header (line 1) cannot be read: 'utf-8' codec can't decode byte 0xff"),
        (b"item_id,title\ra,A\rb,B\r", "lines end in a carriage return alone"),
    ],
)
def test_a_header_that_is_none_says_why(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "items.csv").write_bytes(content)
    [fault] = faults_of(tmp_path / "items.csv")
    assert fault.startswith(reason)


def test_a_packed_file_that_is_cut_off_is_not_half_read(tmp_path: Path) -> None:
    path = tmp_path / "items.csv.gz"
    path.write_bytes(gzip.compress(lines())[:-2000])
    [fault] = faults_of(path)
    assert fault.startswith("cannot be read: the file is not whole")


@pytest.mark.parametrize("keep", [0, 3, 200, -1, -8])
def test_parquet_that_is_cut_off_is_one_sentence(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "items.parquet"
    pl.DataFrame({"item_id": [str(row) for row in range(1000)]}).write_parquet(path)
    path.write_bytes(path.read_bytes()[:keep])
    [fault] = faults_of(path)
    assert fault.startswith("cannot be read: ")


FIELD = st.sampled_from(["", "x", "12", '"q,q"', '"q""q"', '"l\nl"', '24" m', 'm 24"', '"open', '"a"b', "é"])


@settings(deadline=None, max_examples=300)
@given(st.lists(st.lists(FIELD, min_size=3, max_size=3), min_size=1, max_size=40))
def test_the_fast_reader_reads_what_the_careful_one_reads_or_nothing(tmp_path_factory: pytest.TempPathFactory,
                                                                    rows: list[list[str]]) -> None:  # fmt: skip
    text = "a,b,c\n" + "".join(",".join(row) + "\n" for row in rows)
    path = tmp_path_factory.mktemp("csv") / "t.csv"
    path.write_text(text, newline="")
    try:
        wanted = [row + [""] * (3 - len(row)) for row in csv.reader(io.StringIO(text, newline=""), strict=True)][1:]
        readable = all(len(row) == 3 for row in wanted)
    except csv.Error:
        readable = False
    careful = reread(text.encode().splitlines(keepends=True), "t.csv")
    assert (not careful.faults) == readable
    if not readable:
        faults_of(path)
        return
    while wanted and wanted[-1] == [""] * 3:
        wanted.pop()
    assert [[value or "" for value in row] for row in read_frame(path).rows()] == wanted
