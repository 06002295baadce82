"""Amounts: of an event and of an item."""

import math
from typing import Final

from engine.types import EventType

# The types of event that carry money; of all others it is refused.
VALUE_TYPES: Final = frozenset({EventType.PURCHASE, EventType.RETURN})
VALUE_BELONGS: Final = "belongs to purchases and returns only"
AMOUNT: Final = "must be finite and not negative"


def amount_fault(value: float) -> str | None:
    """What is wrong with a price or a purchase's value; None when nothing is."""
    return None if math.isfinite(value) and value >= 0 else f"{AMOUNT}, got {value:g}"
