"""What a user gets for their mistakes at the command line: one line that says what to do, and exit code 2."""

import shutil
import socket
import sys
from pathlib import Path

import pytest

from engine.cli.main import run
from tests.conftest import Trained

MAPPING = Path(__file__).resolve().parents[3] / "examples" / "shop" / "mapping.toml"


def engine(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: object) -> str:
    """Run a command that must fail; returns its one line."""
    monkeypatch.setattr(sys, "argv", ["engine", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit_info:
        run()
    assert exit_info.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("engine: ")]
    assert len(lines) == 1
    assert "Traceback" not in lines[0]
    return lines[0]


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    (tmp_path / "items.csv").write_text("item_id,title\na,A\nb,B\n")
    (tmp_path / "interactions.csv").write_text("user_id,item_id,event_type,timestamp_ms\nu,a,click,1700000000000\n")
    return tmp_path


@pytest.mark.parametrize("command", [["train"], ["evaluate"], ["publish-users"], ["import", "csv"]])
def test_a_missing_directory(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    target = [tmp_path / "out", "--map", MAPPING] if command[0] == "import" else []
    assert "nowhere" in engine(capsys, monkeypatch, *command, tmp_path / "nowhere", *target)


def test_a_wrong_column(tables: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    (tables / "interactions.csv").write_text("user_id,item,event_type,timestamp_ms\nu,a,click,1700000000000\n")
    line = engine(capsys, monkeypatch, "train", tables, "--out", tables / "bundles")
    assert "interactions.csv" in line
    assert "item" in line


def test_a_wrong_value_names_its_row(
    tables: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tables / "interactions.csv").open("a") as file:
        file.write("u,b,clack,1700000000000\n")
    line = engine(capsys, monkeypatch, "train", tables, "--out", tables / "bundles")
    assert "event_type" in line
    assert "row 2" in line
    assert "clack" in line


def test_an_empty_data_set(tables: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    (tables / "interactions.csv").write_text("user_id,item_id,event_type,timestamp_ms\n")
    assert "interactions.csv" in engine(capsys, monkeypatch, "train", tables, "--out", tables / "bundles")


def test_a_data_set_with_too_little_to_learn_from(
    tables: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "training needs" in engine(capsys, monkeypatch, "train", tables, "--out", tables / "bundles")
    assert not (tables / "bundles").exists()


def test_a_setting_that_does_not_exist(
    tables: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tables / "engine.toml").write_text("[server]\nprot = 1\n")
    line = engine(capsys, monkeypatch, "serve", "--config", tables / "engine.toml")
    assert "server.prot" in line
    (tables / "training.toml").write_text("[ranker]\nhiden = [1]\n")
    line = engine(capsys, monkeypatch, "train", tables, "--config", tables / "training.toml")
    assert "ranker.hiden" in line
    (tables / "engine.toml").write_text("[server\n")
    assert "engine.toml" in engine(capsys, monkeypatch, "serve", "--config", tables / "engine.toml")


def test_an_interval_that_is_none(
    tables: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "1h" in engine(capsys, monkeypatch, "publish-users", tables, "--every", "soon")


def test_no_bundle_yet(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGINE_REDIS__DIRECTORY", str(tmp_path / "redis"))
    line = engine(capsys, monkeypatch, "serve", "--bundles", tmp_path / "none", "--port", 0)
    assert "engine train" in line


def test_redis_out_of_reach(
    trained: Trained, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bundles = trained.bundles.directory
    url = "redis://127.0.0.1:1/0"
    assert "Redis cannot be reached" in engine(
        capsys, monkeypatch, "serve", "--bundles", bundles, "--redis-url", url, "--port", 0
    )
    assert "Redis cannot be reached" in engine(
        capsys, monkeypatch, "publish-users", trained.data, "--bundles", bundles, "--redis-url", url
    )


@pytest.mark.parametrize("command", [["serve"], ["serve", "--workers", "2"], ["process"]])
def test_a_redis_url_that_is_none(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENGINE_KAFKA__BROKERS", "127.0.0.1:1")
    line = engine(capsys, monkeypatch, *command, "--bundles", tmp_path / "none", "--redis-url", "redis://h:x/0")
    assert "redis.url: cannot be read" in line


def test_a_bundle_that_does_not_verify(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENGINE_REDIS__DIRECTORY", str(tmp_path / "redis"))
    bundles = shutil.copytree(trained.bundles.directory, tmp_path / "bundles", symlinks=True)
    table = bundles / "current" / "item_table.npy"
    table.write_bytes(table.read_bytes()[:-4])
    line = engine(capsys, monkeypatch, "serve", "--bundles", bundles, "--port", 0)
    assert "item_table.npy" in line
    assert "truncated" in line


def test_a_port_in_use(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENGINE_REDIS__DIRECTORY", str(tmp_path / "redis"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        line = engine(
            capsys, monkeypatch, "serve", "--bundles", trained.bundles.directory, "--host", "127.0.0.1", "--port", port
        )
    assert str(port) in line
    assert "in use" in line


class TestSettings:
    """What commands say of their settings, before they do anything."""

    @pytest.mark.parametrize("command", [["serve"], ["process"], ["publish-users", "."], ["bundles", "list"]])
    def test_an_unknown_variable(
        self, command: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("ENGINE_REDIS_URL", "redis://127.0.0.1:1/0")
        line = engine(capsys, monkeypatch, *command)
        assert line == "engine: ENGINE_REDIS_URL: no such setting; did you mean ENGINE_REDIS__URL?"

    @pytest.mark.parametrize("command", ["serve", "publish-users"])
    def test_private_stores_are_announced(
        self, command: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("ENGINE_REDIS__DIRECTORY", str(tmp_path / "redis"))
        monkeypatch.setenv("ENGINE_KAFKA__DIRECTORY", str(tmp_path / "kafka"))
        data = [str(tmp_path)] if command == "publish-users" else ["--port", "0"]
        monkeypatch.setattr(sys, "argv", ["engine", command, *data, "--bundles", str(tmp_path / "none")])
        with caplog.at_level("INFO", "engine"), pytest.raises(SystemExit):
            run()
        (line,) = [record.getMessage() for record in caplog.records if "for this machine alone" in record.message]
        assert f"a private Redis in {tmp_path}/redis (redis.url is empty)" in line
        assert ("a private Kafka broker" in line) is (command == "serve")

    def test_stores_that_are_named_are_not(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("ENGINE_REDIS__URL", "redis://127.0.0.1:1/0")
        monkeypatch.setenv("ENGINE_KAFKA__BROKERS", "127.0.0.1:1")
        monkeypatch.setattr(sys, "argv", ["engine", "serve", "--port", "0", "--bundles", str(tmp_path / "none")])
        with caplog.at_level("INFO", "engine"), pytest.raises(SystemExit):
            run()
        assert not [record for record in caplog.records if "for this machine alone" in record.message]
