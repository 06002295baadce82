"""One file of a table, as it is written."""

import csv
import gzip
import zlib
from collections import Counter
from io import BufferedReader
from pathlib import Path
from typing import Final

import polars as pl

from engine.data.careful_csv import Careful, reread
from engine.data.faults import Fault
from engine.errors import DataError

_HEADER_BYTES: Final = 1 << 20
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

    Cost: one read of the file, and where that fails a second one, of about 2 µs a row.
    """
    if path.suffix == ".parquet":
        return _read_parquet(path)
    check_header(path, read_header(path))
    try:
        frame = pl.read_csv(path, infer_schema=False, glob=False)
    except (pl.exceptions.PolarsError, OSError) as error:
        # It does not say where: this does, and takes the quotes that it stumbled over as text.
        found = read_carefully(path)
        if found.faults:
            raise Unreadable(*found.faults) from error
        frame = found.frame
    return without_empty_end(frame)


def read_carefully(path: Path, separator: str = ",", encoding: str = "utf-8") -> Careful:
    """Every row that can be read, and a fault for all others. Raises Unreadable where the file cannot be read on."""
    try:
        with open_bytes(path) as stream:
            return reread(stream, str(path), separator, encoding)
    except (OSError, EOFError, zlib.error) as error:
        raise Unreadable(_fault_of(path, error)) from None


def read_header(path: Path, separator: str = ",", encoding: str = "utf-8") -> list[str]:
    """The names in the first line of a CSV file. Raises Unreadable: it is empty, no text, or cut off."""
    try:
        with open_bytes(path) as stream:
            first = stream.readline(_HEADER_BYTES)
    except (OSError, EOFError, zlib.error) as error:
        raise Unreadable(_fault_of(path, error)) from None
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
        raise Unreadable(_no_text(path, f"the header (line 1) cannot be read: {error}")) from None
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


def open_bytes(path: Path) -> "gzip.GzipFile | BufferedReader":
    """The bytes of a file, unpacked where its name ends in .gz."""
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")


def _read_parquet(path: Path) -> pl.DataFrame:
    try:
        return pl.read_parquet(path, glob=False)
    except (pl.exceptions.PolarsError, OSError, pl.exceptions.PanicException) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise Unreadable(Fault(str(path), None, f"cannot be read: {reason}")) from None


def _fault_of(path: Path, error: Exception) -> Fault:
    if isinstance(error, OSError) and error.errno is not None:
        return Fault(str(path), None, f"cannot be read: {error.strerror}")
    return Fault(str(path), None, f"cannot be read: not whole, or not gzip: {error}")


def _no_text(path: Path, reason: str) -> Fault:
    return Fault(str(path), None, f"{reason}; save it as UTF-8, or let `engine import csv` read it")
