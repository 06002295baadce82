"""Options that several subcommands share."""

import logging
from pathlib import Path
from typing import Annotated, Any

import typer

from engine.config.serving import EngineConfig

log = logging.getLogger(__name__)

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


def announce_private(config: EngineConfig, *, kafka: bool) -> None:
    """Say in one line which stores are private to this machine: what is written there, no other machine sees.

    Args:
        kafka: whether the command has to do with the event log.
    """
    private = []
    if not config.redis.url:
        private.append(f"a private Redis in {config.redis.directory.resolve()} (redis.url is empty)")
    if kafka and not config.kafka.brokers:
        private.append(
            f"a private Kafka broker, found through {config.kafka.directory.resolve()}, that forgets all when it ends"
            " (kafka.brokers is empty)"
        )
    if private:
        log.info("for this machine alone: %s", ", and ".join(private))
