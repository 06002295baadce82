"""Running an image the way a cluster would."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from deploy.rehearse.build import Image
from deploy.rehearse.root import Command, Mount, entering, joining, make_targets
from engine.errors import EngineError

# For the mounts of a start.
_ENTER_TIMEOUT_S = 20.0


class Running:
    """One run of an image's entry point as a process like any other, away from the sources; a context manager.

    Args:
        image: what to run.
        log: where its output goes.
        arguments: in place of CMD; CMD where there are none.
        environment: over the image's.
        entrypoint: in place of the image's.
    """

    def __init__(
        self,
        image: Image,
        log: Path,
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        entrypoint: Sequence[str] = (),
    ) -> None:
        self._image = image
        self._log = log
        self._environment = image.environment | dict(environment or {})
        words = (*entrypoint, *arguments) if entrypoint else (*image.entrypoint, *(arguments or image.command))
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                self._starting(words), stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=image.root
            )

    @property
    def said(self) -> str:
        return self._log.read_text(errors="replace")

    def run(self, words: Sequence[str], timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
        """Run something beside it, as `docker exec` would; output and errors together in `stdout`."""
        try:
            return subprocess.run(
                self._beside(words), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                text=True, timeout=timeout_s, check=False, cwd=self._image.root,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise EngineError(f"{' '.join(words)[:80]}: not done after {timeout_s:g} s") from None

    def healthy(self) -> bool:
        """What HEALTHCHECK says."""
        return self.run(self._image.health).returncode == 0

    def wait(self, timeout_s: float) -> int:
        """Its exit status. Raises EngineError where it does not end in time."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise EngineError(f"still running after {timeout_s:g} s\n{self.said[-2000:]}") from None

    def ended(self) -> bool:
        return self._process.poll() is not None

    def stop(self, timeout_s: float) -> int:
        """Send STOPSIGNAL to the engine, and return its exit status. Raises as `wait` does."""
        os.kill(self._inside(), signal.Signals[self._image.stop_signal])
        return self.wait(timeout_s)

    def _starting(self, words: Sequence[str]) -> list[str]:
        return ["env", "-i", *(f"{name}={value}" for name, value in self._environment.items()), *words]

    def _beside(self, words: Sequence[str]) -> list[str]:
        return self._starting(words)

    def _inside(self) -> int:
        return self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


class Container(Running):
    """The same as a container: process 1, the image's user without capabilities, a read-only root.

    Args:
        mounts: what else it sees.
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
        self._mounts = tuple(mounts)
        make_targets(image.root, mounts)
        super().__init__(image, log, arguments, environment, entrypoint)

    def _starting(self, words: Sequence[str]) -> list[str]:
        return entering(self._image.root, self._command(words), self._mounts, contained=True)

    def _beside(self, words: Sequence[str]) -> list[str]:
        return joining(self._inside(), self._command(words))

    def _command(self, words: Sequence[str]) -> Command:
        return Command(tuple(words), self._environment, self._image.directory, self._image.user)

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


def _root_of(process_id: str) -> str:
    try:
        return os.readlink(f"/proc/{process_id}/root")
    except OSError:
        return ""
