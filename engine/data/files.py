"""One file of a table, as it is written."""

import codecs
import csv
import gzip
import io
import zlib
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from engine.data.careful_csv import reread
from engine.data.faults import Fault
from engine.errors import DataError, described

_HEADER_BYTES: Final = 1 << 20
_QUOTE: Final = ord('"')
_SEPARATORS: Final = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a bar"}
_UTF_16: Final = (b"\xff\xfe", b"\xfe\xff")


class Unreadable(DataError):
    """A file that is no table; `faults` has everything that is wrong with it, at least one thing."""

    def __init__(self, *faults: Fault) -> None:
        super().__init__(str(faults[0]))
        self.faults = faults


def read_frame(path: Path) -> pl.DataFrame:
    """The raw columns of one file; CSV as text throughout, so that conversion can name the row that fails.

    CSV is as RFC 4180 has it, in UTF-8, with or without a byte-order mark; a quote in a field that does not begin with
    one is text. A row with fewer fields than the header ends in empty ones. Empty lines at the end are no rows.

    Raises:
        Unreadable: the file cannot be read; names the row, where it is one row that is wrong.

    Cost: one read of the file; where its quotes are not as they should be, a second one of about 2 µs a row. Memory
    for the file beside the table.
    """
    if path.suffix == ".parquet":
        return _read_parquet(path)
    content = read_bytes(path)
    check_header(path, header_of(content, path))
    return parse_csv(path, content)


def read_bytes(path: Path) -> bytes:
    """The bytes of a file, unpacked where its name ends in .gz. Raises Unreadable."""
    try:
        if path.suffix != ".gz":
            return path.read_bytes()
        with gzip.open(path) as stream:
            return stream.read()
    except OSError as error:
        reason = error.strerror if error.errno is not None else f"not gzip: {described(error)}"
        raise Unreadable(Fault(str(path), None, f"cannot be read: {reason}")) from None
    except (EOFError, zlib.error) as error:
        raise Unreadable(Fault(str(path), None, f"cannot be read: the file is not whole: {described(error)}")) from None


def parse_csv(path: Path, content: bytes, separator: str = ",", encoding: str = "utf-8") -> pl.DataFrame:
    """The rows of a CSV file, all columns as text, null where empty.

    Args:
        path: for messages. content: its bytes. encoding: of the bytes.

    Raises:
        Unreadable: with a fault for every row that cannot be read.
    """
    frame = None
    # Of quotes that stand where none may, the fast reader refuses some without a place, and takes others for what they
    # are not.
    if _well_quoted(content, separator):
        with suppress(pl.exceptions.PolarsError):
            frame = pl.read_csv(content, infer_schema=False, separator=separator)
    if frame is None:
        found = reread(io.BytesIO(content), str(path), separator, encoding)
        if found.faults:
            raise Unreadable(*found.faults)
        frame = found.frame
    return without_empty_end(frame)


def _well_quoted(content: bytes, separator: str) -> bool:
    """Whether every quote opens or closes a whole field, or is one of two in a field in quotes (RFC 4180, 2.5 to 2.7).

    Cost: about 1 ns a byte, and 20 ns a quote.
    """
    text = np.frombuffer(content, np.uint8)
    places = np.flatnonzero(text == _QUOTE)
    if len(places) % 2:
        return False
    opening, closing = places[0::2], places[1::2]
    edges = np.frombuffer(f"{separator}\r\n".encode(), np.uint8)
    start = 3 if content.startswith(codecs.BOM_UTF8) else 0
    # Two quotes in a row are a closing and an opening one: the field goes on between them.
    opens = (opening <= start) | np.isin(text[opening - 1], edges)
    opens[1:] |= opening[1:] - closing[:-1] == 1
    closes = closing == len(text) - 1
    closes |= np.isin(text[np.minimum(closing + 1, len(text) - 1)], edges)
    closes[:-1] |= opening[1:] - closing[:-1] == 1
    return bool(opens.all() and closes.all())


def header_of(content: bytes, path: Path, separator: str = ",", encoding: str = "utf-8") -> list[str]:
    """The names in the first line of these bytes. Raises Unreadable: there is none, or it is no text."""
    first = content[: content.find(b"\n", 0, _HEADER_BYTES) + 1 or _HEADER_BYTES]
    if not first:
        raise Unreadable(Fault(str(path), None, "the file is empty"))
    if encoding == "utf-8" and (first.startswith(_UTF_16) or b"\x00" in first):
        raise Unreadable(_no_text(path, "the file is not UTF-8: it holds NUL bytes, as UTF-16 does"))
    try:
        if b"\r" in first.rstrip(b"\r\n"):
            raise Unreadable(_no_text(path, "lines end in a carriage return alone; line feeds are wanted"))
        line = first.decode("utf-8-sig" if encoding == "utf-8" else encoding).rstrip("\r\n")
        names = next(csv.reader([line], delimiter=separator, strict=True), [])
    except (UnicodeDecodeError, csv.Error) as error:
        raise Unreadable(_no_text(path, f"the header (line 1) cannot be read: {described(error)}")) from None
    return names


def check_header(path: Path, names: list[str], separator: str = ",") -> None:
    """Raise Unreadable where the names of the columns cannot be told apart, or are written with another separator."""
    others = [other for other in _SEPARATORS if other != separator and names and len(names) == 1 and other in names[0]]
    if others:
        reason = f"the header {names[0]!r} is one column: is {_SEPARATORS[others[0]]} the separator, not "
        advice = f"{_SEPARATORS.get(separator, repr(separator))}? `engine import csv` reads any"
        raise Unreadable(Fault(str(path), None, reason + advice))
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        places = ", ".join(str(place) for place, name in enumerate(names, 1) if name == twice[0])
        reason = f"column {twice[0]!r} is in the header more than once (columns {places})" if twice[0] else (
            f"columns {places} of the header have no name"
        )  # fmt: skip
        raise Unreadable(Fault(str(path), twice[0], reason))


def without_empty_end(frame: pl.DataFrame) -> pl.DataFrame:
    """Without the rows at the end that are null in all columns."""
    filled = frame.select(~pl.all_horizontal(pl.all().is_null())).to_series().arg_true()
    return frame.head(filled[-1] + 1 if len(filled) else 0)


def _read_parquet(path: Path) -> pl.DataFrame:
    try:
        return pl.read_parquet(path, glob=False)
    except (pl.exceptions.PolarsError, OSError, pl.exceptions.PanicException) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise Unreadable(Fault(str(path), None, f"cannot be read: {reason}")) from None


def _no_text(path: Path, reason: str) -> Fault:
    return Fault(str(path), None, f"{reason}; save it as UTF-8, or let `engine import csv` read it")
