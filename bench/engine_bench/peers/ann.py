"""What an approximate nearest neighbour library must be able to do to be measured against the bundle's index."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from engine.types import Float32Array, Int64Array

BuildProgress = Callable[[int, int], None]
Parameters = dict[str, Any]


class AnnPeer(Protocol):
    """One library, searched by inner product, one thread, one query at a time."""

    name: str
    title: str
    build_parameters: Parameters

    def build(self, vectors: Float32Array, path: Path, progress: BuildProgress) -> None:
        """Index float32 (n, dim), on all cores, into a file or directory that does not exist yet."""
        ...

    def open(self, path: Path, dim: int) -> None:
        """Load what `build` wrote."""
        ...

    def ladders(self, item_count: int, k: int) -> Sequence[Sequence[Parameters]]:
        """Ways to higher recall: each starts with what is quickest and ends with everything that it can do."""
        ...

    def use(self, parameters: Parameters) -> None:
        """Search with these from now on."""
        ...

    def search(self, query: Float32Array, k: int) -> Int64Array:
        """Rows, int64 (at most k,), best first, for float32 (dim,)."""
        ...


def build_or_open(peer: AnnPeer, vectors: Float32Array, directory: Path, progress: BuildProgress) -> None:
    """Open the peer's index of these vectors, which stays in `directory` for the next time."""
    directory.mkdir(parents=True, exist_ok=True)
    described = "-".join(f"{name}{value}" for name, value in peer.build_parameters.items())
    path = directory / f"{peer.name}-{described}"
    if not path.exists():
        # An interrupted build must not leave what looks like an index.
        unfinished = directory / f"{peer.name}.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.unlink(missing_ok=True)
        peer.build(vectors, unfinished, progress)
        unfinished.rename(path)
    peer.open(path, vectors.shape[1])


def rising(first: int, last: int) -> list[int]:
    """first, and on by about 1.25 each time, to last."""
    values = [min(first, last)]
    while values[-1] < last:
        values.append(min(max(values[-1] + 1, round(values[-1] * 1.25)), last))
    return values
