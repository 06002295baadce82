"""What can be set: for serving, surfaces, experiments, and where settings come from."""

from importlib import import_module
from typing import Any


def __getattr__(name: str) -> Any:
    # `from engine.config import EngineConfig`, from when this was one module.
    try:
        return getattr(import_module("engine.config.serving"), name)
    except AttributeError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
