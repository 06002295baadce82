"""What has to hold of all declared experiments together."""

from collections.abc import Collection, Iterable, Sequence
from itertools import combinations

from engine.config.experiments import ExperimentConfig, HoldoutConfig


def check_experiments(
    experiments: Sequence[ExperimentConfig], holdout: HoldoutConfig, surfaces: Collection[str]
) -> None:
    """Raises ValueError with the first thing that cannot be: whoever reads it has the settings before them."""
    _known("holdout", holdout.surfaces, surfaces)
    for one in experiments:
        _known(f"experiments: {one.name}", one.surfaces, surfaces)
    for one, other in combinations(experiments, 2):
        if one.name == other.name:
            raise ValueError(f"experiments: two are called {one.name}")
        if not one.overlaps_in_time(other):
            continue
        if (one.salt or one.name) == (other.salt or other.name):
            raise ValueError(
                f"experiments: {one.name} and {other.name} have one salt, so that the variants of one would be those of"
                " the other"
            )
        if one.layer_name == other.layer_name:
            _apart(one, other)
        else:
            _independent(one, other, surfaces)


def _known(where: str, named: Iterable[str], surfaces: Collection[str]) -> None:
    for surface in named:
        if surface not in surfaces:
            raise ValueError(f"{where}: surfaces: {surface} is none; there are {', '.join(sorted(surfaces))}")


def _apart(one: ExperimentConfig, other: ExperimentConfig) -> None:
    """In one layer nobody is in two experiments at a time."""
    first, end = max(one.buckets[0], other.buckets[0]), min(one.buckets[1], other.buckets[1])
    if first < end:
        raise ValueError(
            f"experiments: {one.name} and {other.name} both have the buckets {first} to {end - 1} of layer"
            f" {one.layer_name}; give each its own with `buckets`, or run one after the other"
        )


def _independent(one: ExperimentConfig, other: ExperimentConfig, surfaces: Collection[str]) -> None:
    """Across layers users are in several experiments at once, so that these must not undo each other."""
    if not set(one.surfaces or surfaces) & set(other.surfaces or surfaces):
        return
    changes, others = _changes(one), _changes(other)
    both = sorted(changes & others)
    if not both and changes and others and "baseline" in changes | others:
        both = ["baseline"]
    if both:
        raise ValueError(
            f"experiments: {one.name} and {other.name} are in different layers and both decide on {both[0]}; put them"
            " into one layer, where nobody is in both"
        )


def _changes(experiment: ExperimentConfig) -> frozenset[str]:
    return frozenset[str]().union(*(variant.changes for variant in experiment.variants))
