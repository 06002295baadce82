"""Which buckets belong to which variant, such that a change of shares moves few."""

from collections.abc import Sequence

import numpy as np

from engine.config.experiments import BUCKETS
from engine.types import Int16Array

NOBODY = -1


def allocate(counts: Sequence[int]) -> Int16Array:
    """The variant of each bucket: int16 (BUCKETS,), NOBODY where none is.

    Each of k variants has a lane, an equal part of the buckets in the order of the variants, and fills it from the
    front. One that needs more than its lane takes from the backs of the others' lanes, behind what those have filled.

    When counts change, each variant keeps what it has, or as much of it as it is still to have, as long as none
    outgrows its lane, and always where there are two variants: from 1% each to equal parts, nobody changes from one
    variant to another. No function of the counts alone can promise this of all changes of three or more
    (docs/adr/0014).

    Args:
        counts: buckets of each variant, in order; at most BUCKETS together.

    Raises:
        ValueError: more buckets than there are.
    """
    if sum(counts) > BUCKETS:
        raise ValueError(f"{sum(counts)} buckets of {BUCKETS}")
    lanes = np.array_split(np.arange(BUCKETS), len(counts)) if counts else []
    owner = np.full(BUCKETS, NOBODY, np.int16)
    for variant, (lane, count) in enumerate(zip(lanes, counts, strict=True)):
        owner[lane[:count]] = variant
    for variant, (lane, count) in enumerate(zip(lanes, counts, strict=True)):
        missing = count - len(lane)
        if missing > 0:
            backs = [other[::-1] for place, other in enumerate(lanes) if place != variant]
            order = np.concatenate(backs)
            owner[order[owner[order] == NOBODY][:missing]] = variant
    return owner
