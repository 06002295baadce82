"""How often the 95% intervals of a report hold the truth, in simulated experiments of which it is known."""

from collections.abc import Callable
from typing import Any, Final

from engine_bench.machine import describe_machine
from engine_bench.simulation.coverage import CoverageSettings
from engine_bench.simulation.coverage import measure_coverage as measure
from engine_bench.targets import Target

TARGET_COVERAGE: Final = 0.93


def measure_coverage(settings: CoverageSettings, progress: Callable[[int, int, str], None]) -> dict[str, Any]:
    """As engine_bench.simulation.coverage.measure_coverage, with the machine and `targets`, one a metric."""
    found = measure(settings, progress=progress)
    targets = [
        Target(f"coverage_{name}", round(metric["coverage"]["lift"]["share"], 4), TARGET_COVERAGE, "at least").as_json()
        for name, metric in found["metrics"].items()
    ]
    return found | {"machine": describe_machine(), "targets": targets}
