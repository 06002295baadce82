"""Compiled kernels are kept on disk for as long as no kernel's source changes.

A kernel that calls another one contains its code. Numba's cache only looks at the file of the kernel itself, so that
after a change in the other one it would go on with the old code.
"""

import hashlib
from pathlib import Path
from typing import Any

from numba.core.caching import CacheImpl

_KERNELS = Path(__file__).resolve().parent


def install() -> None:
    """Name the files of compiled kernels after the sources of all of them; call it before a kernel is declared.

    Cost: reading the sources, some 100 kB. A change in any of them compiles every kernel once more, and the files of
    the former sources stay until somebody deletes them. The place is numba's own choice, as are `NUMBA_CACHE_DIR` and
    the cache of other packages.
    """
    if KernelLocator not in CacheImpl._locator_classes:
        CacheImpl._locator_classes.insert(0, KernelLocator)


class KernelLocator:
    """Finds the cache of a kernel where numba would, under another name."""

    @classmethod
    def from_function(cls, function: Any, file: str) -> Any:
        """Numba's locator of the function's cache, or None for a function that is no kernel."""
        if Path(file).resolve().parent != _KERNELS:
            return None
        others = [locator for locator in CacheImpl._locator_classes if locator is not cls]
        found = next((found for other in others if (found := other.from_function(function, file))), None)
        if found is not None:
            # Part of the name rather than numba's source stamp: two processes that start after a change would write
            # index and code of the same files one after the other, and one could read the new index with the old code.
            name = f"{found.get_disambiguator()}-{_DIGEST}"
            found.get_disambiguator = lambda: name
        return found


def _digest_of_sources() -> str:
    digest = hashlib.sha256()
    for source in sorted(_KERNELS.glob("*.py")):
        content = source.read_bytes()
        digest.update(f"{source.name} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()[:16]


_DIGEST = _digest_of_sources()
