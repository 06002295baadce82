"""What a fold computes is held by tests/engine/stream/test_fold.py; here, what it takes."""

import numpy as np
import pytest

from engine.kernels.live_state import Events, Kept, fold_states
from engine.kernels.seen_items import Memory

POSITIVE = np.ones(256, np.bool_)


def events(count: int, **columns: np.ndarray) -> Events:
    ones = np.ones(count, np.int64)
    ones.flags.writeable = False
    return Events(*[ones] * 8)._replace(**columns)


def call(
    ends: list[int], users: list[int], columns: Events, session: int = 2, seen: int = 2, size: int = 0
) -> np.ndarray:
    states = np.zeros(size, np.uint8)
    states.flags.writeable = False
    folded = fold_states(
        states,
        np.array(ends, np.int64),
        np.array(users, np.int64),
        columns,
        POSITIVE,
        4,
        6,
        Kept(session, 2, 100, 2, 100, Memory(np.full(256, 10), seen, 2, 1.0)),
    )
    return folded.ends


def test_nobody_and_nothing() -> None:
    assert call([], [], events(0)).tolist() == []
    assert call([0, 0], [], events(0)).tolist() == [0, 0]
    # 31 bytes of header, an event of 17, its id of 8, its arrival of 4, an item and its surface of 12; and its item: 5
    # for the region, 12 for the entry.
    assert call([0, 0, 0], [2, 0], events(2)).tolist() == [101, 101, 202]
    # Nothing is remembered of items.
    assert call([0], [0], events(1), seen=0).tolist() == [84]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (([0], [0], events(2)), "columns"),
        (([0], [0], events(1, types=np.zeros(0, np.int64))), "columns"),
        (([1], [0], events(1)), "end outside"),
        (([2, 1], [0], events(1), 2, 2, 2), "end outside"),
        (([0], [1], events(1)), "none of these users"),
        (([0], [-1], events(1)), "none of these users"),
        (([0], [0], events(1, types=np.array([256]))), "bytes"),
        (([0], [0], events(1, types=np.array([-1]))), "bytes"),
        (([0], [0], events(1), 0), "limits"),
        (([0], [0], events(1), 2**16), "limits"),
        (([0], [0], events(1), 2, -1), "limits"),
    ],
)
def test_what_does_not_fit_is_refused(arguments: tuple, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        call(*arguments)
