"""`engine publish-users`: compute every user's record and put it where requests look it up."""

import re
import time
from pathlib import Path
from typing import Annotated

import typer

from engine.cli.needs import needs
from engine.cli.options import (
    BundlesOption,
    ConfigOption,
    RedisOption,
    SkipBadRowsOption,
    announce_private,
    load_config,
)
from engine.cli.progress import progress_bar
from engine.errors import ConfigError

_UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


@needs("cpu")
def publish_users(
    data: Annotated[Path, typer.Argument(help="Data directory: interactions, items, users.")],
    config: ConfigOption = None,
    bundles: BundlesOption = None,
    redis_url: RedisOption = None,
    skip_bad_rows: SkipBadRowsOption = 0,
    every: Annotated[str | None, typer.Option(help="Repeat at this interval, e.g. 1h; once without it.")] = None,
) -> None:
    """Compute the record of every user in the current bundle's vector space and write it to Redis.

    A bundle that `engine train` has left waiting gets its users first, and becomes the current one then.
    """
    from engine.app.publish import publish_once

    settings = load_config(config, bundles, redis_url)
    announce_private(settings, kafka=False)
    interval_s = None if every is None else parse_interval(every)
    while True:
        started = time.monotonic()
        with progress_bar() as progress:
            count = publish_once(data, settings, skip_bad_rows, progress)
        print(f"published {count:,} users in {time.monotonic() - started:.1f} s")
        if interval_s is None:
            return
        time.sleep(max(0.0, interval_s - (time.monotonic() - started)))


def parse_interval(text: str) -> float:
    """Seconds of an interval like 90s, 30m, 1h, 1d. Raises ConfigError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip())
    if match is None or float(match[1]) <= 0:
        raise ConfigError(f"--every: {text!r} is no interval; write e.g. 30m or 1h")
    return float(match[1]) * _UNITS_S[match[2]]
