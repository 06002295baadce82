"""The log as Parquet files by hour, each event once: a file's name says which offsets it holds.

DIRECTORY/2026-11-23/07/engine.events.v1~CLUSTER~TOPIC-3-000000000120-000000000245.parquet holds partition 3 from offset
120 to 245 of the log with these ids of Kafka's, and 07 is the hour (UTC) in which the server took the first of them in.
A file is written aside and renamed into place, so that the names are the archive's own memory of how far it got in
which log: after a crash it goes on after the last of them. Files from before names had ids are of the log that is
there when they are first seen, if they fit it.
"""

import logging
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Generic

import polars as pl
import pyarrow as pa

from engine.contract.events import Logged
from engine.errors import DependencyUnavailable, PositionLost
from engine.stream.log_identity import LogIdentity, LogNow, Place
from engine.stream.processor import T
from engine.stream.protocols import LogRecord
from engine.stream.state import clamped_ms
from engine.types import EventType

log = logging.getLogger(__name__)

Schema = Mapping[str, pl.DataType | type[pl.DataType]]

# The canonical interactions (engine.data.schema), then what only the archive keeps.
ARCHIVE_SCHEMA: Final[dict[str, type[pl.DataType]]] = {
    "user_id": pl.String, "item_id": pl.String, "event_type": pl.String, "timestamp_ms": pl.Int64,
    "value": pl.Float64, "surface": pl.String, "device": pl.String, "country": pl.String, "session_id": pl.String,
    "event_id": pl.String,
    "dwell_ms": pl.Int64, "request_id": pl.String, "position": pl.Int32, "received_ms": pl.Int64,
    "partition": pl.Int32, "offset": pl.Int64,
}  # fmt: skip
# Beside the directory of events, unless settings say otherwise.
EXPOSURES_DIRECTORY: Final = "exposures"
_HOUR_MS: Final = 3_600_000
# Python objects take several times the memory of columns: so many rows at most are held as such.
_CHUNK_ROWS: Final = 2_000


@dataclass(frozen=True, slots=True)
class ArchiveLayout(Generic[T]):
    """How the records of one log become rows.

    Args:
        schema: the columns.
        to_row: (partition, offset, record) as their values, in order.
        time_ms: of a record, by the server's clock; the hour of its first record names a file's directory.
    """

    schema: Schema
    to_row: Callable[[int, int, T], tuple[Any, ...]]
    time_ms: Callable[[T], int]


@dataclass(slots=True)
class _OpenFile:
    """What will be one file: contiguous places of one partition's log, all taken in within one hour."""

    hour: int
    first: int
    last: int
    opened: float
    rows: list[tuple[Any, ...]] = field(default_factory=list)
    chunks: list[pl.DataFrame] = field(default_factory=list)
    row_count: int = 0

    def add(self, row: tuple[Any, ...], schema: Schema) -> None:
        self.rows.append(row)
        self.row_count += 1
        if len(self.rows) == _CHUNK_ROWS:
            self.chunks.append(_frame(self.rows, schema))
            self.rows = []

    def frame(self, schema: Schema) -> pl.DataFrame:
        return pl.concat([*self.chunks, _frame(self.rows, schema)])


class ArchiveSink(Generic[T]):
    """Writes a log into an archive directory. Implements engine.stream.processor.Sink.

    Args:
        name: of the log, the beginning of every file's name.
        layout: of its rows.
        max_rows: a file is closed at this many records. max_age_s: and at this age.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        directory: Path,
        name: str,
        layout: ArchiveLayout[T],
        max_rows: int,
        max_age_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._directory = directory
        self._name = name
        self._file_name = re.compile(re.escape(name) + r"(?:~([^~]*)~([^~]*))?-(\d+)-(\d{12,})-(\d{12,})\.parquet")
        self._layout = layout
        self._max_rows = max_rows
        self._max_age_s = max_age_s
        self._clock = clock
        self._open: dict[int, _OpenFile] = {}
        self._identity: LogIdentity | None = None
        # Partitions whose files without an identity are of this log.
        self._adopted: set[int] = set()

    def positions(self, partitions: Iterable[int], log: LogNow) -> dict[int, Place | None]:
        """After the last file of each partition; what is written from now on is of this log.

        Cost: one walk over the directory.
        """
        self.forget()
        self._identity = identity = _in_names(log.identity)
        last = self._last_offsets("*/*")
        others = sorted({found for _, found in last if found is not None and found != identity})
        # One of the same cluster, where there is one: it says most about what has happened.
        other = next((found for found in others if found.cluster == identity.cluster), others[0] if others else None)
        self._adopted = set()
        places: dict[int, Place | None] = {}
        for part in partitions:
            unnamed = last.get((part, None), -1)
            if other is None and -1 < unnamed < log.extents[part].end:
                self._adopted.add(part)
            own = self._last_of(part, last)
            of_others = max((end for (of, found), end in last.items() if of == part and found != identity), default=-1)
            if own >= 0:
                places[part] = Place(own + 1, log.identity)
            else:
                places[part] = Place(of_others + 1, other) if of_others >= 0 else None
        return places

    def _last_of(self, partition: int, last: Mapping[tuple[int, LogIdentity | None], int]) -> int:
        """The last offset of this log, by what `_last_offsets` has found; -1 for none."""
        named = last.get((partition, self._identity), -1)
        return max(named, last.get((partition, None), -1)) if partition in self._adopted else named

    def write(self, records: Sequence[LogRecord[T]]) -> dict[int, int]:
        """Take records, close the files that are full, old, or of another hour; returns what is in closed files."""
        done: dict[int, int] = {}
        for partition, offset, logged in records:
            current = self._open.get(partition)
            hour = current.hour if current else -1
            if logged is not None:
                hour = self._layout.time_ms(logged) // _HOUR_MS
            full = current is not None and (hour != current.hour or current.row_count >= self._max_rows)
            if current is not None and current.row_count and full:
                done |= self._close(partition)
                current = None
            if current is None:
                current = self._open[partition] = _OpenFile(hour, offset, offset, self._clock())
            current.last = offset
            if logged is not None:
                current.hour = hour
                current.add(self._layout.to_row(partition, offset, logged), self._layout.schema)
        now = self._clock()
        for partition, current in list(self._open.items()):
            if now - current.opened >= self._max_age_s:
                done |= self._close(partition)
        return done

    def flush(self) -> dict[int, int]:
        """Close every file."""
        done: dict[int, int] = {}
        for partition in list(self._open):
            done |= self._close(partition)
        return done

    def forget(self) -> None:
        """Drop what is not in a closed file: it is read again from the log."""
        self._open = {}

    def _close(self, partition: int) -> dict[int, int]:
        content = self._open[partition]
        if content.row_count:
            self._store(partition, content)
        del self._open[partition]
        return {partition: content.last + 1}

    def _store(self, partition: int, content: _OpenFile) -> None:
        day_hour = time.strftime("%Y-%m-%d/%H", time.gmtime(content.hour * _HOUR_MS // 1000))
        directory = self._directory / day_hour
        stored = self._last_of(partition, self._last_offsets(day_hour))
        if stored >= content.first:
            raise PositionLost(f"partition {partition} is archived up to {stored} by another processor")
        frame = content.frame(self._layout.schema)
        name = self._name if self._identity is None else f"{self._name}~{self._identity.cluster}~{self._identity.topic}"
        path = directory / f"{name}-{partition}-{content.first:012d}-{content.last:012d}.parquet"
        # Named after where it begins: what a crash leaves is overwritten by the next attempt.
        partial = directory / f".{name}-{partition}-{content.first:012d}.partial"
        try:
            directory.mkdir(parents=True, exist_ok=True)
            frame.write_parquet(partial, compression="zstd")
            _sync(partial)
            partial.replace(path)
            _sync(directory)
        except OSError as error:
            raise DependencyUnavailable(f"{path}: cannot be written: {error.strerror or error}") from error

    def _last_offsets(self, pattern: str) -> dict[tuple[int, LogIdentity | None], int]:
        """The last archived offset of each partition and log in the hours of a glob pattern."""
        last: dict[tuple[int, LogIdentity | None], int] = {}
        for path in self._directory.glob(f"{pattern}/*.parquet"):
            match = self._file_name.fullmatch(path.name)
            if match is not None:
                log = None if match[1] is None else LogIdentity(match[1], match[2])
                key, end = (int(match[3]), log), int(match[5])
                last[key] = max(end, last.get(key, -1))
        return last


def _in_names(log: LogIdentity) -> LogIdentity:
    """The identity as names of files have it: Kafka's own ids consist of letters, digits, - and _ alone."""
    return LogIdentity(*(re.sub(r"[^A-Za-z0-9_-]", "_", part) for part in log))


def to_row(partition: int, offset: int, logged: Logged) -> tuple[Any, ...]:
    """One row of ARCHIVE_SCHEMA; an empty string is null, and a time after the arrival is clamped to it."""
    event, fields, received_ms = logged
    return (
        fields.user_id,
        fields.item_id,
        EventType(fields.type - 1).name.lower(),
        clamped_ms(fields.time_ms, received_ms),
        event.value if event.HasField("value") else None,
        fields.surface or None,
        event.device or None,
        event.country or None,
        event.session_id or None,
        fields.event_id,
        event.dwell_ms if event.HasField("dwell_ms") else None,
        event.request_id or None,
        event.position or None,
        received_ms,
        partition,
        offset,
    )


EVENTS_LAYOUT: Final[ArchiveLayout[Logged]] = ArchiveLayout(ARCHIVE_SCHEMA, to_row, lambda logged: logged.received_ms)


def _frame(rows: Sequence[tuple[Any, ...]], schema: Schema) -> pl.DataFrame:
    columns = zip(*rows, strict=True) if rows else ((),) * len(schema)
    return pl.DataFrame(
        [_series(name, values, kind) for (name, kind), values in zip(schema.items(), columns, strict=True)]
    )


def _series(name: str, values: Sequence[Any], kind: pl.DataType | type[pl.DataType]) -> pl.Series:
    if not kind.is_nested():
        return pl.Series(name, values, kind)
    # Arrow takes lists of dictionaries in a tenth of the time.
    return pl.Series(name, pa.array(values, pl.Series([], dtype=kind).to_arrow().type)).cast(kind)


def _sync(path: Path) -> None:
    """What is renamed must be on the disk before the offsets are committed."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
