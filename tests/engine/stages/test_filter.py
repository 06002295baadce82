import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from engine.kernels.membership import pack_mask
from engine.stages.filter import keep_eligible
from engine.types import Candidates, ItemSource


@given(st.lists(st.booleans(), min_size=1, max_size=60), st.randoms(use_true_random=False))
def test_only_what_is_eligible_stays_in_its_order(mask: list[bool], draw) -> None:  # type: ignore[no-untyped-def]
    rows = draw.sample(range(len(mask)), draw.randrange(len(mask) + 1))
    scores = np.linspace(1, 0, len(rows)).astype(np.float32)
    candidates = Candidates.of(np.array(rows, np.int64), scores, ItemSource.RETRIEVAL)
    kept, removed = keep_eligible(candidates, pack_mask(np.array(mask)))
    assert kept.rows.tolist() == [row for row in rows if mask[row]]
    assert kept.scores.tolist() == [score for row, score in zip(rows, scores.tolist(), strict=True) if mask[row]]
    assert removed == len(rows) - len(kept)
