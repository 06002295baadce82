"""What one request is answered by: the server's settings, with what its variants change."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from engine.config.experiments import VariantConfig
from engine.config.serving import EngineConfig
from engine.errors import ConfigError
from engine.rules.load import load_rules
from engine.rules.schema import Allow, Deny, Rules
from engine.stages.blend import BlendSettings

# A cosine that no two items have: none are duplicates.
_ALL_DIFFER: Final = 2.0


@dataclass(frozen=True, slots=True)
class RequestSettings:
    """Decided once a request; the stages are told by it and know of no experiment.

    baseline: popularity on the surface, without personalization, exploration and diversity; filters and rules as ever.
    ranker: whether candidates are ranked at all. bundle: the version to answer from, "" for the current one.
    rules: whose boosts, buries, pins, slots, caps and shares hold: "" for the server's, "off", or a file.
    """

    diversity_weight: float
    diversity: str
    duplicate_similarity: float
    blend: BlendSettings
    exploration_share: float
    baseline: bool
    ranker: bool
    bundle: str
    rules: str

    def cheapest(self) -> "RequestSettings":
        """These, answered by what is popular on the surface and nothing that has to be computed; rules hold as ever."""
        return replace(
            self, baseline=True, diversity_weight=0.0, duplicate_similarity=_ALL_DIFFER, exploration_share=0.0
        )


def settings_of(config: EngineConfig, surface: str, variants: Iterable[VariantConfig]) -> RequestSettings:
    """The settings of a surface under these variants, of which no two change the same."""
    changed: dict[str, Any] = {name: getattr(variant, name) for variant in variants for name in variant.changes}
    baseline = bool(changed.get("baseline"))
    surface_settings = config.surfaces[surface]
    blend: dict[str, Any] = {name: changed[name] for name in ("half_life_s", "evidence_half") if name in changed}
    return RequestSettings(
        diversity_weight=0.0 if baseline else changed.get("diversity_weight", surface_settings.diversity_weight),
        diversity=surface_settings.diversity,
        duplicate_similarity=surface_settings.duplicate_similarity,
        blend=BlendSettings.of(config.blend.model_copy(update=blend)),
        exploration_share=0.0 if baseline else changed.get("exploration_share", config.exploration.share),
        baseline=baseline,
        ranker=bool(changed.get("ranker", True)),
        bundle=changed.get("bundle", ""),
        rules=str(changed.get("rules", "")),
    )


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
