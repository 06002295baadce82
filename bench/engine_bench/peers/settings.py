"""What a peer's process is told, as one argument."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path


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
