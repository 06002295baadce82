"""Bundles and rules files that experiments name."""

import datetime
from pathlib import Path
from typing import Any

import pytest

from engine.config.serving import EngineConfig
from engine.errors import ConfigError, RulesError
from engine.experiments.settings import named_bundles, variant_rules
from engine.rules.load import load_rules

END = datetime.datetime(2026, 12, 1, tzinfo=datetime.UTC)
END_MS = int(END.timestamp() * 1000)


def config(*experiments: tuple[str, dict[str, Any], list[dict[str, Any]]]) -> EngineConfig:
    """Experiments of a name, fields, and what each variant says."""
    return EngineConfig(
        experiments=[
            {
                "name": name,
                "layer": "one",
                "buckets": (1000 * place, 1000 * place + 1000),
                "variants": [{"name": f"v{number}", "share": 0.1, **one} for number, one in enumerate(variants)],
                **fields,
            }
            for place, (name, fields, variants) in enumerate(experiments)
        ]
    )


def test_bundles_are_needed_until_their_experiments_are_over() -> None:
    settings = config(
        ("ends", {"end": END}, [{}, {"bundle": "v3"}, {"bundle": "v1"}]),
        ("stays", {}, [{"bundle": "v1"}, {"bundle": "v2"}]),
    )
    assert named_bundles(settings, END_MS - 1) == ("v3", "v1", "v2")
    assert named_bundles(settings, END_MS) == ("v1", "v2")
    assert named_bundles(EngineConfig(), 0) == ()


DENY = "- {name: no x, action: deny, items: {brand: x}}\n"
ALLOW = "- {name: only y, action: allow, items: {brand: y}}\n"
BOOST = "- {name: up, action: boost, factor: 2, items: {brand: z}}\n"


def written(path: Path, *rules: str) -> Path:
    path.write_text("version: 1\nrules:\n" + "".join(rules))
    return path


def test_variants_place_and_repeat_but_show_nothing_of_their_own(tmp_path: Path) -> None:
    server = load_rules(written(tmp_path / "server.yaml", DENY, BOOST), EngineConfig().surfaces)
    repeats = written(tmp_path / "repeats.yaml", DENY, BOOST)
    settings = config(("e", {}, [{"rules": repeats}, {"rules": "off"}, {}]), ("f", {}, [{"rules": repeats}]))
    found = variant_rules(settings, server)
    assert list(found) == [str(repeats)]
    assert [rule.name for rule in found[str(repeats)].rules] == ["no x", "up"]
    for number, own in enumerate((ALLOW, DENY.replace("brand: x", "brand: w"))):
        wrong = config(("e", {}, [{"rules": written(tmp_path / f"own-{number}.yaml", BOOST, own)}]))
        with pytest.raises(ConfigError, match=rf"own-{number}\.yaml: .* denies or allows"):
            variant_rules(wrong, server)
    # A server without rules has nothing that could be repeated.
    with pytest.raises(ConfigError, match="'no x' denies or allows"):
        variant_rules(settings, None)
    boosts = config(("e", {}, [{"rules": written(tmp_path / "boosts.yaml", BOOST)}]))
    assert len(variant_rules(boosts, None)) == 1
    with pytest.raises(RulesError, match="cannot be read"):
        variant_rules(config(("e", {}, [{"rules": tmp_path / "nowhere.yaml"}])), None)
