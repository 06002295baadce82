"""Sizes and ranges; proto/engine/v1 says the same in its comments."""

from typing import Final

MAX_ID_BYTES: Final = 256
MAX_EVENT_ID_BYTES: Final = 128
MAX_SURFACE_BYTES: Final = 64
# Devices, countries, demographics, one attribute of an item.
MAX_ATTRIBUTE_BYTES: Final = 64
MAX_TITLE_BYTES: Final = 512
MAX_DESCRIPTION_BYTES: Final = 4096
MAX_ATTRIBUTES: Final = 32
# Names of surfaces that one item may list; more than a deployment has.
MAX_ITEM_SURFACES: Final = 1000
# Items of one answer, and so the last position that an event can name.
MAX_ITEM_COUNT: Final = 200

# The texts of an event, and the most bytes of each.
EVENT_TEXTS: Final = {
    "event_id": MAX_EVENT_ID_BYTES,
    "user_id": MAX_ID_BYTES,
    "item_id": MAX_ID_BYTES,
    "surface": MAX_SURFACE_BYTES,
    "session_id": MAX_ID_BYTES,
    "device": MAX_ATTRIBUTE_BYTES,
    "country": MAX_ATTRIBUTE_BYTES,
    "request_id": MAX_ID_BYTES,
}

# Between the tokens of `attributes` and of `surfaces` in a table; no attribute holds it.
LIST_SEPARATOR: Final = "|"

# 2101-01-01T00:00:00Z. Outside 1970..2100 a time is a unit mistake (milliseconds sent as seconds), not a date.
TIME_END_S: Final = 4_133_980_800
TIME_END_MS: Final = TIME_END_S * 1000
NANOS_PER_SECOND: Final = 1_000_000_000
# Seconds written where milliseconds belong put every date up to the end of 2100 before this moment (17 February 1970).
# To refuse that stretch finds the mistake and costs nobody a real event.
EARLIEST_EVENT_MS: Final = TIME_END_S
# Things may be much older than the events about them: films, books, paintings.
EARLIEST_PUBLISHED_MS: Final = -12_219_292_800_000  # 15 October 1582, the first Gregorian day
