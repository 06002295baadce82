"""`engine process`: keep Redis true to the event log until told to stop."""

import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

from engine.cli.needs import needs
from engine.cli.options import BundlesOption, ConfigOption, RedisOption, announce_private, load_config
from engine.errors import LogMismatch
from engine.runtime.log_writer import logs_in_background


@needs("cpu")
def process(
    config: ConfigOption = None,
    bundles: BundlesOption = None,
    redis_url: RedisOption = None,
    archive: Annotated[
        Path | None,
        typer.Option(
            help="Directory for the events' Parquet files, exposures beside; for processor.archive_directory."
        ),
    ] = None,
) -> None:
    """Apply recorded events to what requests read, and archive them; on SIGTERM finish the batch, commit and leave."""
    from engine.app.processor import process as run
    from engine.runtime.stalls.collector import freeze_long_lived
    from engine.runtime.stalls.turns import take_short_turns

    settings = load_config(config, bundles, redis_url)
    announce_private(settings, kafka=True)
    if archive is not None:
        processor = settings.processor.model_copy(update={"archive_directory": archive})
        settings = settings.model_copy(update={"processor": processor})
    take_short_turns()
    try:
        with logs_in_background():
            run(settings, stop_on_signal(), freeze_long_lived)
    except LogMismatch:
        raise SystemExit(2) from None  # its one line is in the log


def stop_on_signal() -> threading.Event:
    """An event that SIGTERM and SIGINT set."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop
