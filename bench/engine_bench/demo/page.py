"""The demonstration as one HTML file that needs nothing else: styles and pictures are inside it."""

import time
from pathlib import Path
from typing import Any, Final

from engine.errors import ConfigError
from engine.experiments.analysis.verdict import signed
from engine_bench.demo.show import SHOWN

TEMPLATE: Final = Path(__file__).with_name("page.html.j2")


def write_page(result: dict[str, Any], path: Path) -> Path:
    """Write what `run_demo` returns as a page, and return its path.

    Args:
        result: with `about`, `bundle`, `surface` and `seconds` beside; of a part that was left out, nothing.

    Raises ConfigError where jinja2 is not installed.
    """
    path.write_text(render(result))
    return path


def render(result: dict[str, Any]) -> str:
    """The page's HTML; nothing in it is fetched from anywhere."""
    jinja2 = _require_jinja()
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["signed"] = signed
    lift = result.get("lift") or {"lifts": {}, "titles": {}}
    absent = dict.fromkeys(("recommendations", "budgets", "calls", "signals", "catalogue", "experiments", "lift"))
    page: str = environment.from_string(TEMPLATE.read_text()).render(
        absent | result,
        shown=SHOWN,
        date=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        intervals=_intervals({name: found for name, found in lift["lifts"].items() if name in lift["titles"]}),
    )
    return page


def _intervals(lifts: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Each lift's place, and its interval's ends, on one axis from 0 to 100, with the place of no lift, `zero`."""
    if not lifts:
        return {}
    low = min(0.0, *(lift["low"] for lift in lifts.values()))
    high = max(0.0, *(lift["high"] for lift in lifts.values()))
    margin = 0.05 * (high - low) or 1.0
    low, high = low - margin, high + margin

    def place(value: float) -> float:
        return round(100.0 * (value - low) / (high - low), 2)

    return {
        name: {key: place(lift[key]) for key in ("value", "low", "high")} | {"zero": place(0.0)}
        for name, lift in lifts.items()
    }


def _require_jinja() -> Any:
    try:
        import jinja2
    except ImportError:
        raise ConfigError(
            "the demonstration's page needs the package jinja2: pip install 'personalization-engine[cpu,train,dev]'"
        ) from None
    return jinja2
