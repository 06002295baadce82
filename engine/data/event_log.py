"""The archived event log as interactions: what the stream processor writes is what training reads."""

import logging
from pathlib import Path
from typing import Final

import polars as pl

from engine.data.schema import INTERACTIONS
from engine.errors import DataError

log = logging.getLogger(__name__)

EVENTS_DIRECTORY: Final = "events"


def read_event_log(directory: Path, items: pl.DataFrame) -> pl.DataFrame:
    """The interactions of an archive (engine.stream.archive), canonical columns, in the order of the log.

    An event that a client sent twice is there once. Events of items that the item table does not have, and of dates
    that no table may hold, are left out and counted in the log: a client's mistake must not stop training.

    Args:
        directory: holds *.parquet, at any depth. items: canonical.

    Raises:
        DataError: a file cannot be read.
    """
    files = sorted(directory.rglob("*.parquet"))
    if not files:
        return pl.DataFrame(schema=INTERACTIONS.polars)
    try:
        frame = pl.read_parquet(files, glob=False, hive_partitioning=False)
        frame = frame.sort("received_ms", "partition", "offset").select(list(INTERACTIONS.polars))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{directory}: cannot be read: {str(error).splitlines()[0]}") from None
    events = frame.unique("event_id", keep="first", maintain_order=True)
    earliest = next(column.minimum for column in INTERACTIONS.columns if column.name == "timestamp_ms")
    known = events.filter(pl.col("item_id").is_in(items["item_id"].implode()) & (pl.col("timestamp_ms") >= earliest))
    if len(known) < len(events):
        log.warning(
            "%s: %d of %d events are of no known item or time", directory, len(events) - len(known), len(events)
        )
    return known
