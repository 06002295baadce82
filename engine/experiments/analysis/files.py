"""Which files of the archive a report must open."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from engine.errors import DataError

EXPOSURES = "exposures"
EVENTS = "events"
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_DAY_MS = 86_400_000
# Events reach the archive after they happened: those of a client that was offline by days.
_LATEST_ARRIVAL_MS = 8 * _DAY_MS


def exposure_files(archive: Path, from_ms: int | None, to_ms: int | None) -> list[str]:
    """Files that can hold exposures served in [from_ms, to_ms).

    Raises:
        DataError: there is no such directory.
    """
    directory = archive / EXPOSURES
    if not directory.is_dir():
        raise DataError(f"{directory}: no such directory; exposures are archived by `engine process`")
    # A day of slack: an hour's directory is named after the arrival.
    return list(_within(directory, from_ms and from_ms - _DAY_MS, to_ms and to_ms + _DAY_MS))


def event_files(archive: Path, from_ms: int, to_ms: int) -> list[str]:
    """Files that can hold events of [from_ms, to_ms), from ARCHIVE/events or, without it, from ARCHIVE itself."""
    directory = archive / EVENTS
    if not directory.is_dir():
        directory = archive
    return list(_within(directory, from_ms - _DAY_MS, to_ms + _LATEST_ARRIVAL_MS))


def _within(directory: Path, from_ms: int | None, to_ms: int | None) -> Iterator[str]:
    """Parquet files below the day directories of a period, DIRECTORY/2026-11-23/07/*.parquet."""
    for day in sorted(directory.iterdir()):
        if not _DAY.fullmatch(day.name):
            continue
        try:
            begin = datetime.strptime(day.name, "%Y-%m-%d").replace(tzinfo=UTC)
        except ValueError:
            continue
        begin_ms = int(begin.timestamp() * 1000)
        if (to_ms is None or begin_ms < to_ms) and (from_ms is None or begin_ms + _DAY_MS > from_ms):
            yield from (str(path) for path in sorted(day.glob("*/*.parquet")))
