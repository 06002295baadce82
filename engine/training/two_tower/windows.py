"""How histories are cut into training sequences and put into batches of even cost."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from engine.features.history import Histories, HistoryStates, HistoryWindow, window_of
from engine.features.seen_history import EVERYTHING_S, offered
from engine.types import Int64Array

# Sequences are batched with others of nearly their length; the jitter keeps batches from being the same each epoch.
_LENGTH_JITTER = 8.0


@dataclass(frozen=True, slots=True)
class TrainingBatch:
    """Right-aligned sequences and, for each of their events, the item that its user turned to next.

    users: int64 (n,). inputs: windows of n sequences. targets: int64 (n, length), item rows, -1 where there is none.
    """

    users: Int64Array
    inputs: HistoryWindow
    targets: Int64Array


def epoch_batches(
    histories: Histories, next_items: Int64Array, window: int, batch_positions: int, rng: np.random.Generator
) -> Iterator[TrainingBatch]:
    """Every event but each user's last as an input, in batches of at most batch_positions padded positions.

    next_items: int64 (events,), see next_new_items.

    A history longer than the window is cut again each epoch at a random phase, with the most recent full window
    added, since that is what serving will ask about. Batches come in random order.
    """
    states = cut_windows(histories, window, rng)
    lengths = np.minimum(states.lengths - 1, window)
    order = np.argsort(lengths + rng.random(len(lengths)) * _LENGTH_JITTER)
    batches = _chunks(lengths[order], batch_positions)
    for start, stop in (batches[position] for position in rng.permutation(len(batches))):
        chosen = order[start:stop]
        longest = int(lengths[chosen].max())
        last_inputs = HistoryStates(states.users[chosen], states.lengths[chosen] - 1)
        inputs = window_of(histories, last_inputs, longest)
        stops = histories.offsets[last_inputs.users] + last_inputs.lengths
        valid = inputs.rows >= 0
        positions = np.where(valid, stops[:, None] + np.arange(-longest, 0), 0)
        yield TrainingBatch(last_inputs.users, inputs, np.where(valid, next_items[positions], -1))


def next_new_items(histories: Histories, quiet_s: Int64Array = EVERYTHING_S) -> Int64Array:
    """int64 (events,): after each event, the next item that its user had not met before; -1 where none came.

    quiet_s: int64 (256,), for how many seconds an event keeps its item from being asked for again, by type; by default
    forever.

    A viewed item is often clicked, carted and bought next. Recommending it again is not what retrieval is for: what
    was seen is filtered out, so that the first item after it is what every one of these moments asks for.
    """
    count = len(histories.rows)
    new_at = np.where(offered(histories, quiet_s), np.arange(count), count)
    following = np.append(np.minimum.accumulate(new_at[::-1])[::-1][1:], count) if count else new_at
    user_end = np.repeat(histories.offsets[1:], histories.lengths())
    found = following < user_end
    return np.where(found, histories.rows[np.where(found, following, 0)], -1) if count else new_at


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
