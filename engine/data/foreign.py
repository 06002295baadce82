"""A shop's own CSV file, read by its mapping; and what is wrong with it, in the shop's own words."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import polars as pl

from engine.data.faults import Fault, row_fault
from engine.data.files import Unreadable, check_header, header_of, parse_csv, read_bytes
from engine.data.mapping import FormatSection


@dataclass(slots=True)
class ImportFindings:
    """What a conversion finds: faults refuse rows, notes tell what was decided on the way."""

    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    bad_rows: int = 0


def read_text(path: Path, form: FormatSection) -> pl.DataFrame:
    """Every column of a file as text, null where empty. Raises Unreadable, naming the rows that are wrong."""
    content = read_bytes(path)
    encoding = form.encoding
    if encoding != "utf-8":
        try:
            content, encoding = content.decode(encoding).encode(), "utf-8"
        except UnicodeDecodeError as error:
            if "\n".encode(encoding) != b"\n":
                reason = f"cannot be read: not {encoding} from byte {error.start + 1} on"
                raise Unreadable(Fault(str(path), None, reason)) from None
    check_header(path, header_of(content, path, form.separator, encoding), form.separator)
    frame = parse_csv(path, content, form.separator, encoding)
    return frame.rename({name: name.strip() for name in frame.columns})


class ForeignTable:
    """One file under the names of the mapping.

    Args:
        path: for messages. frame: its rows, text. columns: our name → theirs. section: of the mapping.

    Raises:
        Unreadable: a column that the mapping names is not there.
    """

    def __init__(
        self, path: Path, frame: pl.DataFrame, columns: dict[str, str], section: str, found: ImportFindings
    ) -> None:
        self.path, self.frame, self.found = path, frame, found
        self.columns = columns
        self.bad = pl.repeat(False, frame.height, dtype=pl.Boolean, eager=True)
        missing = [
            Fault(str(path), theirs, f"no column {theirs!r} ({ours} of [{section}.columns]){_advice(theirs, frame)}")
            for ours, theirs in columns.items()
            if theirs not in frame.columns
        ]
        if missing:
            raise Unreadable(*missing)

    def __contains__(self, ours: str) -> bool:
        return ours in self.columns

    def text(self, ours: str) -> pl.Series:
        """A column by our name; all null where the mapping has none."""
        if ours not in self.columns:
            return pl.Series(ours, [None], pl.String).new_from_index(0, self.frame.height) if len(self.frame) else (
                pl.Series(ours, [], pl.String)
            )  # fmt: skip
        values = self.frame[self.columns[ours]]
        return values.set(values.str.strip_chars() == "", None)

    def judge(self, bad: pl.Series, values: pl.Series, reason: str) -> None:
        """Note the rows where `bad` is true, with what the file has there."""
        fault = row_fault(bad, values, str(self.path), reason)
        if fault is not None:
            self.found.faults.append(fault)
            self.bad = self.bad | bad.fill_null(False)

    def adopt(self, faults: Iterable[Fault], rows: pl.Series) -> None:
        """Take over faults of the converted rows: `rows` (n,) says which row of the file each came from, 0-based."""
        for fault in faults:
            places = [int(rows[one.row - 1]) for one in fault.examples]
            examples = tuple(replace(one, row=place + 1) for one, place in zip(fault.examples, places, strict=True))
            theirs = self.columns.get(_OURS.get(fault.column or "", fault.column or ""), fault.column)
            self.found.faults.append(replace(fault, source=str(self.path), column=theirs, examples=examples))


# Columns of the canonical tables that the mapping calls otherwise.
_OURS = {"timestamp_ms": "time", "published_ms": "published"}


def ignored(path: Path, frame: pl.DataFrame, used: Iterable[str]) -> list[str]:
    """A note about the columns that nothing reads."""
    used = set(used)
    extra = [name for name in frame.columns if name not in used]
    return [f"{path.name}: columns that the mapping does not name are ignored: {', '.join(extra)}"] if extra else []


def _advice(name: str, frame: pl.DataFrame) -> str:
    near = difflib.get_close_matches(name, frame.columns, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(frame.columns)}"
