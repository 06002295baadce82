"""The archived event log as interactions: what the stream processor writes is what training reads."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Final

import polars as pl

from engine.data.rules import TableRules
from engine.data.schema import INTERACTIONS
from engine.data.validate import inspect, unknown_items
from engine.errors import DataError

log = logging.getLogger(__name__)

EVENTS_DIRECTORY: Final = "events"


def read_event_log(directory: Path, items: pl.DataFrame, rules: TableRules) -> pl.DataFrame:
    """The interactions of an archive (engine.stream.archive), canonical columns, in the order of the log.

    An event that a client sent twice is there once. Events of items that the item table does not have, and whatever
    the API would have refused, are left out and counted in the log: a client's mistake must not stop training.

    Args:
        directory: holds *.parquet, at any depth. items: canonical. rules: all but the surfaces.

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
    # Which surfaces there were, the server knew that took the event in; today's settings may be others.
    judged = inspect(events, INTERACTIONS, str(directory), replace(rules, surfaces=None))
    unknown = unknown_items(judged.frame, items)
    good = judged.frame.filter(~(judged.bad | unknown))
    for fault in judged.faults:
        if fault.count:
            log.warning("left out %d events: %s", fault.count, fault)
    if unknown.any():
        log.warning("%s: left out %d of %d events, of no known item", directory, unknown.sum(), len(events))
    return good
