"""What all connections to Redis share, and what is asked of a Redis before it is used."""

import logging
from contextlib import closing
from typing import Any, Final

import redis
from redis.connection import parse_url
from redis.driver_info import DriverInfo

from engine.config.serving import RedisConfig
from engine.errors import ConfigError

log = logging.getLogger(__name__)

# How a connection introduces itself (CLIENT SETINFO). Left alone, redis-py looks its own version up among the installed
# packages for every connection: milliseconds of Python, on an event loop where it is one of those.
INTRODUCTION: Final[dict[str, Any]] = {"driver_info": DriverInfo()}


def check_url(url: str) -> None:
    """Raises ConfigError for a URL that the clients cannot read. The URL is not repeated: it may hold a password."""
    try:
        parse_url(url)  # type: ignore[no-untyped-call]
    except ValueError:
        raise ConfigError(
            "redis.url: cannot be read; it is redis://, rediss:// or unix://, then host:port/database or a path, and in"
            " between user:password@ where Redis wants one, with / : @ ? # as %2F %3A %40 %3F %23"
        ) from None


def warn_of_eviction(url: str, config: RedisConfig) -> None:
    """Log where a Redis removes keys when its memory is full: what is stored there has no other copy. Blocks.

    One that is out of reach, or does not tell, gets no line.
    """
    client = redis.Redis.from_url(
        url, socket_connect_timeout=config.connect_timeout_s, socket_timeout=config.connect_timeout_s, **INTRODUCTION
    )
    try:
        with closing(client):
            memory: Any = client.info("memory")
    except (redis.RedisError, OSError):
        return
    policy = memory.get("maxmemory_policy", "noeviction")
    if policy != "noeviction" and memory.get("maxmemory", 0):
        log.warning(
            "Redis removes keys when its memory is full (maxmemory-policy %s): stock, sessions and what users have"
            " bought would be forgotten; set noeviction, and give it memory enough",
            policy,
        )
