"""Whether reports tell the truth: many experiments whose true lift is known, assigned and analysed as real ones are."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from scipy import stats

from engine.config.serving import EngineConfig
from engine.experiments.analysis.compare import Bounds, Compared, compare
from engine.experiments.analysis.metrics import BEFORE, METRICS, TOTALS, Excluded, ExperimentData
from engine.experiments.analysis.report_query import ReportRules
from engine.experiments.analysis.significance import check_split
from engine.experiments.assign import Experiments
from engine.types import Float64Array
from engine_bench.machine import Progress, describe_machine
from engine_bench.simulation.behaviour import Behaviour
from engine_bench.simulation.shop import Shop
from engine_bench.simulation.slates import personal_slates, popularity_slates
from engine_bench.simulation.users import Users
from engine_bench.synthetic.catalogue import user_ids
from engine_bench.synthetic.world import MS_PER_DAY, World, WorldSize
from engine_bench.targets import Target

CONTROL, TREATMENT = "baseline", "engine"
_SURFACE: Final = "home"
_EXPERIMENT: Final = "worth"
# What the time before is told by, for each of BEFORE. A session with purchases counts as one.
_BEFORE_SUMS: Final = ("clicks", "sessions", "converted_sessions", "revenue", "session_s")
assert len(_BEFORE_SUMS) == len(BEFORE)
# The intervals of a report whose coverage is told.
INTERVALS: Final = ("lift", "unadjusted", "anytime")

# Of 95% intervals, the share that must hold the truth.
TARGET_COVERAGE: Final = 0.93


@dataclass(frozen=True, slots=True)
class CoverageSettings:
    """repetitions: experiments with the same users, assigned again each. share: of the engine; the rest is the control.

    noise: of the personalized slates' vectors, see engine_bench.simulation.slates. before_days: 0: no adjustment.
    """

    repetitions: int = 200
    users: int = 2_000
    items: int = 2_000
    days: int = 14
    before_days: int = 14
    visits_per_day: float = 0.3
    share: float = 0.5
    noise: float = 4.0
    seed: int = 1


def measure_coverage(
    settings: CoverageSettings,
    behaviour: Behaviour = Behaviour(),  # noqa: B008  # frozen
    progress: Progress = lambda done, total, message: None,
) -> dict[str, Any]:
    """Repeat an experiment with a true lift, and one without any, and count how often the intervals are right.

    Users, their slates and therefore the truth stay; who is in which variant is dealt again each time by
    engine.experiments.assign with another salt, and what everybody does is drawn again. The truth is a matter of all
    users under both variants (Shop.truth), so that no estimate has a part in it.

    Returns:
        `settings`, `truth` by variant and metric, `metrics` (see _described), `split_mismatches`, the share of
        experiments in which the check of the split fails, the machine, and `targets`, one a metric.

    Cost: about 0.15 s a repetition at 2,000 users on one core.
    """
    world = World(WorldSize(items=settings.items, users=settings.users), settings.seed)
    size = settings.users, behaviour.slate_size * behaviour.max_requests
    random = np.random.default_rng([settings.seed, 10])
    popular = popularity_slates(world, *size)
    personal = personal_slates(world, *size, settings.noise, random)
    begin_ms = world.size.end_ms
    users = Users(world, settings.users, begin_ms, settings.days, settings.visits_per_day)
    shop = Shop(users, behaviour, {CONTROL: popular, TREATMENT: personal})
    past = None
    if settings.before_days:
        past_begin_ms = begin_ms - settings.before_days * MS_PER_DAY
        earlier = Users(world, settings.users, past_begin_ms, settings.before_days, settings.visits_per_day)
        past = Shop(earlier, behaviour, {CONTROL: popular})
    found: dict[str, list[Compared]] = defaultdict(list)
    nothing: dict[str, list[Compared]] = defaultdict(list)
    mismatches = 0
    for repetition in range(settings.repetitions):
        variant = _assigned(settings, repetition, begin_ms)
        counts = {name: int((variant == place).sum()) for place, name in enumerate(shop.variants)}
        shares = {CONTROL: 1.0 - settings.share, TREATMENT: settings.share}
        mismatches += check_split(_SURFACE, counts, shares).mismatch
        before = None if past is None else _before(past.act(np.zeros(len(variant), np.int64), random))
        for one in _compared(variant, shop.act(variant, random), before):
            found[one.metric].append(one)
        # The same users and the same assignment, but everybody sees what is popular.
        for one in _compared(variant, shop.act(np.zeros_like(variant), random), before):
            nothing[one.metric].append(one)
        progress(repetition + 1, settings.repetitions, "experiments")
    lifts = shop.true_lifts(TREATMENT, CONTROL)
    metrics = {
        metric.name: _described(found[metric.name], nothing[metric.name], lifts[metric.name]) for metric in METRICS
    }
    targets = [
        Target(f"coverage_{name}", round(metric["coverage"]["lift"]["share"], 4), TARGET_COVERAGE, "at least")
        for name, metric in metrics.items()
    ]
    return {
        "settings": asdict(settings) | {"behaviour": asdict(behaviour)},
        "truth": shop.truth(),
        "metrics": metrics,
        "split_mismatches": mismatches / settings.repetitions,
        "machine": describe_machine(),
        "targets": [target.as_json() for target in targets],
    }


def _assigned(settings: CoverageSettings, repetition: int, now_ms: int) -> np.ndarray[Any, np.dtype[np.int16]]:
    values: dict[str, Any] = {
        "name": _EXPERIMENT,
        "salt": f"{settings.seed}-{repetition}",
        "variants": [
            {"name": CONTROL, "share": round(1.0 - settings.share, 4), "baseline": True},
            {"name": TREATMENT, "share": settings.share},
        ],
    }
    experiments = Experiments(EngineConfig(experiments=[values]))
    return experiments.assign_many(user_ids(settings.users).to_list(), _SURFACE, now_ms)[_EXPERIMENT]


def _before(totals: Float64Array) -> Float64Array:
    return totals[:, [TOTALS.index(name) for name in _BEFORE_SUMS]]


def _compared(
    variant: np.ndarray[Any, np.dtype[np.int16]], totals: Float64Array, before: Float64Array | None
) -> Iterator[Compared]:
    """As engine.experiments.analysis.report compares them, without the bootstrap."""
    units = len(variant)
    nowhere = np.zeros(units, np.int64)
    counted = ExperimentData(
        variants=(CONTROL, TREATMENT), surfaces=(_SURFACE,), variant=variant.astype(np.int64),
        interaction_count=nowhere, device=[""] * units, country=[""] * units, before=before,
        unit=np.arange(units), surface=nowhere, day=nowhere, values=totals,
        first_ms=0, last_ms=0, events_end_ms=0, excluded=Excluded(0, 0, 0, 0), guardrails=(),
    )  # fmt: skip
    return compare(counted, counted.totals(0), np.ones(units, bool), 1, 0, ReportRules(), resample=False)


def _described(found: list[Compared], nothing: list[Compared], true_lift: float) -> dict[str, Any]:
    """Of one metric.

    true_lift. mean_lift, mean_half_width: of the adjusted estimates. coverage: for each of INTERVALS, the share of
    experiments in which it holds the truth, with the 95% interval (Wilson) of that share and the count. found: the
    share with p < 0.05. found_where_nothing_is: the same where there is no difference. unknown: without an interval.
    """
    known = [one for one in found if one.lift is not None]
    lifts = np.array([[one.lift.value, one.lift.high - one.lift.low] for one in known if one.lift is not None])
    return {
        "true_lift": true_lift,
        "mean_lift": float(lifts[:, 0].mean()) if known else None,
        "mean_half_width": float(lifts[:, 1].mean() / 2) if known else None,
        "coverage": {
            name: _share([_holds(getattr(one, name), true_lift) for one in known]) for name in INTERVALS
        },
        "found": _share([one.p_value is not None and one.p_value < 0.05 for one in found]),
        "found_where_nothing_is": _share([one.p_value is not None and one.p_value < 0.05 for one in nothing]),
        "unknown": len(found) - len(known),
    }  # fmt: skip


def _holds(bounds: Bounds | None, truth: float) -> bool:
    return bounds is not None and bounds.low <= truth <= bounds.high


def _share(outcomes: list[bool]) -> dict[str, float | int]:
    if not outcomes:
        return {"share": 0.0, "low": 0.0, "high": 1.0, "count": 0, "of": 0}
    count = sum(outcomes)
    interval = stats.binomtest(count, len(outcomes)).proportion_ci(method="wilson")
    return {
        "share": count / len(outcomes),
        "low": float(interval.low),
        "high": float(interval.high),
        "count": count,
        "of": len(outcomes),
    }
