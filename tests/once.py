"""What takes long to make is made once a run, by whichever test process needs it first."""

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest


def once_a_run(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A directory that `make` has filled, of this process's own, so that no test can change it under another process.

    Args:
        factory: of the run; its processes have their directories side by side in the run's own.
        name: of what is made; the same for the same content.
        make: fills the empty directory that it is given. Where it fails, the next process tries again.
    """
    mine = factory.mktemp(name, numbered=False)
    if "PYTEST_XDIST_WORKER" not in os.environ:
        make(mine)
        return mine
    shared = factory.getbasetemp().parent / "once"
    shared.mkdir(exist_ok=True)
    made = shared / name
    with (shared / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            staging = shared / f"{name}.{os.getpid()}"
            staging.mkdir()
            make(staging)
            staging.rename(made)
    shutil.copytree(made, mine, symlinks=True, dirs_exist_ok=True)
    return mine
