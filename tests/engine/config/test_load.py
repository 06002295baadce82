"""What is wrong in settings is said with its source, its key, its value and what is allowed."""

from pathlib import Path

import pytest

from engine.config.serving import EngineConfig
from engine.errors import ConfigError
from engine.training.config import TrainingConfig


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "engine.toml"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[server]\nprot = 1", "server.prot: no such setting; did you mean server.port?"),
        ("[sever]\nport = 1", "sever: no such setting; did you mean server?"),
        ("[server]\nseen_limit = 1", "server.seen_limit: no such setting; did you mean redis.seen_limit?"),
        ("port = 1", "port: no such setting; did you mean server.port?"),
        ("quite_another = 1", "quite_another: no such setting"),
        ('[surfaces.""]\ndiversity_weight = 0.5', "surfaces: a surface must have a name"),
        (
            "[surfaces.home]\ndiversty_weight = 1",
            "surfaces.home.diversty_weight: no such setting; did you mean surfaces.home.diversity_weight?",
        ),
        (
            '[[experiments]]\nname = "x"\nvariants = [{name = "a", share = 1, rankr = false}]',
            "experiments.0.variants.0.rankr: no such setting; did you mean experiments.0.variants.0.ranker?",
        ),
        ("[blend.event_weights]\nclik = 1", "blend.event_weights.clik: no such key; it must be 'impression', "),
        ("[server]\nport = 70000", "server.port = 70000: must be from 0 to 65,535"),
        ("[retrieval]\ncandidate_count = 0", "retrieval.candidate_count = 0: must be from 1 to 10,000"),
        ("[redis]\nconnect_timeout_s = -1", "redis.connect_timeout_s = -1: must be from 0.1 to 300"),
        ("[redis]\ntimeout_ms = inf", "redis.timeout_ms = inf: must be a finite number, from 1 to 3,600,000"),
        ('[redis]\ntimeout_ms = "soon"', "redis.timeout_ms = 'soon': must be a number, from 1 to 3,600,000"),
        ("[server]\nport = 1.5", "server.port = 1.5: must be a whole number, from 0 to 65,535"),
        ('[device]\nretrieval = "tpu"', "device.retrieval = 'tpu': must be 'cpu' or 'cuda'"),
        ('redis = "here"', "redis: must be a table"),
        ('[[experiments]]\nname = "x"\nvariants = [{name = "a"}]', "experiments.0.variants.0.share: is required"),
        ('[device]\nprocess_socket = "/tmp/socket"', "device: process_socket is of a device process: it needs"),
    ],
)
def test_the_file(file: Path, text: str, said: str) -> None:
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        EngineConfig.load(file)
    assert str(caught.value).startswith(f"{file}: {said}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        (
            "ENGINE_REDIS_URL",
            "redis://u:secret@h",
            "ENGINE_REDIS_URL: no such setting; did you mean ENGINE_REDIS__URL?",
        ),
        ("ENGINE_REDIS__ULR", "x", "ENGINE_REDIS__ULR: no such setting; did you mean ENGINE_REDIS__URL?"),
        ("ENGINE_SEVER__PORT", "1", "ENGINE_SEVER__PORT: no such setting; did you mean ENGINE_SERVER__PORT?"),
        ("ENGINE_PORT", "50051", "ENGINE_PORT: no such setting; did you mean ENGINE_SERVER__PORT?"),
        (
            "ENGINE_SURFACES__HOME__DIVERSITY",
            "x",
            "ENGINE_SURFACES__HOME__DIVERSITY: surfaces.home.diversity = 'x': must be 'mmr' or 'dpp'",
        ),
        (
            "ENGINE_SURFACES__HOME__DIVRSITY_WEIGHT",
            "1",
            "ENGINE_SURFACES__HOME__DIVRSITY_WEIGHT: no such setting; did you mean "
            "ENGINE_SURFACES__HOME__DIVERSITY_WEIGHT?",
        ),
        ("ENGINE_FLAVOUR", "1", "ENGINE_FLAVOUR: no such setting; settings are ENGINE_<SECTION>__<KEY>"),
        ("ENGINE_SERVER__PORT", "70000", "ENGINE_SERVER__PORT: server.port = '70000': must be from 0 to 65,535"),
        ("ENGINE_SERVER", '{"port": 70000}', "ENGINE_SERVER: server.port = 70000: must be from 0 to 65,535"),
        ("ENGINE_SERVER", "here", "ENGINE_SERVER: must be JSON, as all of server: "),
        ("ENGINE_KAFKA__PROPERTIES", "a=b", "ENGINE_KAFKA__PROPERTIES: must be JSON, as all of kafka.properties: "),
    ],
)
def test_the_environment(monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as caught:
        EngineConfig.load()
    assert str(caught.value).startswith(said)
    assert "secret" not in str(caught.value)


def test_everything_is_said_at_once(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text('[server]\nport = 70000\n[redis]\nurll = "redis://u:secret@h"\n')
    monkeypatch.setenv("ENGINE_SERVER__HOTS", "x")
    monkeypatch.setenv("ENGINE_BUNDLE__POLL_S", "0")
    with pytest.raises(ConfigError) as caught:
        EngineConfig.load(file, server={"workers": 0})
    assert str(caught.value).splitlines() == [
        "ENGINE_SERVER__HOTS: no such setting; did you mean ENGINE_SERVER__HOST?",
        f"{file}: server.port = 70000: must be from 0 to 65,535",
        "the command line: server.workers = 0: must be from 1 to 256",
        f"{file}: redis.urll: no such setting; did you mean redis.url?",
        "ENGINE_BUNDLE__POLL_S: bundle.poll_s = '0': must be from 0.001 to 3,600",
    ]


def test_secrets_stay_where_they_are(file: Path) -> None:
    file.write_text('[kafka.properties]\n"sasl.password" = ["secret"]\n[redis]\nurl = ["secret"]\n')
    with pytest.raises(ConfigError) as caught:
        EngineConfig.load(file)
    assert str(caught.value).splitlines() == [
        f"{file}: redis.url: must be text",
        f"{file}: kafka.properties.sasl.password: must be text",
    ]


def test_a_service_called_engine_is_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Kubernetes puts into every container of a namespace, and Docker's links."""
    port = {"": "tcp://10.0.0.1:50051", "_50051_TCP": "tcp://10.0.0.1:50051", "_50051_TCP_PROTO": "tcp"}
    port |= {"_50051_TCP_PORT": "50051", "_50051_TCP_ADDR": "10.0.0.1"}
    for service in ("ENGINE", "ENGINE_METRICS", "ENGINE_SERVER", "ENGINE_REDIS"):
        monkeypatch.setenv(f"{service}_SERVICE_HOST", "10.0.0.1")
        monkeypatch.setenv(f"{service}_SERVICE_PORT", "50051")
        monkeypatch.setenv(f"{service}_SERVICE_PORT_GRPC", "50051")
        for suffix, value in port.items():
            monkeypatch.setenv(f"{service}_PORT{suffix}", value)
    monkeypatch.setenv("ENGINE_NAME", "/web/engine")
    monkeypatch.setenv("ENGINE_ENV_LANG", "C")
    monkeypatch.setenv("ENGINE_CONFIG", "/etc/engine/engine.toml")
    assert EngineConfig.load() == EngineConfig()


def test_sections_and_keys_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGINE_SERVER__PORT", "3")
    monkeypatch.setenv("ENGINE_SERVER", '{"port": 1, "host": "::1"}')
    monkeypatch.setenv("ENGINE_CATALOG__CATEGORIES", '["shoes", "hats"]')
    monkeypatch.setenv("ENGINE_KAFKA__PROPERTIES", '{"security.protocol": "SSL"}')
    monkeypatch.setenv("engine_blend__event_weights__click", "2")
    config = EngineConfig.load()
    assert (config.server.port, config.server.host) == (3, "::1")
    assert config.catalog.categories == ("shoes", "hats")
    assert config.kafka.properties == {"security.protocol": "SSL"}
    assert config.blend.event_weights["click"] == 2


def test_settings_of_training(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGINE_ALS__DIM", "no business of training's")
    file.write_text("[als]\ndims = 3\niterations = 0\n")
    with pytest.raises(ConfigError) as caught:
        TrainingConfig.load(file)
    assert str(caught.value).splitlines() == [
        f"{file}: als.iterations = 0: must be from 1 to 1,000",
        f"{file}: als.dims: no such setting; did you mean als.dim?",
    ]
