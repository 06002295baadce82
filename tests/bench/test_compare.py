"""`make bench-compare`, as it is typed: against its own figures, and against ones that are a hundred times better."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")


def make(target: str, *variables: str) -> subprocess.CompletedProcess[str]:
    """The recipe with this interpreter's environment instead of one that make would set up."""
    command = [
        "make",
        target,
        "READY=",
        f"BIN={Path(sys.executable).parent}",
        "BENCHES=bench/suite/test_kernels.py",
        "ARGS=--benchmark-max-time 0.1 -k top_k",
    ]
    return subprocess.run(
        [*command, *variables], cwd=ROOT, capture_output=True, text=True, check=False, env=environment()
    )


def environment() -> dict[str, str]:
    """Without a word of the processes that run these tests: pytest-benchmark measures nothing in one of them."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}


@pytest.fixture(scope="module")
def baseline(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("bench") / "bench.json"
    command = [sys.executable, "-m", "pytest", "bench/suite/test_kernels.py", "-k", "top_k", "--benchmark-only"]
    made = subprocess.run(
        [*command, "--benchmark-max-time", "0.1", "--benchmark-json", str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=environment(),
    )
    assert made.returncode == 0, made.stdout
    report: dict[str, Any] = json.loads(path.read_text())
    return report


def scaled(baseline: dict[str, Any], factor: float, path: Path) -> Path:
    """The baseline with every time multiplied."""
    report = json.loads(json.dumps(baseline))
    for bench in report["benchmarks"]:
        times = ("min", "max", "mean", "median", "iqr", "q1", "q3", "stddev")
        bench["stats"] |= {name: bench["stats"][name] * factor for name in times}
    path.write_text(json.dumps(report))
    return path


def test_a_regression_fails_and_its_absence_does_not(baseline: dict[str, Any], tmp_path: Path) -> None:
    # A hundredfold either way: no machine is so unsteady that it changes what comes out.
    slower = make("bench-compare", f"BASELINE={scaled(baseline, 0.01, tmp_path / 'better.json')}")
    assert slower.returncode != 0
    assert "Performance has regressed" in slower.stdout + slower.stderr
    faster = make("bench-compare", f"BASELINE={scaled(baseline, 100.0, tmp_path / 'worse.json')}")
    assert faster.returncode == 0, faster.stdout + faster.stderr


def test_without_a_baseline_nothing_is_measured(tmp_path: Path) -> None:
    made = make("bench-compare", f"BASELINE={tmp_path / 'none.json'}")
    assert made.returncode != 0
    assert "make bench writes it" in made.stdout
    assert "passed" not in made.stdout


def test_the_json_says_on_what_it_was_measured(baseline: dict[str, Any]) -> None:
    assert {"processor", "cores", "libraries", "commit", "date"} <= set(baseline["machine"])
    assert "numba" in baseline["machine_info"]["engine"]["libraries"]
    bench = baseline["benchmarks"][0]
    assert 0 < bench["extra_info"]["p50_ms"] <= bench["extra_info"]["p99_ms"]
    assert "data" not in bench["stats"]
    assert baseline["targets"] == []
