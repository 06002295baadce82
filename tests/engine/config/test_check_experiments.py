"""What settings of experiments cannot be, and how it is said."""

from pathlib import Path

import pytest

from engine.config.serving import EngineConfig
from engine.errors import ConfigError

GOOD = """
[holdout]
share = 0.05

[[experiments]]
name = "ranking"
layer = "models"
buckets = [0, 5000]
surfaces = ["home"]
start = 2026-11-01T00:00:00Z
end = 2026-12-01T00:00:00Z
variants = [{name = "control", share = 0.5}, {name = "plain", share = 0.5, ranker = false}]

[[experiments]]
name = "diversity"
variants = [{name = "none", share = 0.1, diversity_weight = 0.0}]
"""


def load(tmp_path: Path, text: str) -> EngineConfig:
    path = tmp_path / "engine.toml"
    path.write_text(text)
    return EngineConfig.load(path)


def test_good_ones_are_read_and_survive_the_way_to_a_worker(tmp_path: Path) -> None:
    config = load(tmp_path, GOOD)
    ranking, diversity = config.experiments
    assert ranking.layer_name == "models"
    assert diversity.layer_name != ranking.layer_name
    assert [sorted(variant.changes) for variant in ranking.variants] == [[], ["ranker"]]
    assert EngineConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            'share = 0.5}, {name = "plain"',
            'share = 0.51}, {name = "plain"',
            "ranking: the variants' shares come to 1.01",
        ),
        (
            "share = 0.1,",
            "share = 0.12345,",
            r"experiments\.1\.variants\.0\.share = 0\.12345: must be a multiple of 0\.0001",
        ),
        ("share = 0.05", "share = 0.9", r"holdout\.share"),
        ('"plain"', '"control"', "two variants are called control"),
        ('name = "diversity"', 'name = "ranking"', "two are called ranking"),
        ('name = "diversity"', 'name = "holdout"', "global holdout"),
        ('"home"', '"hall"', "ranking: surfaces: hall is none; there are cart"),
        ("share = 0.05", 'share = 0.05\nsurfaces = ["hall"]', "holdout: surfaces: hall"),
        ("end = 2026-12", "end = 2026-10", "ranking: end: must be after start"),
        ("2026-12-01T00:00:00Z", "2026-12-01T00:00:00", r"experiments\.0\.end: .*timezone"),
        ("[0, 5000]", "[5000, 5000]", "ranking: buckets"),
        ("[0, 5000]", "[0, 10001]", "ranking: buckets"),
        ("ranker = false", "ranker = false, baseline = true", "baseline has no ranker"),
        ("ranker = false", "rankr = false", r"variants\.1\.rankr"),
        ('name = "diversity"', 'name = "diversity"\nlayer = "models"', "buckets 0 to 4999 of layer models"),
        ('name = "diversity"', 'name = "diversity"\nsalt = "ranking"', "ranking and diversity have one salt"),
        ("diversity_weight = 0.0", "ranker = true", "different layers and both decide on ranker"),
        ("diversity_weight = 0.0", "baseline = true", "different layers and both decide on baseline"),
    ],
)
def test_what_cannot_be_is_said(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in GOOD
    with pytest.raises(ConfigError, match=said) as error:
        load(tmp_path, GOOD.replace(old, new, 1))
    assert str(error.value).startswith(str(tmp_path / "engine.toml"))
    assert "Value error" not in str(error.value)


@pytest.mark.parametrize(
    "change",
    [
        # One after the other.
        ('name = "diversity"', 'name = "diversity"\nlayer = "models"\nstart = 2026-12-01T00:00:00Z'),
        # Beside each other.
        ('name = "diversity"', 'name = "diversity"\nlayer = "models"\nbuckets = [5000, 10000]'),
        # On other surfaces.
        ('name = "diversity"', 'name = "diversity"\nsurfaces = ["cart"]\nsalt = "other"'),
    ],
)
def test_what_goes_together_is_let_through(tmp_path: Path, change: tuple[str, str]) -> None:
    both = GOOD.replace("diversity_weight = 0.0", "ranker = true") if "surfaces" in change[1] else GOOD
    assert len(load(tmp_path, both.replace(*change)).experiments) == 2
