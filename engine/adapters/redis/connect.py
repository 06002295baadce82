"""What all connections to Redis share."""

from typing import Any, Final

from redis.driver_info import DriverInfo

# How a connection introduces itself (CLIENT SETINFO). Left alone, redis-py looks its own version up among the installed
# packages for every connection: milliseconds of Python, on an event loop where it is one of those.
INTRODUCTION: Final[dict[str, Any]] = {"driver_info": DriverInfo()}
