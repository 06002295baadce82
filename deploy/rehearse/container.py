"""Running an image the way a cluster would."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from deploy.rehearse.build import Image
from deploy.rehearse.root import Command, Mount, entering, joining, make_targets
from engine.errors import EngineError

# For the mounts of a start.
_ENTER_TIMEOUT_S = 20.0


class Container:
    """One run of an image's entry point; a context manager. Process 1, no capabilities, a read-only root.

    Args:
        image: what to run.
        arguments: in place of CMD; CMD where there are none.
        environment: over the image's.
        mounts: what else it sees.
        entrypoint: in place of the image's.
        log: where its output goes.
    """

    def __init__(
        self,
        image: Image,
        log: Path,
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        mounts: Sequence[Mount] = (),
        entrypoint: Sequence[str] = (),
    ) -> None:
        self._image = image
        self._log = log
        self._environment = image.environment | dict(environment or {})
        make_targets(image.root, mounts)
        words = (*entrypoint, *arguments) if entrypoint else (*image.entrypoint, *(arguments or image.command))
        command = Command(words, self._environment, image.directory, image.user)
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                entering(image.root, command, mounts, contained=True),
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip

    @property
    def said(self) -> str:
        return self._log.read_text(errors="replace")

    def run(self, words: Sequence[str], timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
        """Run something beside it, as `docker exec` would; output and errors together in `stdout`."""
        command = Command(tuple(words), self._environment, self._image.directory, self._image.user)
        return subprocess.run(
            joining(self._inside(), command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, timeout=timeout_s, check=False,
        )  # fmt: skip

    def healthy(self) -> bool:
        """What HEALTHCHECK says."""
        return self.run(self._image.health).returncode == 0

    def wait(self, timeout_s: float) -> int:
        """Its exit status, as `docker wait` tells it. Raises subprocess.TimeoutExpired."""
        return self._process.wait(timeout_s)

    def ended(self) -> bool:
        return self._process.poll() is not None

    def stop(self, timeout_s: float) -> int:
        """Send STOPSIGNAL to process 1, and return its exit status. Raises subprocess.TimeoutExpired."""
        os.kill(self._inside(), signal.Signals[self._image.stop_signal])
        return self.wait(timeout_s)

    def _inside(self) -> int:
        """Process 1 as this machine numbers it: the only child of `unshare`, once it is inside its root."""
        parent = self._process.pid
        give_up = time.monotonic() + _ENTER_TIMEOUT_S
        while not self.ended() and time.monotonic() < give_up:
            children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
            if children and _root_of(children[0]) == str(self._image.root):
                return int(children[0])
            time.sleep(0.05)
        raise EngineError(f"the container has ended\n{self.said[-2000:]}")

    def __enter__(self) -> "Container":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


def _root_of(process_id: str) -> str:
    try:
        return os.readlink(f"/proc/{process_id}/root")
    except OSError:
        return ""
