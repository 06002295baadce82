"""Declared experiments as what assignment reads: by surface, layers of experiments that exclude each other."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.config.experiments import BUCKETS, ExperimentConfig, bucket_count
from engine.experiments.hashing import seed_of
from engine.types import ExperimentAssignment, Int16Array

NOBODY = -1


def allocate(counts: Sequence[int]) -> Int16Array:
    """The variant of each bucket: int16 (BUCKETS,), NOBODY where none is.

    Each of k variants has an allocation range: an equal part of the buckets, in the order of the variants. It fills its
    range from the front. One that needs more takes from the backs of the others' ranges, after what those have filled.

    When counts change, each variant keeps what it has, or as much of it as it is still to have, as long as none
    outgrows its range, and always where there are two variants: from 1% each to equal parts, nobody changes from one
    variant to another. No function of the counts alone can promise this of all changes of three or more
    (docs/adr/0014).

    Args:
        counts: buckets of each variant, in order; at most BUCKETS together.

    Raises:
        ValueError: more buckets than there are.
    """
    if sum(counts) > BUCKETS:
        raise ValueError(f"{sum(counts)} buckets of {BUCKETS}")
    ranges = np.array_split(np.arange(BUCKETS), len(counts)) if counts else []
    owner = np.full(BUCKETS, NOBODY, np.int16)
    for variant, (own, count) in enumerate(zip(ranges, counts, strict=True)):
        owner[own[:count]] = variant
    for variant, (own, count) in enumerate(zip(ranges, counts, strict=True)):
        missing = count - len(own)
        if missing > 0:
            backs = [other[::-1] for place, other in enumerate(ranges) if place != variant]
            order = np.concatenate(backs)
            owner[order[owner[order] == NOBODY][:missing]] = variant
    return owner


@dataclass(frozen=True, slots=True, eq=False)
class Experiment:
    """One experiment; it has the units whose bucket in the layer is in [first, end).

    owner: int16 (BUCKETS,), the variant of each bucket under the experiment's own seed, NOBODY where none is.
    codes: the same as Python numbers, for one unit at a time. assignments: of each variant, in order.
    """

    name: str
    seed: int
    first: int
    end: int
    start_ms: int
    end_ms: int
    owner: Int16Array
    codes: tuple[int, ...]
    assignments: tuple[ExperimentAssignment, ...]

    @staticmethod
    def of(config: ExperimentConfig) -> "Experiment":
        owner = allocate([bucket_count(variant.share) for variant in config.variants])
        return Experiment(
            name=config.name,
            seed=seed_of("experiment", config.salt or config.name),
            first=config.buckets[0],
            end=config.buckets[1],
            start_ms=config.start_ms,
            end_ms=config.end_ms,
            owner=owner,
            codes=tuple(owner.tolist()),
            assignments=tuple(ExperimentAssignment(config.name, variant.name) for variant in config.variants),
        )

    def runs_at(self, now_ms: int) -> bool:
        return self.start_ms <= now_ms < self.end_ms


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """Experiments of which nobody is in two at a time."""

    seed: int
    experiments: tuple[Experiment, ...]
    names: frozenset[str]


def layers_on(surface: str, configs: Sequence[ExperimentConfig]) -> tuple[Layer, ...]:
    """The layers with their experiments on one surface, in the order of the settings."""
    by_name: dict[str, list[Experiment]] = {}
    for config in configs:
        if not config.surfaces or surface in config.surfaces:
            by_name.setdefault(config.layer_name, []).append(Experiment.of(config))
    return tuple(
        Layer(seed_of("layer", name), tuple(experiments), frozenset(one.name for one in experiments))
        for name, experiments in by_name.items()
    )
