"""How histories are cut into training sequences and put into batches of even cost."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from engine.features.history import Histories, HistoryStates, HistoryWindow, window_of
from engine.types import Int64Array

# Sequences are batched with others of nearly their length; the jitter keeps batches from being the same each epoch.
_LENGTH_JITTER = 8.0


@dataclass(frozen=True, slots=True)
class TrainingBatch:
    """Right-aligned sequences and, for each of their events, the one that came next.

    users: int64 (n,). inputs: windows of n sequences. targets: int64 (n, length), item rows, -1 where padded.
    """

    users: Int64Array
    inputs: HistoryWindow
    targets: Int64Array


def epoch_batches(
    histories: Histories, window: int, batch_positions: int, rng: np.random.Generator
) -> Iterator[TrainingBatch]:
    """Every event but each user's first as a target, in batches of at most batch_positions padded positions.

    A history longer than the window is cut anew each epoch at a random phase, with the most recent full window
    added, since that is what serving will ask about. Batches come in random order.
    """
    states = cut_windows(histories, window, rng)
    lengths = np.minimum(states.lengths - 1, window)
    order = np.argsort(lengths + rng.random(len(lengths)) * _LENGTH_JITTER)
    batches = _chunks(lengths[order], batch_positions)
    for start, stop in (batches[position] for position in rng.permutation(len(batches))):
        chosen = order[start:stop]
        longest = int(lengths[chosen].max())
        users, ends = states.users[chosen], states.lengths[chosen]
        inputs = window_of(histories, HistoryStates(users, ends - 1), longest)
        following = window_of(histories, HistoryStates(users, ends), longest)
        yield TrainingBatch(users, inputs, np.where(inputs.rows >= 0, following.rows, -1))


def cut_windows(histories: Histories, window: int, rng: np.random.Generator) -> HistoryStates:
    """States whose last `window` events before the final one cover every history; users with one event have none.

    Cost: vectorised over users, O(events / window).
    """
    counts = histories.lengths()
    users = np.flatnonzero(counts >= 2)
    counts = counts[users]
    # The end of the first cut: the whole history where one window holds it, else up to a window before its end.
    shift = np.where(counts > window + 1, rng.integers(0, window, len(users)), 0)
    first_end = counts - shift
    pieces = -(-(first_end - 1) // window)
    owner = np.repeat(np.arange(len(users)), pieces)
    piece = np.arange(len(owner)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    ends = first_end[owner] - piece * window
    recent = np.flatnonzero(shift)
    return HistoryStates(
        np.concatenate([users[owner], users[recent]]), np.concatenate([ends, counts[recent]]).astype(np.int64)
    )


def _chunks(lengths: Int64Array, batch_positions: int) -> list[tuple[int, int]]:
    """Half-open ranges of nearly ascending lengths whose size times longest stays within batch_positions."""
    chunks: list[tuple[int, int]] = []
    start = 0
    while start < len(lengths):
        # The longest of a chunk is at most the jitter above its last one.
        reach = np.maximum.accumulate(lengths[start : start + batch_positions]) * np.arange(
            1, len(lengths[start : start + batch_positions]) + 1
        )
        size = max(1, int(np.searchsorted(reach, batch_positions, side="right")))
        chunks.append((start, start + size))
        start += size
    return chunks
