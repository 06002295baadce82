"""The contract between what training learned and what serving feeds it: names, order and vocabularies of features."""

from collections.abc import Iterable
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, model_validator

SCHEMA_VERSION: Final = 2
# Versions that the next one only added to: inputs of a request, or columns after those of `dense` and `codes`. Their
# bundles can be upgraded (engine.training.upgrade). Version 2 added the recent session.
ADDED_TO: Final = frozenset({1})

# The fields of engine.types.Demographics, in its order.
DEMOGRAPHICS: Final = ("age_group", "location", "signup_source")
# Categorical features that a request's time has, in UTC, with the number of their values; Monday is the first weekday.
CLOCK_FEATURES: Final = {"hour": 24, "weekday": 7}
# All categorical features of a request, in the order of the ranker's `codes` input. Code 0 is "unknown".
CODE_FEATURES: Final = (*DEMOGRAPHICS, "device", "country", "surface", *CLOCK_FEATURES)
# Exponentially decayed interaction counts of an item, log1p; the number is the mean lifetime of a count.
POPULARITY_WINDOWS_S: Final = {"1h": 3600.0, "24h": 86400.0, "7d": 604800.0, "30d": 2592000.0}
ITEM_DYNAMIC: Final = (*(f"log_count_{name}" for name in POPULARITY_WINDOWS_S), "log_count_all")
# Of the recent session: the sum of the events' weights, their number, and how long ago the latest one was; log1p.
SESSION_DENSE: Final = ("log_session_evidence", "log_session_events", "log_session_age_s")
# Dense features of the request itself; they follow the profile in the ranker's `dense` input.
CONTEXT_DENSE: Final = ("now_days", *SESSION_DENSE)


def value_codes(vocabulary: Iterable[str]) -> dict[str, int]:
    """The code of each value of a vocabulary: the value at position p has code p + 1."""
    return {value: position + 1 for position, value in enumerate(vocabulary)}


class FeatureSchema(BaseModel):
    """Written by training into the bundle, read by serving; one bundle, one schema.

    profile: names of the dense per-user features, in the order of `UserRecord.profile`.
    vocabularies: per code feature the known values; the value at position p has code p + 1. CLOCK_FEATURES need none:
        their code is value + 1.
    item_columns: named half-open column ranges of the item table, (rows, columns) float32. Always present:
        "embedding" (retrieval space, starts at 0), "collaborative" (matrix factorization), "published_days"
        and "log_price".
    epoch_ms: `now_days` and `published_days` count from here, so that float32 holds them to the minute.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = SCHEMA_VERSION
    embedding_dim: int
    collaborative_dim: int
    profile: tuple[str, ...]
    vocabularies: dict[str, tuple[str, ...]]
    item_columns: dict[str, tuple[int, int]]
    epoch_ms: int

    @model_validator(mode="before")
    @classmethod
    def _without_former_keys(cls, values: Any) -> Any:
        # Older bundles have it; no version of the engine makes use of it.
        if isinstance(values, dict):
            return {key: value for key, value in values.items() if key != "has_engagement_head"}
        return values

    @property
    def table_width(self) -> int:
        return max(stop for _, stop in self.item_columns.values())

    @property
    def dense_dim(self) -> int:
        return len(self.profile) + len(CONTEXT_DENSE)

    @property
    def request_widths(self) -> dict[str, int]:
        """The columns of the ranker's inputs that a request brings, by their names in engine.types.RankingContext."""
        return {
            "query": self.embedding_dim,
            "session": self.embedding_dim,
            "collaborative": self.collaborative_dim,
            "dense": self.dense_dim,
            "codes": len(CODE_FEATURES),
        }
