import os
import subprocess
import sys
from pathlib import Path

from engine.kernels.warmup import warm_up

ROOT = Path(__file__).parents[2]


def test_warm_up_returns_its_seconds_and_is_quick_the_second_time() -> None:
    assert warm_up() > 0.0
    # On a busy machine any of them may have had to wait for its turn.
    assert min(warm_up() for _ in range(20)) < 0.1


def test_nothing_compiles_after_warm_up(tmp_path: Path) -> None:
    """Run where the cache is empty: after a warm-up no kernel gains a signature, however it is called."""
    script = """
import numba
from engine.kernels import (
    constraints, event_scan, groups, live_state, membership, mmr, popularity, scan, seen_items, seen_policy, session,
    slate, topk,
)
from engine.kernels.warmup import warm_up

def counts():
    modules = (
        constraints, event_scan, groups, live_state, membership, mmr, popularity, scan, seen_items, seen_policy,
        session, slate, topk,
    )
    found = {f"{m.__name__}.{n}": v for m in modules for n, v in vars(m).items() if hasattr(v, "signatures")}
    assert found
    return {name: (len(kernel.signatures), kernel._can_compile) for name, kernel in found.items()}

before = counts()
warm_up()
assert counts() == before
assert not any(compilable for _, compilable in before.values()), before
"""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT, env=environment, timeout=300)
    assert list(tmp_path.rglob("*.nbi")), "the cache was written where numba was told to"


def test_kernels_import_neither_the_engine_nor_a_client_library() -> None:
    script = (
        "import sys, engine.kernels.warmup; "
        "names = {name for name in sys.modules if not name.startswith('engine.kernels')}; "
        "names -= {'engine', 'engine.former_names'}; "
        "found = {name.split('.')[0] for name in names} & {'engine', 'faiss', 'redis', 'grpc', 'onnxruntime'}; "
        "sys.exit(str(found) if found else 0)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT, timeout=300)
