"""Options that several subcommands share."""

from pathlib import Path
from typing import Annotated, Any

import typer

from engine.config import EngineConfig

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", envvar="ENGINE_CONFIG", help="TOML file with the serving settings."),
]
BundlesOption = Annotated[
    Path | None, typer.Option("--bundles", help="Directory of bundles; overrides bundle.directory.")
]
RedisOption = Annotated[
    str | None, typer.Option("--redis-url", help="Overrides redis.url; without any, a private Redis is started.")
]
ServingConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--serving-config",
        envvar="ENGINE_CONFIG",
        help="TOML file with the serving settings: which surfaces there are, how far ahead events may be.",
    ),
]
SkipBadRowsOption = Annotated[
    int,
    typer.Option(min=0, help="Leave out and count so many bad rows of the tables at most, instead of refusing them."),
]


def load_config(
    config: Path | None,
    bundles: Path | None = None,
    redis_url: str | None = None,
    server: dict[str, Any] | None = None,
) -> EngineConfig:
    """The settings of the file and the environment, with the flags that were given laid over them."""
    flags: dict[str, dict[str, Any]] = {
        "server": {key: value for key, value in (server or {}).items() if value is not None}
    }
    if bundles is not None:
        flags["bundle"] = {"directory": bundles}
    if redis_url is not None:
        flags["redis"] = {"url": redis_url}
    return EngineConfig.load(config, **flags)
