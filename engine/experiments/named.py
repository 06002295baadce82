"""What experiments name outside of the settings: bundles and rules files."""

from collections.abc import Callable
from pathlib import Path

from engine.config.serving import EngineConfig
from engine.errors import ConfigError
from engine.rules.load import load_rules
from engine.rules.schema import Allow, Deny, Rules


def named_bundles(config: EngineConfig, now_ms: int) -> tuple[str, ...]:
    """The bundle versions of experiments that are not over, each once, in the order of the settings."""
    lasting = [one for one in config.experiments if now_ms < one.end_ms]
    named = [variant.bundle for one in lasting for variant in one.variants if variant.bundle is not None]
    return tuple(dict.fromkeys(named))


def variant_rules(
    config: EngineConfig, server_rules: Rules | None, load: Callable[[Path], Rules] | None = None
) -> dict[str, Rules]:
    """The rules files of all variants, by the name that the settings call them by.

    Args:
        server_rules: those of rules.file. What may be shown is the same for every variant, so that a variant's file may
            repeat their deny and allow rules, and have no others.
        load: what reads a file; by default it is read as it is.

    Raises:
        RulesError: a file that cannot work. ConfigError: one that denies or allows for itself.
    """
    known = [one for one in (server_rules.rules if server_rules else ()) if isinstance(one, Deny | Allow)]
    files = [variant.rules for one in config.experiments for variant in one.variants if isinstance(variant.rules, Path)]
    found: dict[str, Rules] = {}
    for path in dict.fromkeys(files):
        rules = found[str(path)] = load_rules(path, config.surfaces) if load is None else load(path)
        for one in rules.rules:
            if isinstance(one, Deny | Allow) and one not in known:
                raise ConfigError(
                    f"{path}: {one.name!r} denies or allows, which is for rules.file alone: what may be shown is the"
                    " same for every variant; a bury with a small factor is the nearest to it"
                )
    return found
