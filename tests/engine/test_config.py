from pathlib import Path

import pytest

from engine.config import EngineConfig
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
        ("[server", "engine.toml"),
    ],
)
def test_what_cannot_work_is_named_with_its_file(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "engine.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=said) as error:
        EngineConfig.load(path)
    assert str(path) in str(error.value)


def test_settings_do_not_change_once_read(file: Path) -> None:
    config = EngineConfig.load(file)
    with pytest.raises(ValueError, match="frozen"):
        config.server.port = 5  # type: ignore[misc]
