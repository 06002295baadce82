"""Vectors do not depend on how many are solved at once."""

import numpy as np
import pytest

from engine.features.fold_in import fold_in
from engine.features.history import Histories


def test_states_are_solved_in_whatever_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    users, rows = rng.integers(0, 20, 300), rng.integers(0, 15, 300)
    histories = Histories.build(users, rows, np.ones(300, np.uint8), np.arange(300), 21)
    items = rng.normal(size=(15, 4)).astype(np.float32)
    together = fold_in(items, histories, histories.latest(), 5.0, 0.1)
    assert not together[20].any()
    solved: list[int] = []
    solve = np.linalg.solve
    monkeypatch.setattr(np.linalg, "solve", lambda left, right: solved.append(len(left)) or solve(left, right))
    # Fewer numbers than one history has, and those of about three histories.
    for floats, most in ((1, 1), (4 * 60, 5)):
        solved.clear()
        monkeypatch.setattr("engine.features.fold_in._CHUNK_FLOATS", floats)
        found = fold_in(items, histories, histories.latest(), 5.0, 0.1)
        np.testing.assert_allclose(found, together, rtol=1e-4, atol=1e-5)
        assert sum(solved) == 20
        assert 1 <= max(solved) <= most
