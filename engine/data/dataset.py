"""The three tables as arrays: what training, publishing and evaluation work on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from engine.features.history import Histories
from engine.features.returns import taken_back
from engine.features.schema import DEMOGRAPHICS, value_codes
from engine.types import BoolArray, EventType, Float32Array, Int16Array, Int32Array, Int64Array, UInt8Array

# An event that shows interest. An impression only says that the item was shown, dwell that it was looked at, a return
# that it was bought in error.
POSITIVE_EVENTS = (EventType.VIEW, EventType.CLICK, EventType.CART, EventType.PURCHASE)
# What a live session never holds: both say nothing of what a user is after.
_NEVER_IN_SESSION = (EventType.IMPRESSION, EventType.RETURN)


@dataclass(frozen=True, slots=True)
class Interactions:
    """n events in time order (ties in input order), as parallel arrays.

    users, rows: int32 (n,), positions in Dataset.users and Dataset.items. event_types: uint8 (n,).
    timestamps_ms: int64 (n,). values: float32 (n,), money or rating, NaN where absent.
    surfaces, devices, countries: int16 (n,), codes with 0 for unknown, see Dataset.vocabularies.
    """

    users: Int32Array
    rows: Int32Array
    event_types: UInt8Array
    timestamps_ms: Int64Array
    values: Float32Array
    surfaces: Int16Array
    devices: Int16Array
    countries: Int16Array

    def __len__(self) -> int:
        return len(self.users)

    def select(self, mask: BoolArray) -> "Interactions":
        """The events where the mask (n,) is true, still in time order."""
        return Interactions(
            self.users[mask], self.rows[mask], self.event_types[mask], self.timestamps_ms[mask],
            self.values[mask], self.surfaces[mask], self.devices[mask], self.countries[mask],
        )  # fmt: skip

    def is_positive(self) -> BoolArray:
        """bool (n,): whether an event shows interest: POSITIVE_EVENTS, but no purchase that was taken back.

        A purchase of a negative value is none either: money that flows back is no interest, whatever a table calls it.
        """
        purchases = self.event_types == EventType.PURCHASE
        back = taken_back(self.users, self.rows, purchases, self.event_types == EventType.RETURN)
        # A value that is absent is NaN, which is below nothing.
        left_out = back | (purchases & (self.values < 0))
        positive: BoolArray = np.isin(self.event_types, POSITIVE_EVENTS) & ~left_out
        return positive

    def positive(self) -> "Interactions":
        """The events that show interest (is_positive)."""
        return self.select(self.is_positive())

    def of_sessions(self) -> "Interactions":
        """The events that a live session holds."""
        return self.select(~np.isin(self.event_types, _NEVER_IN_SESSION))


@dataclass(frozen=True, slots=True)
class Dataset:
    """Validated tables with positions for ids.

    items: canonical item columns (engine.data.tables), row r of the frame is item row r.
    users: canonical user columns, one line for every user id of either table; position u is user u.
    vocabularies: for "surface", "device", "country", "age_group", "location", "signup_source" the known values,
        sorted; the code of the value at position p is p + 1, 0 is unknown.
    """

    items: pl.DataFrame
    users: pl.DataFrame
    interactions: Interactions
    vocabularies: dict[str, tuple[str, ...]]

    @property
    def item_count(self) -> int:
        return self.items.height

    @property
    def user_count(self) -> int:
        return self.users.height

    def with_interactions(self, interactions: Interactions) -> "Dataset":
        """The same items and users with other events, e.g. a training split."""
        return Dataset(self.items, self.users, interactions, self.vocabularies)

    def histories(self) -> Histories:
        """Every user's positive events in time order."""
        events = self.interactions.positive()
        return Histories.build(events.users, events.rows, events.event_types, events.timestamps_ms, self.user_count)

    def demographic_codes(self) -> Int64Array:
        """int64 (users, 3): age group, location and signup source codes."""
        return demographic_codes(self.users, self.vocabularies)


def demographic_codes(users: pl.DataFrame, vocabularies: Mapping[str, Sequence[str]]) -> Int64Array:
    """int64 (users, 3): age group, location and signup source by these vocabularies, 0 for values they do not have."""
    columns = []
    for name in DEMOGRAPHICS:
        codes = value_codes(vocabularies[name])
        columns.append([codes.get(value or "", 0) for value in users[name]])
    return np.array(columns, np.int64).T.reshape(users.height, len(DEMOGRAPHICS))
