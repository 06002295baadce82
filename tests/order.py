"""The order in which files are tested, so that processes that share a run end together."""

from typing import Final

import pytest

# Files that take longest, the longest first: one that came last would leave the other processes without work. Minutes
# count here, not tests, which is what pytest-xdist orders files by unless told not to.
LONGEST: Final = (
    "tests/bench/simulation/test_run.py",
    "tests/engine/training/test_two_tower.py",
    "tests/engine/cli/test_bundles.py",
    "tests/engine/training/test_small_data.py",
    "tests/engine/stream/test_process.py",
    "tests/bench/report/test_page.py",
    "tests/bench/report/test_gpu.py",
    "tests/bench/test_load.py",
    "tests/bench/demo/test_run.py",
    "tests/engine/rpc/test_experiment_servicer.py",
    "tests/engine/app/test_workers.py",
    "tests/engine/test_front_ends.py",
    "tests/engine/test_serving.py",
    "tests/bench/test_taste.py",
    "tests/engine/catalog/test_live.py",
    "tests/bench/test_startup.py",
    "tests/bench/peers/test_peers.py",
    "tests/engine/stream/test_bounds.py",
    "tests/engine/contract/test_doors.py",
    "tests/engine/stages/test_explore.py",
    "tests/engine/experiments/analysis/test_report.py",
    "tests/engine/experiments/analysis/test_false_positives.py",
    "tests/engine/experiments/analysis/test_page.py",
    "tests/bench/synthetic/test_synthetic.py",
    "tests/engine/rules/test_compiled.py",
    "tests/bench/simulation/test_coverage.py",
    "tests/bench/commands/test_taste.py",
)


def longest_first(items: list[pytest.Item]) -> None:
    """Sort collected tests in place; those of one file, and files that are not named, keep their order."""
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.nodeid.split("::", 1)[0], len(LONGEST)))
