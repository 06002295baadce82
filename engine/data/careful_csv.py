"""CSV read row by row, so that every row that cannot be read is named: for files that the fast reader refuses."""

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

import polars as pl

from engine.data.faults import SHOWN_ROWS, Example, Fault, shown

# Longest field that is read. A quote that is not closed makes a field of all that follows, and must not cost more.
MAX_FIELD_CHARACTERS: Final = 1 << 20
# Times that reading restarts after a quote that is not closed; then the file is given up.
_MOST_RESTARTS: Final = 100


@dataclass(frozen=True, slots=True)
class Careful:
    """The rows that could be read, as text, null where empty; and what is wrong with the others."""

    frame: pl.DataFrame
    faults: tuple[Fault, ...]


@dataclass(slots=True)
class _Faults:
    source: str
    examples: dict[str, list[Example]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, reason: str, row: int, line: int, found: str | None = None) -> None:
        self.counts[reason] = self.counts.get(reason, 0) + 1
        examples = self.examples.setdefault(reason, [])
        if len(examples) < SHOWN_ROWS:
            examples.append(Example(row, found, line))

    def all(self) -> tuple[Fault, ...]:
        found = [
            Fault(self.source, None, reason, tuple(examples), self.counts[reason])
            for reason, examples in self.examples.items()
        ]
        return tuple(sorted(found, key=lambda fault: fault.examples[0].row))


class _Lines:
    """Lines of a file as text, numbered from 1, that can be given back; knows which are not of the encoding."""

    def __init__(self, raw: Iterable[bytes], encoding: str) -> None:
        self._source = enumerate(raw, 1)
        self._encoding = encoding
        self._again: list[tuple[int, str]] = []
        self.taken: list[tuple[int, str]] = []
        self.undecodable: dict[int, str] = {}

    def __iter__(self) -> Iterator[str]:
        while True:
            if self._again:
                entry = self._again.pop()
            else:
                number, raw = next(self._source, (0, b""))
                if not number:
                    return
                entry = number, self._text(number, raw)
            self.taken.append(entry)
            yield entry[1]

    def next_number(self) -> int:
        return self.taken[0][0] if self.taken else 0

    def back_to_second(self) -> None:
        """Give back all lines that were taken but for the first."""
        self._again += reversed(self.taken[1:])

    def _text(self, number: int, raw: bytes) -> str:
        try:
            return raw.decode(self._encoding)
        except UnicodeDecodeError as error:
            around = raw[max(0, error.start - 20) : error.end + 20].decode(self._encoding, "backslashreplace").strip()
            self.undecodable[number] = f"byte 0x{raw[error.start]:02X} in {shown(around)}"
            return raw.decode(self._encoding, "replace")


def reread(raw: Iterable[bytes], source: str, separator: str = ",", encoding: str = "utf-8") -> Careful:
    """Read lines of bytes, the first of which is the header.

    Args:
        raw: lines with their ends. source: what a fault calls the file.

    Cost: about 2 µs a row; memory as the text of the file, as Python objects.
    """
    lines = _Lines(raw, "utf-8-sig" if encoding == "utf-8" else encoding)
    faults = _Faults(source)
    columns: list[list[str | None]] = []
    header: list[str] = []
    for row, record in enumerate(_records(lines, faults, separator)):
        if row == 0:
            header = record or []
            columns = [[] for _ in header]
        elif record is not None:
            line = lines.next_number()
            undecodable = [lines.undecodable[number] for number, _ in lines.taken if number in lines.undecodable]
            if undecodable:
                faults.add(f"not {_name(encoding)}, the encoding that the file is read in", row, line, undecodable[0])
            if len(record) > len(header):
                faults.add(f"{len(record)} fields where the header has {len(header)}", row, line)
            record += [""] * (len(header) - len(record))
            for column, value in zip(columns, record, strict=False):
                column.append(value or None)
    frame = pl.DataFrame(dict(zip(header, columns, strict=True)), schema=dict.fromkeys(header, pl.String))
    return Careful(frame, faults.all())


def _records(lines: _Lines, faults: _Faults, separator: str) -> Iterator[list[str] | None]:
    """Record by record; None for one that could not be read. `lines.taken` is what the record was read from."""
    before = csv.field_size_limit(MAX_FIELD_CHARACTERS)
    row = restarts = 0
    try:
        reader = csv.reader(iter(lines), delimiter=separator, strict=True)
        while True:
            lines.taken.clear()
            try:
                record = next(reader, None)
            except csv.Error as error:
                faults.add(_quote_fault(lines, str(error)), row, lines.next_number(), _start(lines))
                restarts += 1
                if restarts == _MOST_RESTARTS:
                    return
                lines.back_to_second()
                reader = csv.reader(iter(lines), delimiter=separator, strict=True)
                yield None
            else:
                if record is None:
                    return
                yield record
            row += 1
    finally:
        csv.field_size_limit(before)


def _quote_fault(lines: _Lines, error: str) -> str:
    if "new-line character" in error:
        return "a carriage return inside a field that is not in quotes"
    if len(lines.taken) > 1 or "unexpected end" in error or "field limit" in error:
        return 'a quote (") is opened and not closed'
    return 'a quote (") inside a field in quotes is not doubled ("")'


def _start(lines: _Lines) -> str | None:
    return shown(lines.taken[0][1].rstrip("\r\n")) if lines.taken else None


def _name(encoding: str) -> str:
    return encoding.upper() if encoding.lower().startswith("utf") else encoding
