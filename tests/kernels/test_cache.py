"""Compiled kernels are loaded from disk until a kernel changes, their own or one that they call."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from engine import kernels

# One kernel that calls another, in modules of their own.
CALLEE = """
import numba
from engine.kernels.signatures import EXACT

@numba.njit("int64()", **EXACT)
def answer():
    return {answer}
"""
CALLER = """
import numba
from engine.kernels.called import answer
from engine.kernels.signatures import EXACT

@numba.njit("int64()", **EXACT)
def ask():
    return answer()
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A package of kernels without those of the engine, which would take long to compile."""
    package = tmp_path / "checkout" / "engine" / "kernels"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").touch()
    for name in ("__init__.py", "cache.py", "signatures.py"):
        shutil.copy(Path(kernels.__file__).with_name(name), package)
    (package / "caller.py").write_text(CALLER)
    checkout = package.parent.parent
    write_callee(checkout, 1)
    return checkout


def write_callee(checkout: Path, answer: int) -> None:
    (checkout / "engine" / "kernels" / "called.py").write_text(CALLEE.format(answer=answer))


def ask(checkout: Path, **environment: str) -> tuple[int, int]:
    """What the calling kernel answers in a new process, and how many of the two kernels were found compiled."""
    script = (
        "from engine.kernels import caller, called; "
        "hits = [sum(kernel.stats.cache_hits.values()) for kernel in (caller.ask, called.answer)]; "
        "print(caller.ask(), sum(hits))"
    )
    environment = {"PYTHONPATH": str(checkout), "HOME": str(checkout.parent), "PATH": os.environ["PATH"], **environment}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=checkout, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    answer, hits = map(int, done.stdout.split())
    return answer, hits


def test_a_kernel_follows_a_change_in_one_that_it_calls(checkout: Path) -> None:
    assert ask(checkout) == (1, 0)
    assert ask(checkout) == (1, 2), "nothing changed: nothing is compiled"
    write_callee(checkout, 2)
    assert ask(checkout) == (2, 0)
    write_callee(checkout, 1)
    assert ask(checkout) == (1, 2), "what was compiled before the change is of use after it was taken back"


def test_the_cache_is_where_numba_is_told_to_keep_it(checkout: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert ask(checkout, NUMBA_CACHE_DIR=str(cache)) == (1, 0)
    write_callee(checkout, 2)
    assert ask(checkout, NUMBA_CACHE_DIR=str(cache)) == (2, 0)
    assert ask(checkout, NUMBA_CACHE_DIR=str(cache)) == (2, 2)
    assert list(cache.rglob("*.nbi"))
    assert not list(checkout.rglob("*.nbi"))


def test_an_install_that_cannot_be_written_to_is_cached_for_the_user(checkout: Path) -> None:
    (
        checkout / "engine" / "kernels" / "__pycache__"
    ).touch()  # A file, where numba wants a directory: root can write anywhere else.
    assert ask(checkout) == (1, 0)
    write_callee(checkout, 2)
    assert ask(checkout) == (2, 0)
    assert ask(checkout) == (2, 2)
    assert (checkout / "engine" / "kernels" / "__pycache__").is_file()


def test_caches_of_other_packages_are_left_alone(checkout: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "elsewhere.py").write_text("import numba\n@numba.njit('int64()', cache=True)\ndef f():\n    return 3\n")
    script = "import engine.kernels, elsewhere; print(elsewhere.f())"
    environment = {**os.environ, "PYTHONPATH": f"{checkout}:{other}"}
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, check=True, timeout=300)
    (index,) = other.rglob("*.nbi")
    assert index.name.startswith("elsewhere.f-2.py")
