"""Settings of a server that one test starts."""

from typing import Any

from engine.config.serving import EngineConfig


def server_config(surfaces: tuple[str, ...] = ("home",), **values: Any) -> EngineConfig:
    """These surfaces, a free port of this machine, other sections as dicts, and values of the section `server`."""
    sections = {name: value for name, value in values.items() if isinstance(value, dict)}
    own = {name: value for name, value in values.items() if name not in sections}
    section = {"host": "127.0.0.1", "port": 0, "adaptive_concurrency": False, **own}
    return EngineConfig.model_validate({"surfaces": {name: {} for name in surfaces}, "server": section, **sections})
