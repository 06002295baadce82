"""Experiments as settings declare them, each section checked by itself (together: see check_experiments)."""

from pathlib import Path
from typing import Final, Literal, Self

from pydantic import AwareDatetime, Field, field_validator, model_validator

from engine.config.load import Section

HOLDOUT: Final = "holdout"
# What layers, experiments and the holdout are divided into: shares are multiples of a ten-thousandth.
BUCKETS: Final = 10_000
RULES_OFF: Final = "off"
_NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9 _.-]{0,63}$"
_END_MS: Final = 1 << 62


class VariantConfig(Section):
    """One way to answer; what it does not say is as the rest of the settings has it."""

    name: str = Field(pattern=_NAME)
    share: float = Field(gt=0, le=1, description="of the users in the experiment's buckets; multiples of 0.0001")
    baseline: bool = Field(False, description="what is popular on the surface, without personalization")
    bundle: str | None = Field(None, min_length=1, description="a version in bundle.directory")
    ranker: bool | None = Field(None, description="false: candidates keep their retrieval order")
    diversity_weight: float | None = Field(None, ge=0, le=1, description="a request's own goes before it")
    half_life_s: float | None = Field(None, ge=0.001, le=10 * 365 * 86_400, description="blend.half_life_s")
    evidence_half: float | None = Field(None, ge=0.001, le=1_000_000, description="blend.evidence_half")
    rules: Literal["off"] | Path | None = Field(
        None, description="another file's boosts, buries, pins, slots, caps and minimum shares, or none"
    )
    exploration_share: float | None = Field(None, ge=0, le=0.5, description="exploration.share")

    @property
    def changes(self) -> frozenset[str]:
        """The settings that it says something of."""
        fields = VariantConfig.model_fields
        return frozenset(
            name for name in fields if name not in ("name", "share") and getattr(self, name) != fields[name].default
        )

    @field_validator("share")
    @classmethod
    def _whole_buckets(cls, share: float) -> float:
        return _checked_share(share)

    @model_validator(mode="after")
    def _baseline_alone(self) -> Self:
        others = self.changes - {"baseline", "rules", "bundle"}
        if self.baseline and others:
            raise ValueError(f"the baseline has no {sorted(others)[0]}")
        return self


class ExperimentConfig(Section):
    """Variants that are compared with each other on some surfaces."""

    name: str = Field(pattern=_NAME)
    salt: str = Field("", max_length=64, description="another one deals users to the variants again; empty: the name")
    layer: str = Field("", max_length=64, description="what excludes each other is in one; empty: one of its own")
    buckets: tuple[int, int] = Field((0, BUCKETS), description="first and end, of the 10,000 of the layer")
    surfaces: tuple[str, ...] = Field((), description="empty: all")
    unit: Literal["user"] = Field("user", description="the user, or the visit where there is none")
    start: AwareDatetime | None = None
    end: AwareDatetime | None = None
    variants: tuple[VariantConfig, ...] = Field(min_length=1, max_length=100)

    @property
    def layer_name(self) -> str:
        return self.layer or f"of {self.name}"

    @property
    def start_ms(self) -> int:
        return 0 if self.start is None else round(self.start.timestamp() * 1000)

    @property
    def end_ms(self) -> int:
        return _END_MS if self.end is None else round(self.end.timestamp() * 1000)

    def overlaps_in_time(self, other: "ExperimentConfig") -> bool:
        return self.start_ms < other.end_ms and other.start_ms < self.end_ms

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        first, end = self.buckets
        if not 0 <= first < end <= BUCKETS:
            raise ValueError(f"{self.name}: buckets: a first and an end within 0 and {BUCKETS}, not {first} and {end}")
        if self.name == HOLDOUT:
            raise ValueError(f"{HOLDOUT} is the name of the global holdout; see the section of this name")
        if self.start_ms >= self.end_ms:
            raise ValueError(f"{self.name}: end: must be after start")
        names = [variant.name for variant in self.variants]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"{self.name}: two variants are called {name}")
        count = sum(bucket_count(variant.share) for variant in self.variants)
        if count > BUCKETS:
            raise ValueError(f"{self.name}: the variants' shares come to {count / BUCKETS:g}, which is more than 1")
        return self


class HoldoutConfig(Section):
    """Users who get the baseline for a long time and take part in no experiment."""

    share: float = Field(0.0, ge=0, le=0.5, description="of all users; 0: nobody; multiples of 0.0001")
    salt: str = Field("", max_length=64, description="another one holds out other users")
    surfaces: tuple[str, ...] = Field((), description="where they get the baseline; empty: everywhere")

    @field_validator("share")
    @classmethod
    def _whole_buckets(cls, share: float) -> float:
        return _checked_share(share)


def bucket_count(share: float) -> int:
    """How many of the buckets a share is."""
    return round(share * BUCKETS)


def _checked_share(share: float) -> float:
    if abs(share * BUCKETS - bucket_count(share)) > 1e-6:
        raise ValueError(f"must be a multiple of {1 / BUCKETS:g}, not {share:g}")
    return share
