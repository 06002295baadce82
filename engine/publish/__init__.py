"""What is computed ahead of requests and published: user records, moved item vectors."""

from importlib import import_module
from typing import Any


def __getattr__(name: str) -> Any:
    # `from engine.publish import publish_users`, from when this was one module.
    try:
        return getattr(import_module("engine.publish.users"), name)
    except AttributeError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
