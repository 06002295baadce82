"""What a peer's process is told, as one argument."""

import json
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

PEERS = ("naive", "null", "mosec", "scann", "numpy", "pyversity")


def missing(*packages: str) -> str | None:
    """Why a peer that needs these packages is left out; None where all are there."""
    for package in packages:
        if find_spec(package) is None:
            return f"{package} is not installed; it is in the extra peers: pip install './bench[peers]'"
    return None


@dataclass(frozen=True, slots=True)
class PeerSettings:
    """bundle: directory. tiled: graph file. port: for peers that serve HTTP. workers: processes that compute there."""

    bundle: Path
    tiled: Path
    redis_url: str
    port: int = 0
    workers: int = 1

    def text(self) -> str:
        return json.dumps(asdict(self) | {"bundle": str(self.bundle), "tiled": str(self.tiled)})

    @staticmethod
    def parse(text: str) -> "PeerSettings":
        values = json.loads(text)
        return PeerSettings(**values | {"bundle": Path(values["bundle"]), "tiled": Path(values["tiled"])})
