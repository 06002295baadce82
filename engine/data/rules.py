"""What a deployment decides about its tables, by the settings that its servers judge events and items by."""

import time
from collections.abc import Set
from dataclasses import dataclass, field

from engine.config.serving import EngineConfig


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class TableRules:
    """How tables are judged beyond their columns.

    surfaces: those that there are; None: any. categories: the only ones allowed; empty: any. max_ahead_ms: events
    further ahead of now_ms are refused. skip_bad_rows: so many rows at most are left out and counted, not refused.
    """

    surfaces: Set[str] | None
    categories: Set[str]
    max_ahead_ms: int
    now_ms: int = field(default_factory=_now_ms)
    skip_bad_rows: int = 0

    @staticmethod
    def of(config: EngineConfig, skip_bad_rows: int = 0) -> "TableRules":
        """The rules of the serving settings, as of now."""
        return TableRules(
            surfaces=frozenset(config.surfaces),
            categories=frozenset(config.catalog.categories),
            max_ahead_ms=config.events.max_ahead_s * 1000,
            skip_bad_rows=skip_bad_rows,
        )

    @staticmethod
    def default() -> "TableRules":
        """The rules of a deployment that sets nothing."""
        return TableRules.of(EngineConfig())
