"""Surfaces: the places where recommendations are shown. Which ones there are, the serving settings decide."""

from collections.abc import Set
from typing import Final

from engine.contract.limits import MAX_SURFACE_BYTES
from engine.contract.text import checked_text
from engine.errors import InvalidRequest

# More would not help the reader, and a status travels in HTTP/2 headers of 8 KiB.
LISTED_SURFACES: Final = 20


def checked_surface(surface: str, surfaces: Set[str]) -> str:
    """The surface itself; InvalidRequest where it is absent or not one of these."""
    if surface in surfaces:
        return surface
    checked_text("surface", surface, MAX_SURFACE_BYTES, required=True)
    raise InvalidRequest("surface", f"unknown; this server knows {listed(surfaces)}")


def listed(surfaces: Set[str]) -> str:
    """The names, in order, as far as a reader wants them."""
    known = sorted(surfaces)
    more = f" and {len(known) - LISTED_SURFACES} more" if len(known) > LISTED_SURFACES else ""
    return f"{', '.join(known[:LISTED_SURFACES])}{more}"
