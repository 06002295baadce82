"""A run of the simulation against a server: everybody's sessions of some days, in order, and what came of them."""

import asyncio
import time
import uuid
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from engine_bench.machine import Progress
from engine_bench.simulation.behaviour import Behaviour
from engine_bench.simulation.users import Users
from engine_bench.simulation.visitor import Errand, Served, Visitor
from engine_bench.synthetic.world import MS_PER_DAY, World
from engine_client import AsyncRecommendationClient

# Servers refuse events older than a week, unless their settings say otherwise, and the day of today is none of these.
MAX_DAYS: Final = 5


@dataclass(frozen=True, slots=True)
class RunSettings:
    """What a run is.

    target: host:port. users: of the world, from the first; None: all of them.
    days: simulated, ending with yesterday (UTC). visits_per_day: of one user in the mean.
    speed: simulated seconds a second; 0: as fast as the server answers.
    seed: of every choice. concurrency: sessions at a time. timeout_s: for each answer.
    truth_target: a second server over the same Redis and bundle that logs no exposures (`exposures.enabled = false`),
    asked in each request for what the other of `variants` would have shown; empty: the truth stays unknown.
    variants: control and treatment.
    """

    target: str
    experiment: str = "holdout"
    surface: str = "home"
    users: int | None = None
    days: int = MAX_DAYS
    visits_per_day: float = 0.5
    speed: float = 0.0
    seed: int = 1
    concurrency: int = 8
    timeout_s: float = 5.0
    truth_target: str = ""
    variants: tuple[str, str] = ("baseline", "engine")


async def simulate(
    world: World,
    settings: RunSettings,
    behaviour: Behaviour = Behaviour(),  # noqa: B008  # frozen
    progress: Progress = lambda done, total, message: None,
) -> dict[str, Any]:
    """Play a run; its request ids begin with `run`, and its moments lie in [begin_ms, end_ms).

    What is asked and recorded bears simulated times, of which the server's clock says nothing: a report counts by
    `engine.experiments.analysis.report_query.Clock.REQUEST`.

    Returns:
        `run`, `begin_ms`, `end_ms`, `settings`, `sessions`, `errors` (how often for which reason), `variants` with what
        each of them earned, and `truth`, the relative lift of the click rates in the same requests, or None.

    Raises:
        DependencyUnavailable: no server is there. InvalidRequest: it refused an event. EngineError: it could not record
            one.
    """
    # Whole days, so that the same seed makes the same visits at whatever time it runs; and what is asked in earnest
    # today is none of them.
    end_ms = time.time_ns() // 1_000_000 // MS_PER_DAY * MS_PER_DAY
    begin_ms = end_ms - settings.days * MS_PER_DAY
    count = min(settings.users or world.size.users, world.size.users)
    users = Users(world, count, begin_ms, settings.days, settings.visits_per_day)
    visits = users.visits(np.random.default_rng([settings.seed, 0]))
    errands = [
        Errand(number, int(user), int(interest), int(start_ms))
        for number, (user, interest, start_ms) in enumerate(
            zip(visits.users, visits.interests, visits.starts_ms, strict=True)
        )
    ]
    run = uuid.uuid4().hex[:12]
    asked: list[Served] = []
    errors: dict[str, int] = defaultdict(int)
    async with (
        AsyncRecommendationClient(settings.target, timeout_s=settings.timeout_s) as client,
        AsyncRecommendationClient(settings.truth_target or settings.target, timeout_s=settings.timeout_s) as other,
    ):
        for one in (client, other):
            await one.wait_until_serving(settings.timeout_s)
        visitor = Visitor(
            client, users, behaviour, settings.seed, run, settings.surface, settings.experiment,
            other if settings.truth_target else None, settings.variants if settings.truth_target else (),
        )  # fmt: skip
        await _play_all(visitor, errands, settings, begin_ms, asked, errors, progress)
    # Sums of the same numbers in another order differ in their last digit.
    asked.sort(key=lambda one: one.session)
    return {
        "run": run,
        "begin_ms": begin_ms,
        "end_ms": end_ms,
        "settings": asdict(settings) | {"users": count, "behaviour": asdict(behaviour)},
        "sessions": len(errands),
        "requests": len(asked),
        "errors": dict(errors),
        "variants": {name: _earned(rows) for name, rows in sorted(_by_variant(asked).items())},
        "truth": _truth(asked, settings.variants) if settings.truth_target else None,
    }


async def _play_all(
    visitor: Visitor, errands: Sequence[Errand], settings: RunSettings, begin_ms: int, asked: list[Served],
    errors: dict[str, int], progress: Progress,
) -> None:  # fmt: skip
    started = time.monotonic()
    # One user's sessions one after the other, whatever the concurrency; locks hand over in the order of asking.
    turns: dict[int, asyncio.Lock] = defaultdict(asyncio.Lock)
    waiting: Iterator[Errand] = iter(errands)
    done = 0

    async def work() -> None:
        nonlocal done
        for errand in waiting:
            if settings.speed > 0:
                due_s = started + (errand.start_ms - begin_ms) / 1000 / settings.speed
                await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            async with turns[errand.user]:
                error = await visitor.play(errand, asked)
            if error is not None:
                errors[error] += 1
            done += 1
            progress(done, len(errands), "simulating sessions")

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(settings.concurrency):
                group.create_task(work())
    except ExceptionGroup as group_of:
        # Of what failed at the same time, one says enough.
        raise group_of.exceptions[0] from group_of


def _by_variant(asked: Sequence[Served]) -> dict[str, list[Served]]:
    parts: dict[str, list[Served]] = defaultdict(list)
    for one in asked:
        parts[one.variant or "none"].append(one)
    return parts


def _earned(rows: Sequence[Served]) -> dict[str, float | int]:
    """Of one variant's requests. expected_…: in the mean over clicks, for what was shown."""
    requests, items = len(rows), sum(one.items for one in rows)
    return {
        "users": len({one.user for one in rows}),
        "sessions": len({one.session for one in rows}),
        "requests": requests,
        "degraded": sum(one.degraded for one in rows),
        "clicks": sum(one.clicks for one in rows),
        "purchases": sum(one.purchases for one in rows),
        "revenue": round(sum(one.revenue for one in rows), 2),
        "request_ctr": sum(one.clicks > 0 for one in rows) / requests,
        "item_ctr": sum(one.clicks for one in rows) / items,
        "expected_request_ctr": sum(one.expected_clicked for one in rows) / requests,
        "expected_item_ctr": sum(one.expected_clicks for one in rows) / items,
    }


def _truth(asked: Sequence[Served], variants: tuple[str, str]) -> dict[str, float] | None:
    """The relative lift of treatment over control in the same requests of all users."""
    sums = {name: np.zeros(2) for name in variants}
    for one in asked:
        for name, expected in (one.others | {one.variant: (one.expected_clicked, one.expected_clicks)}).items():
            if one.others:
                sums[name] += expected
    control, treatment = (sums[name] for name in variants)
    if not (control > 0).all():
        return None
    lifts = treatment / control - 1.0
    return {"request_ctr": float(lifts[0]), "item_ctr": float(lifts[1])}
