"""Business rules."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rules:
    """None yet."""
