import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import redis

from engine.adapters.redis.embedded import EmbeddedRedis
from engine.errors import ConfigError, DependencyUnavailable


def client_of(server: EmbeddedRedis) -> redis.Redis:
    return redis.Redis.from_url(server.url)


def alive(pid: int) -> bool:
    try:
        # A zombie still has a pid; its state tells.
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_data_outlives_the_server(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path) as server:
        client_of(server).set("key", "value")
    with EmbeddedRedis(tmp_path) as server:
        assert client_of(server).get("key") == b"value"


def test_a_second_opener_shares_the_server_and_does_not_stop_it(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path) as owner:
        with EmbeddedRedis(tmp_path) as guest:
            client_of(guest).set("key", "value")
            assert guest.pid is None
        assert client_of(owner).get("key") == b"value"


def test_it_is_gone_after_close(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path)
    pid = server.pid
    assert pid is not None
    assert alive(pid)
    server.close()
    server.close()
    assert not alive(pid)


@pytest.mark.skipif(sys.platform != "linux", reason="the parent's death reaches the child on Linux only")
def test_it_dies_with_an_owner_that_is_killed(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from engine.adapters.redis.embedded import EmbeddedRedis;"
        "server = EmbeddedRedis(Path(sys.argv[1])); print(server.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        owner.kill()
    for _ in range(100):
        if not alive(pid):
            break
        time.sleep(0.05)
    assert not alive(pid)


def test_a_path_too_long_for_a_socket_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="too long a path"):
        EmbeddedRedis(tmp_path / ("x" * 120))
    assert not os.listdir(tmp_path)


def test_one_that_cannot_start_says_what_its_log_says(tmp_path: Path) -> None:
    (tmp_path / "dump.rdb").write_bytes(b"not what it once saved")
    with pytest.raises(DependencyUnavailable, match=r"redis-server ended with 1; its log ends: .+"):
        EmbeddedRedis(tmp_path)
