"""Which peers there are, and which can be measured: naive, null and numpy need no further package."""

from importlib.util import find_spec

PEERS = ("naive", "null", "mosec", "scann", "numpy", "pyversity")


def missing(*packages: str) -> str | None:
    """Why a peer that needs these packages is left out; None where all are there."""
    for package in packages:
        if find_spec(package) is None:
            return f"{package} is not installed; it is in the extra peers: pip install './bench[peers]'"
    return None
