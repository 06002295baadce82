"""Values that a request carries."""

from dataclasses import dataclass
from enum import IntEnum


class Priority(IntEnum):
    """Which requests a server that has too many answers first."""

    CRITICAL = 1
    DEFAULT = 2
    SHEDDABLE = 3


@dataclass(frozen=True, slots=True)
class Demographics:
    """What is known of a user; an empty string is unknown."""

    age_group: str = ""
    location: str = ""
    signup_source: str = ""

    def or_else(self, other: "Demographics") -> "Demographics":
        """These, with `other` filling in what is unknown here."""
        return Demographics(
            self.age_group or other.age_group,
            self.location or other.location,
            self.signup_source or other.signup_source,
        )
