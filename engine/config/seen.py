"""Settings of the seen policy: which events keep an item away from whoever they are of, how, and for how long."""

import re
from collections.abc import Iterable
from typing import Annotated, Final, Self

from pydantic import BeforeValidator, Field, model_validator

from engine.config.load import Section

FOREVER_S: Final = 100 * 365 * 86_400
_UNITS_S: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 7 * 86_400}


def _seconds(value: object) -> object:
    """Seconds of a number, of a text such as 30d, or of "forever"."""
    if isinstance(value, str):
        text = value.strip().lower()
        if text == "forever":
            return FOREVER_S
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw]?)", text)
        if match is None:
            raise ValueError('no duration; write seconds, or e.g. "45m", "12h", "30d", "forever"')
        value = float(match[1]) * _UNITS_S[match[2] or "s"]
    if isinstance(value, float) and value == value and abs(value) != float("inf"):
        # Above zero a fraction of a second is not nothing.
        return int(-(-value // 1))
    return value


Duration = Annotated[int, BeforeValidator(_seconds), Field(ge=0, le=FOREVER_S)]


class SeenWindows(Section):
    """For how long an event counts, by its type: seconds, a text such as "30d", or "forever"; 0: not at all."""

    view: Duration = 0
    click: Duration = 0
    cart: Duration = 0
    purchase: Duration = 0
    dwell: Duration = 0


class HideWindows(SeenWindows):
    purchase: Duration = 30 * 86_400


class DemoteWindows(SeenWindows):
    """Half an hour: the session of which these events are."""

    view: Duration = 1_800
    click: Duration = 1_800
    cart: Duration = 1_800
    purchase: Duration = 1_800
    dwell: Duration = 1_800


class SeenConfig(Section):
    """What may come again, and when."""

    hide: HideWindows = Field(HideWindows(), description="how long an event of a type hides its item")
    demote: DemoteWindows = Field(DemoteWindows(), description="how long it ranks the item below similar ones")
    demotion: float = Field(0.5, gt=0, le=1, description="what the score of a demoted item is multiplied by")
    recent_share: float = Field(
        0.2, ge=0, le=1, description="of the slate's items, at most so many demoted by events while there are others"
    )
    free_impressions: float = Field(
        5.0,
        ge=0,
        le=200,
        description="showings without interest that cost nothing; as many again halve the score; 0: off",
    )

    @model_validator(mode="after")
    def _free_is_nothing_or_more_than_one(self) -> Self:
        if 0 < self.free_impressions < 1:
            raise ValueError("free_impressions is 0 (off), or at least 1")
        return self

    def windows_s(self) -> dict[str, int]:
        """By event type, for how long an event says anything."""
        return {name: max(getattr(self.hide, name), getattr(self.demote, name)) for name in SeenWindows.model_fields}


class WindowsOfSurface(Section):
    view: Duration | None = None
    click: Duration | None = None
    cart: Duration | None = None
    purchase: Duration | None = None
    dwell: Duration | None = None


class SeenOfSurface(Section):
    """What a surface has of its own; what it does not say is as in SeenConfig."""

    hide: WindowsOfSurface = WindowsOfSurface()
    demote: WindowsOfSurface = WindowsOfSurface()
    demotion: float | None = Field(None, gt=0, le=1)
    recent_share: float | None = Field(None, ge=0, le=1)
    free_impressions: float | None = Field(None, ge=0, le=200)

    def over(self, base: SeenConfig) -> SeenConfig:
        """The policy of the surface where `base` is that of all. Raises pydantic.ValidationError."""
        own = self.model_dump(exclude_none=True)
        values = base.model_dump() | own
        for name in ("hide", "demote"):
            values[name] = getattr(base, name).model_dump() | own[name]
        return SeenConfig.model_validate(values)


def never_again() -> SeenConfig:
    """Nothing that somebody has turned to is shown to them again, and nothing is demoted."""
    hide = HideWindows(**dict.fromkeys(SeenWindows.model_fields, FOREVER_S) | {"dwell": 0})
    return SeenConfig(hide=hide, demote=DemoteWindows(**dict.fromkeys(SeenWindows.model_fields, 0)), free_impressions=0)


def remembered_s(policies: Iterable[SeenConfig]) -> dict[str, int]:
    """By event type, for how long some of these policies asks for it: what need not be stored is not."""
    windows = [policy.windows_s() for policy in policies]
    return {name: max((one[name] for one in windows), default=0) for name in SeenWindows.model_fields}
