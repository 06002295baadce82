"""What a report is asked, the rules by which it counts, and what the settings say where the question does not."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from engine.config.experiments import HOLDOUT
from engine.config.serving import EngineConfig
from engine.errors import InvalidRequest
from engine.experiments.assign import HELD_OUT, NOT_HELD_OUT

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
# Names of a variant that a report takes for the control without being told.
CONTROL_NAMES = ("control", "holdout", "baseline", "popularity")


# A lift of this size is what always-valid intervals are sharpest for. It must be chosen before the data are seen.
DEFAULT_LIFT_SCALE = 0.1


class Correction(StrEnum):
    """holm: 5% for *any* false claim in the report. bh: 5% of the claims made may be false. none: each by itself."""

    HOLM = "holm"
    BH = "bh"
    NONE = "none"


class Clock(StrEnum):
    """Whose time exposures are counted by: when the server answered, or the moment that the request was about."""

    SERVER = "server"
    REQUEST = "request"


@dataclass(frozen=True, slots=True)
class ReportRules:
    """How a report counts.

    window_ms: a click or purchase belongs to an exposure for so long.
    session_gap_ms: silence that ends a session.
    before_days: how far back CUPED looks before the first exposure; 0: not at all.
    bot_hourly_requests: whoever asks more often within one hour (UTC) is taken for a bot.
    new_below: users with fewer interactions at their first exposure are new.
    alpha: 0.05 for intervals of 95%.
    lift_scale: what the always-valid intervals are sharpest for; see engine.experiments.analysis.significance.
    clock: REQUEST for traffic that was replayed or simulated faster than it happened.

    Raises:
        InvalidRequest: a value out of range.
    """

    window_ms: int = 24 * HOUR_MS
    session_gap_ms: int = HOUR_MS // 2
    before_days: int = 14
    bot_hourly_requests: int = 300
    new_below: int = 5
    alpha: float = 0.05
    correction: Correction = Correction.HOLM
    lift_scale: float = DEFAULT_LIFT_SCALE
    clock: Clock = Clock.SERVER

    def __post_init__(self) -> None:
        for name in ("window_ms", "session_gap_ms", "bot_hourly_requests", "lift_scale"):
            if not getattr(self, name) > 0:
                raise InvalidRequest(name, f"must be above 0, got {getattr(self, name)}")
        if not 0 <= self.before_days <= 365:
            raise InvalidRequest("before_days", f"must be between 0 and 365, got {self.before_days}")
        if not 0 < self.alpha < 0.5:
            raise InvalidRequest("alpha", f"must be between 0 and 0.5, got {self.alpha:g}")

    @property
    def confidence(self) -> str:
        """The level of the intervals, as text: "95%"."""
        return f"{100 * (1 - self.alpha):g}%"


@dataclass(frozen=True, slots=True)
class ReportQuery:
    """What is asked.

    experiment: its name; empty in engine.experiments.analysis.plan, for whoever was served.
    surface: one alone, or empty for each and all together.
    from_ms, to_ms: exposures served in [from_ms, to_ms), milliseconds since 1970; None: no bound.
    control: the variant that the others are held against; empty: the one that bears one of CONTROL_NAMES.
    shares: planned of each variant, in any proportion; empty: unknown, and then the split is not checked.

    Raises:
        InvalidRequest: the period is empty.
    """

    experiment: str
    surface: str = ""
    from_ms: int | None = None
    to_ms: int | None = None
    control: str = ""
    shares: Mapping[str, float] = field(default_factory=dict)
    rules: ReportRules = field(default_factory=ReportRules)

    def __post_init__(self) -> None:
        if self.from_ms is not None and self.to_ms is not None and self.from_ms >= self.to_ms:
            raise InvalidRequest("to", "must be later than `from`")

    def control_among(self, variants: list[str]) -> str:
        """The control.

        Raises:
            InvalidRequest: it was not seen, or cannot be told.
        """
        listed = ", ".join(repr(name) for name in variants)
        if self.control:
            if self.control not in variants:
                raise InvalidRequest("control", f"nobody has seen the variant {self.control!r}, only {listed}")
            return self.control
        for name in CONTROL_NAMES:
            if name in variants:
                return name
        raise InvalidRequest("control", f"which of the variants {listed} is the control must be said")


def as_declared(question: ReportQuery, config: EngineConfig) -> ReportQuery:
    """The question with planned shares and control of the settings, where it leaves them open and they have them.

    The control is the one variant that gets the baseline; where several or none do, the question stays open.
    """
    shares, baselines = _plan(question.experiment, config)
    control = baselines[0] if len(baselines) == 1 else ""
    return replace(question, shares=question.shares or shares, control=question.control or control)


def _plan(experiment: str, config: EngineConfig) -> tuple[dict[str, float], list[str]]:
    if experiment == HOLDOUT and config.holdout.share > 0:
        held = config.holdout.share
        return {HELD_OUT.variant: held, NOT_HELD_OUT.variant: 1.0 - held}, [HELD_OUT.variant]
    for one in config.experiments:
        if one.name == experiment:
            shares = {variant.name: variant.share for variant in one.variants}
            return shares, [variant.name for variant in one.variants if variant.baseline]
    return {}, []
