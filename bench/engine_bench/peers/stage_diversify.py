"""Stage diversify: the MMR kernel against NumPy and against a published library."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from engine.kernels.mmr import mmr_slate
from engine.types import Int64Array
from engine_bench.peers.greedy import numpy_mmr
from engine_bench.peers.sample import StageInputs
from engine_bench.peers.settings import missing
from engine_bench.timing import in_turns, percentiles

_DIVERSITY_WEIGHT, _SLATE = 0.5, 50
_TITLES = {
    "engine": "Numba kernel, lazy greedy",
    "numpy": "NumPy",
    "pyversity": "pyversity, a library; it takes cosines below 0 for 0",
}

Picker = Callable[[StageInputs], Int64Array]


def measure_diversify(
    inputs: Sequence[StageInputs], calls: int, skip: Sequence[str], progress: Callable[[int, int], None]
) -> list[dict[str, Any]]:
    """The rows of the report. agreement: the share of the kernel's picks that stand at the same places."""
    skipped = {name: reason for name in ("numpy", "pyversity") if (reason := _reason(name, skip))}
    pickers: dict[str, Picker] = {"engine": _kernel, "numpy": _numpy} if "numpy" not in skipped else {"engine": _kernel}
    if "pyversity" not in skipped:
        pickers["pyversity"] = _pyversity()
    count = len(inputs)
    contestants = {name: (lambda call, picker=picker: picker(inputs[call % count])) for name, picker in pickers.items()}
    took = in_turns(contestants, calls, progress)
    rows: list[dict[str, Any]] = []
    for name, title in _TITLES.items():
        row: dict[str, Any] = {"stage": "diversify", "name": name, "title": title}
        if name in skipped:
            rows.append(row | {"parameters": {}, "skipped": skipped[name]})
            continue
        agreement = float(np.mean([np.mean(pickers[name](each) == _kernel(each)) for each in inputs]))
        parameters = {
            "candidates": len(inputs[0].rows), "slate": _SLATE, "dim": inputs[0].units.shape[1],
            "diversity_weight": _DIVERSITY_WEIGHT,
        }  # fmt: skip
        rows.append(row | percentiles(took[name]) | {"agreement": round(agreement, 4), "parameters": parameters})
    return rows


def _reason(name: str, skip: Sequence[str]) -> str | None:
    if name in skip:
        return "left out by --skip"
    return missing(name) if name == "pyversity" else None


def _kernel(each: StageInputs) -> Int64Array:
    return mmr_slate(each.relevance, each.units, 1.0 - _DIVERSITY_WEIGHT, _SLATE).picks


def _numpy(each: StageInputs) -> Int64Array:
    return numpy_mmr(each.relevance, each.units, 1.0 - _DIVERSITY_WEIGHT, _SLATE)


def _pyversity() -> Picker:
    from pyversity import mmr

    def pick(each: StageInputs) -> Int64Array:
        # The rows are of unit length already, and so they are for the kernel.
        picks: Int64Array = mmr(
            each.units, each.relevance, _SLATE, diversity=_DIVERSITY_WEIGHT, normalize=False
        ).indices
        return picks

    return pick
