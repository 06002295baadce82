from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from engine.config.seen import FOREVER_S
from engine.config.serving import EngineConfig
from engine.errors import ConfigError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "engine.toml"
    path.write_text('[server]\nport = 1\nhost = "::1"\n[redis]\nurl = "redis://file"\n')
    return path


def test_flags_win_over_the_environment_and_that_over_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGINE_SERVER__PORT", "2")
    monkeypatch.setenv("ENGINE_REDIS__URL", "redis://environment")
    assert EngineConfig.load(file).server.port == 2
    config = EngineConfig.load(file, server={"port": 3})
    # Key by key: what a flag or the environment does not say stays as the file has it.
    assert (config.server.port, config.server.host, config.redis.url) == (3, "::1", "redis://environment")
    assert config.bundle == EngineConfig.load().bundle


def test_surfaces_of_the_file_replace_the_usual_ones(tmp_path: Path) -> None:
    path = tmp_path / "engine.toml"
    path.write_text("[surfaces.tv]\ndiversity_weight = 0.4\n")
    surfaces = EngineConfig.load(path).surfaces
    assert list(surfaces) == ["tv"]
    assert surfaces["tv"].diversity_weight == 0.4


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[server]\nprot = 1", r"server\.prot"),
        ("[sever]\nport = 1", "sever"),
        ("[server]\nport = 70000", r"server\.port"),
        ('[redis]\ntimeout_ms = "soon"', r"redis\.timeout_ms"),
        ("[blend.event_weights]\nwink = 1", r"blend\.event_weights"),
        ('[device]\nretrieval = "tpu"', r"device\.retrieval"),
        ('[device]\nprocess_socket = "/tmp/socket"', r"device: process_socket .* needs process = true"),
        ('[seen.hide]\npurchase = "a month"', r"seen\.hide\.purchase.*'a month'.*no duration; write .*30d"),
        ("[seen.hide]\npurchase = -1", r"seen\.hide\.purchase"),
        ("[seen.hide]\nimpression = 5", r"seen\.hide\.impression"),
        ("[surfaces.home.seen.demote]\nwink = 5", r"surfaces\.home\.seen\.demote\.wink"),
        ("[surfaces.home.seen]\nrecent_share = 1.5", r"surfaces\.home\.seen\.recent_share"),
        ("[seen]\nfree_impressions = 0.5", r"seen: free_impressions is 0 \(off\), or at least 1"),
        ("[server", "engine.toml"),
    ],
)
def test_what_cannot_work_is_named_with_its_file(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "engine.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=said) as error:
        EngineConfig.load(path)
    assert str(path) in str(error.value)


def sections_of(kind: Any) -> set[type[BaseModel]]:
    """Of a section, itself and all those within it; of another type, those in its arguments."""
    found: set[type[BaseModel]] = set()
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        found.add(kind)
        kinds = [field.annotation for field in kind.model_fields.values()]
    else:
        kinds = list(get_args(kind))
    return found.union(*map(sections_of, kinds))


def test_no_section_takes_unknown_keys_or_changes() -> None:
    found = sections_of(EngineConfig)
    assert {"ServerConfig", "HideWindows", "VariantConfig"} <= {section.__name__ for section in found}
    for section in found:
        assert section.model_config["extra"] == "forbid", section
        assert section.model_config["frozen"], section


def test_settings_do_not_change_once_read(file: Path) -> None:
    config = EngineConfig.load(file)
    with pytest.raises(ValueError, match="frozen"):
        config.server.port = 5  # type: ignore[misc]


def test_a_surface_differs_from_all_in_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "engine.toml"
    path.write_text(
        '[seen.hide]\nview = "2h"\npurchase = "forever"\n[seen]\nrecent_share = 0.5\n'
        "[surfaces.home]\n[surfaces.groceries.seen.hide]\npurchase = 0\n"
        '[surfaces.groceries.seen.demote]\nview = "0.5m"\n'
    )
    monkeypatch.setenv("ENGINE_SEEN__HIDE__CLICK", "1d")
    config = EngineConfig.load(path)
    home, groceries = config.seen_on("home"), config.seen_on("groceries")
    assert (home.hide.view, home.hide.click, home.hide.cart, home.hide.purchase) == (7_200, 86_400, 0, FOREVER_S)
    assert (groceries.hide.view, groceries.hide.click, groceries.hide.purchase) == (7_200, 86_400, 0)
    assert (home.demote.view, groceries.demote.view, groceries.demote.click) == (1_800, 30, 1_800)
    assert (home.recent_share, groceries.recent_share) == (0.5, 0.5)
    # As long as some surface asks for it.
    assert config.remembered_s == {
        "view": 7_200, "click": 86_400, "cart": 1_800, "purchase": FOREVER_S, "dwell": 1_800,
    }  # fmt: skip
    # What is written out in full and read again says the same.
    again = EngineConfig(**config.model_dump())
    assert again.seen_on("groceries") == groceries
    assert again.seen_on("home") == home


def test_impressions_are_counted_where_some_surface_looks_at_them() -> None:
    off = {"free_impressions": 0}
    assert EngineConfig.load().impression_items == 500
    assert EngineConfig.load(seen=off).impression_items == 0
    assert EngineConfig.load(seen=off, surfaces={"home": {"seen": {"free_impressions": 3}}}).impression_items == 500
