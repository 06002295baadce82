"""Where the archive lies, and which of its files a report must open."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from engine.errors import DataError
from engine.experiments.analysis.report_query import DAY_MS

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
# Events reach the archive after they happened: those of a client that was offline by days.
_LATEST_ARRIVAL_MS = 8 * DAY_MS


@dataclass(frozen=True, slots=True)
class Archive:
    """Two directories of Parquet files by hour, DIRECTORY/2026-11-23/07/*.parquet, as `engine process` writes them."""

    exposures: Path
    events: Path

    @staticmethod
    def within(directory: Path, events: Path | None = None) -> "Archive":
        """DIRECTORY/exposures, and `events` if given, else DIRECTORY/events or, without that, DIRECTORY."""
        if events is not None:
            return Archive(directory / "exposures", events)
        events = directory / "events"
        return Archive(directory / "exposures", events if events.is_dir() else directory)

    def exposure_files(self, from_ms: int | None, to_ms: int | None) -> list[str]:
        """Files that can hold exposures served in [from_ms, to_ms).

        Raises:
            DataError: there is no such directory.
        """
        if not self.exposures.is_dir():
            raise DataError(f"{self.exposures}: no such directory; `engine process` archives exposures there")
        # A day of slack: an hour's directory is named after the first of what is in it.
        begin_ms = None if from_ms is None else from_ms - DAY_MS
        return list(_within(self.exposures, begin_ms, None if to_ms is None else to_ms + DAY_MS))

    def event_files(self, from_ms: int, to_ms: int) -> list[str]:
        """Files that can hold events of [from_ms, to_ms); none where there is no directory."""
        if not self.events.is_dir():
            return []
        return list(_within(self.events, from_ms - DAY_MS, to_ms + _LATEST_ARRIVAL_MS))


def _within(directory: Path, from_ms: int | None, to_ms: int | None) -> Iterator[str]:
    """The Parquet files below the day directories of a period."""
    for day in sorted(directory.iterdir()):
        if not _DAY.fullmatch(day.name):
            continue
        try:
            begin = datetime.strptime(day.name, "%Y-%m-%d").replace(tzinfo=UTC)
        except ValueError:
            continue
        begin_ms = int(begin.timestamp() * 1000)
        if (to_ms is None or begin_ms < to_ms) and (from_ms is None or begin_ms + DAY_MS > from_ms):
            yield from (str(path) for path in sorted(day.glob("*/*.parquet")))
