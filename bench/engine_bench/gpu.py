"""The GPU path: the same answers as on the processor, then what each stage and a whole request cost."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from engine.adapters.cuda.device import require_device
from engine.bundle.bundle import RANKER_HALF_FILE, Bundle
from engine.config.serving import DeviceConfig
from engine.data.dataset import Dataset
from engine.errors import ConfigError
from engine_bench.gpu_floors import device_name, measure_floors
from engine_bench.gpu_frontends import measure_frontends
from engine_bench.gpu_request import measure_ranking, measure_requests
from engine_bench.gpu_retrieval import Kind, kinds, make_vectors, measure_retrieval
from engine_bench.machine import Progress, describe_machine
from engine_bench.targets import Target
from engine_bench.world import WorldVectors, build_world, world_bundle

Save = Callable[[dict[str, Any]], None]

# Search is held to its targets over vectors of this number and dimension.
_TARGET_ITEMS, _TARGET_DIM = 10_000_000, 64


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuSettings:
    """What to measure.

    device: "cuda", or "cpu", which rehearses everything on the processor. kinds: of search,
    by name; none is all. items, dims: of retrieval, each with each.
    batches: requests of one call, and, above 1, callers at once. request_items: of the bundle that ranking and whole
    requests run over. front_ends: processes before one device process; none leaves that out. callers: who ask these at
    once; none is the two largest of batches. seconds: of one figure.
    """

    device: Literal["cuda", "cpu"] = "cuda"
    kinds: tuple[str, ...] = ()
    cuda_device: int = 0
    items: tuple[int, ...] = (1_000_000, 10_000_000)
    dims: tuple[int, ...] = (64, 128)
    batches: tuple[int, ...] = (1, 4, 16, 32, 64)
    request_items: int = 1_000_000
    front_ends: tuple[int, ...] = ()
    callers: tuple[int, ...] = ()
    seconds: float = 3.0
    seed: int = 0


def require_gpu(settings: GpuSettings) -> str:
    """The device's name. Raises ConfigError, saying what is missing, where it cannot be used."""
    require_device(_device(settings))
    return device_name(settings.cuda_device)


def measure_gpu(settings: GpuSettings, cache: Path, progress: Progress, save: Save) -> dict[str, Any]:
    """Check and measure; see docs/performance.md.

    Args:
        cache: holds the synthetic bundle; see make_world.
        save: is given all that was measured so far, after each part: a run can take half an hour.

    Returns:
        `floors`, `ranking`, `requests`, `retrieval` (a list), `front_ends`, `targets`, `settings`, `device` and the
        machine.

    Raises:
        ConfigError: no bundle and nothing to make one with. EngineError: an answer is wrong; nothing is measured that
        is.
    """
    config, directory = _device(settings), _bundles(cache, settings.request_items)
    searches = _searches(settings)
    dataset, vectors, bundle = make_world(settings.request_items, cache, progress)
    steps = len(settings.items) * len(settings.dims) * len(searches) + 4
    retrieval: list[dict[str, Any]] = []
    result: dict[str, Any] = {
        "settings": asdict(settings),
        "device": device_name(settings.cuda_device) if settings.device == "cuda" else "cpu",
        "rehearsal": settings.device == "cpu",
        "machine": describe_machine(),
        "retrieval": retrieval,
        "ranking": None,
        "requests": None,
        "front_ends": None,
    }

    def done(step: int, following: str) -> None:
        targets = gpu_targets(retrieval, result["ranking"], result["requests"], result["front_ends"])
        result["targets"] = {
            each.name: {
                "target": each.bound, "measured": each.measured, "met": None if each.measured is None else each.met
            }
            for each in targets
        }  # fmt: skip
        save(result)
        progress(step, steps, following)

    progress(0, steps, "floors")
    floors = measure_floors(settings.device, settings.cuda_device)
    result["floors"] = asdict(floors)
    done(1, "ranking")
    result["ranking"] = measure_ranking(
        bundle, settings.device, settings.cuda_device, settings.batches, settings.seconds
    )
    done(2, "requests")
    callers = [count for count in settings.batches if count > 1]
    section = config.model_dump(mode="json", include={"retrieval", "ranking", "cuda_device"})
    with _work(cache) as work:
        result["requests"] = measure_requests(
            bundle, dataset, vectors, directory, work, section, callers, settings.seconds
        )
    done(3, "front ends")
    if settings.front_ends:
        asking = settings.callers or callers[-2:]
        with _work(cache) as work:
            result["front_ends"] = measure_frontends(
                bundle, dataset, vectors, directory, work, section, settings.front_ends, asking, settings.seconds
            )
    done(4, "retrieval")
    for item_count in settings.items:
        for dim in settings.dims:
            items, queries = make_vectors(item_count, dim, settings.seed)
            for kind in searches:
                progress(4 + len(retrieval), steps, f"{kind.name}, {item_count:,} x {dim}")
                retrieval.append(measure_retrieval(kind, items, queries, settings.batches, settings.seconds, floors))
                done(4 + len(retrieval), "retrieval")
    done(steps, "done")
    return result


def gpu_targets(
    retrieval: list[dict[str, Any]],
    ranking: dict[str, Any] | None,
    requests: dict[str, Any] | None,
    front_ends: dict[str, Any] | None,
) -> list[Target]:
    """The targets; what the run did not measure is None. Of the exact kinds of retrieval the fastest counts."""
    exact = [
        line
        for run in retrieval
        if run["items"] == _TARGET_ITEMS and run["dim"] == _TARGET_DIM
        for line in run["all_eligible"]
        if line["floor_ms"] is not None
    ]
    first = min((line["p50_ms"] for line in exact if line["batch"] == 1), default=None)
    over_floor = min((line["p50_ms"] / line["floor_ms"] for line in exact if line["batch"] == 32), default=None)
    rank = next((line["p50_ms"] for line in ranking["by_batch"] if line["batch"] == 1), None) if ranking else None
    alone = requests["alone"] if requests else {"p50_ms": None, "p99_ms": None}
    # In one process without gRPC, or from many processes with it: the latter is what an operator gets.
    loaded = front_ends["runs"] if front_ends else requests["loaded"] if requests else []
    most = max((line["requests_per_s"] for line in loaded), default=None)
    return [
        Target("retrieve_1000_of_10m_x_64_batch_1_p50_ms", first, 2.0, unit="ms"),
        Target("retrieve_1000_of_10m_x_64_batch_32_p50_over_floor", over_floor, 2.0),
        Target("rank_1000_p50_ms", rank, 0.5, unit="ms"),
        Target("request_p50_ms", alone["p50_ms"], 3.0, unit="ms"),
        Target("request_p99_ms", alone["p99_ms"], 10.0, unit="ms"),
        Target("requests_per_s", most, 5000.0, "at least", "1/s"),
    ]


@contextmanager
def _work(cache: Path) -> Iterator[Path]:
    """An empty directory for what a part of the run starts, gone with it."""
    work = cache.resolve() / "gpu-work"
    shutil.rmtree(work, ignore_errors=True)
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _searches(settings: GpuSettings) -> list[Kind]:
    known = kinds(settings.device, settings.cuda_device)
    chosen = [kind for kind in known if not settings.kinds or kind.name in settings.kinds]
    if len(chosen) < len(settings.kinds):
        raise ConfigError(f"of {', '.join(settings.kinds)}, there are only {', '.join(kind.name for kind in known)}")
    return chosen


def _device(settings: GpuSettings) -> DeviceConfig:
    return DeviceConfig(retrieval=settings.device, ranking=settings.device, cuda_device=settings.cuda_device)


def make_world(item_count: int, cache: Path, progress: Progress) -> tuple[Dataset, WorldVectors, Bundle]:
    """The synthetic world with its bundle: from the cache, or trained where the train extra is installed.

    Raises ConfigError where neither is possible, or the bundle was made before there was a ranker for GPUs.
    """
    directory = _bundles(cache, item_count)
    progress(0, 1, "world")
    dataset, vectors = build_world(item_count)
    try:
        bundle = world_bundle(directory, dataset, vectors)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"no bundle of {item_count} items in {directory}, and {error.name} to make it is not installed: run "
            f"`engine bench world --items {item_count}` where the train extra is, and bring the directory here"
        ) from None
    if RANKER_HALF_FILE not in bundle.manifest.files:
        raise ConfigError(f"{bundle.path} has no {RANKER_HALF_FILE}: remove {directory}, and make it again")
    progress(1, 1, "world")
    return dataset, vectors, bundle


def _bundles(cache: Path, item_count: int) -> Path:
    return cache.resolve() / f"bundles-{item_count}"
