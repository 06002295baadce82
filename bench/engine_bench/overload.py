"""What a server does with more requests than it can answer: open loop, at multiples of its peak, by priority."""

import gc
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import uvloop

from engine.adapters.redis.embedded import EmbeddedRedis
from engine.types import BoolArray, Priority
from engine_bench.load_driver import Record, Status, drive, plan
from engine_bench.load_target import GrpcTarget
from engine_bench.load_world import publish_crowd
from engine_bench.machine import describe_machine
from engine_bench.processes import engine_process, wait_until_serving, write_settings
from engine_bench.world import build_world, world_bundle
from engine_client import RecommendationClient

Progress = Callable[[int, int, str], None]

# An answer is good within it: what the server's own budget is by default.
GOOD_MS: Final = 100.0
_USERS: Final = 2_000
_WARM_UP_S: Final = 5.0
_FIRST_RATE: Final = 40.0
_RATE_STEP: Final = 1.3
# A rate whose goodput is this far below the best so far is past the peak.
_PAST_PEAK: Final = 0.9
# Of ten requests one is critical and one sheddable.
_PRIORITIES: Final = (Priority.CRITICAL, Priority.SHEDDABLE, *(Priority.DEFAULT,) * 8)


@dataclass(frozen=True, slots=True, kw_only=True)
class OverloadSettings:
    """What to measure: each count of workers under the adaptive limit and the static one, at multiples of the peak."""

    items: int = 100_000
    workers: tuple[int, ...] = (1, 2)
    factors: tuple[float, ...] = (1.0, 2.0, 4.0, 10.0)
    seconds: float = 15.0
    seed: int = 0


def measure_overload(settings: OverloadSettings, port: int, cache: Path, progress: Progress) -> dict[str, Any]:
    """Find each server's peak, then offer it multiples of that.

    Returns:
        rows: by workers, limit ("adaptive", "static") and factor: the offered `rate`, `goodput` (answers a second
        within GOOD_MS of when their request was due), `goodput_share` of the peak, `full_share` of good answers without
        a degraded reason, `critical_share` of critical requests with a good answer, `ok_p99_ms`, `refused_p99_ms` and
        the count of each `status`. peaks: requests a second, by workers and limit. And the settings and the machine.

    Raises DependencyUnavailable when a server does not come up.
    """
    dataset, vectors = build_world(settings.items)
    bundle = world_bundle(cache.resolve() / f"bundles-{settings.items}", dataset, vectors)
    rows: list[dict[str, Any]] = []
    peaks: list[dict[str, Any]] = []
    with TemporaryDirectory() as directory, EmbeddedRedis(Path(directory) / "redis") as redis:
        work = Path(directory)
        (work / "bundles").symlink_to(bundle.path.parent)
        now_ms = time.time_ns() // 1_000_000
        user_ids = publish_crowd(bundle, dataset, vectors, redis.url, _USERS, now_ms, lambda *_: None)
        del dataset, vectors
        gc.collect()
        for workers in settings.workers:
            config_file = write_settings(work, port, redis.url, workers=workers)
            peak = 0.0
            for limit in ("static", "adaptive"):
                with _served(config_file, f"127.0.0.1:{port}", limit):
                    asked = _Asking(f"127.0.0.1:{port}", user_ids, settings, f"{workers} {limit}", progress)
                    # One peak for both, so that both are offered the same.
                    peak = max(peak, asked.peak())
                    peaks.append({"workers": workers, "limit": limit, "per_s": round(peak, 1)})
                    for factor in settings.factors:
                        record = asked.at(factor * peak)
                        rows.append({"workers": workers, "limit": limit, "factor": factor, **_row(record, peak)})
    return {"rows": rows, "peaks": peaks, "settings": asdict(settings), "machine": describe_machine()}


@contextmanager
def _served(config_file: Path, address: str, limit: str) -> Iterator[None]:
    name = "ENGINE_SERVER__ADAPTIVE_CONCURRENCY"
    os.environ[name] = str(limit == "adaptive").lower()
    try:
        with (
            engine_process("serve", config_file, config_file.with_suffix(".log")) as server,
            RecommendationClient(address) as client,
        ):
            wait_until_serving(client, server)
            yield
    finally:
        del os.environ[name]


@dataclass(slots=True)
class _Asking:
    """One server, asked at rate after rate."""

    address: str
    user_ids: list[str]
    settings: OverloadSettings
    what: str
    progress: Progress

    def peak(self) -> float:
        """The largest goodput of any rate in requests a second, answered in full; rates rise until it falls."""
        self.at(_FIRST_RATE / 2, _WARM_UP_S)
        best, rate = 0.0, _FIRST_RATE
        while True:
            record = self.at(rate)
            goodput = float((_good(record) & ~record.degraded).sum()) / record.schedule.seconds
            best = max(best, goodput)
            if goodput < _PAST_PEAK * min(best, rate):
                return best
            rate *= _RATE_STEP

    def at(self, rate: float, seconds: float | None = None) -> Record:
        """What comes of this many requests a second."""
        seconds = self.settings.seconds if seconds is None else seconds
        label = f"{self.what}, {rate:.0f} a second"
        record: Record = uvloop.run(
            self._drive(rate, seconds, lambda done: self.progress(int(done), int(seconds), label))
        )
        return record

    async def _drive(self, rate: float, seconds: float, progress: Callable[[float], None]) -> Record:
        target = GrpcTarget(self.address)
        await target.connect()
        try:
            schedule = plan("poisson", rate, seconds, len(self.user_ids), self.settings.seed, debug_every=0)
            return await drive(target.asked_by(schedule, self.user_ids, _priority_of), schedule, progress)
        finally:
            await target.close()


def _priority_of(place: int) -> Priority:
    return _PRIORITIES[place % len(_PRIORITIES)]


def _good(record: Record) -> BoolArray:
    good: BoolArray = record.ok & (record.latency_ms <= GOOD_MS)
    return good


def _row(record: Record, peak: float) -> dict[str, Any]:
    good, seconds = _good(record), record.schedule.seconds
    critical = np.array([_priority_of(place) is Priority.CRITICAL for place in range(len(good))])
    refused = record.ended_ms[np.isin(record.status, (Status.EXHAUSTED, Status.CANCELLED))]
    return {
        "rate": round(record.schedule.rate, 1),
        "goodput": round(float(good.sum()) / seconds, 1),
        "goodput_share": round(float(good.sum()) / seconds / peak, 3),
        "full_share": round(float((good & ~record.degraded).sum() / max(good.sum(), 1)), 3),
        "critical_share": round(float(good[critical].mean()), 4),
        "ok_p99_ms": _p99(record.latency_ms[record.ok]),
        "refused_p99_ms": _p99(refused),
        "lateness_p99_ms": _p99(record.lateness_ms),
        "status": {status.name.lower(): int((record.status == status).sum()) for status in Status},
    }


def _p99(values: Any) -> float | None:
    return round(float(np.percentile(values, 99)), 2) if len(values) else None
