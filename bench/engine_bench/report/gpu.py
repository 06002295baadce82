"""What `engine bench gpu` wrote, by what it is about; of a run that ended early, whatever is there."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from engine_bench.report.read import dig, number, objects
from engine_bench.targets import short

FLOOR: Final = "the device's floor"


@dataclass(frozen=True, slots=True)
class Timing:
    """Calls of so many requests each. share: of the items, those eligible. floor_ms: no exact scan takes less."""

    batch: int
    p50_ms: float
    p99_ms: float | None
    share: float = 1.0
    floor_ms: float | None = None


@dataclass(frozen=True, slots=True)
class GpuSearch:
    """One kind of search over one set of vectors; filtered: also by share of eligible items."""

    kind: str
    items: int
    dim: int
    recall: float | None
    all_eligible: list[Timing]
    filtered: list[Timing]

    @property
    def vectors(self) -> str:
        return f"{short(self.items)} × {self.dim}"

    def filtered_by(self, batch: int) -> list[Timing]:
        """Those with so many requests in a call."""
        return [each for each in self.filtered if each.batch == batch]


@dataclass(frozen=True, slots=True)
class Stage:
    """Times of one stage of a whole request."""

    name: str
    p50_ms: float
    p99_ms: float | None


@dataclass(frozen=True, slots=True)
class Throughput:
    """So many callers, each with one request after the other. front_ends: None where all of it is one process.

    device_cores, front_end_cores: of the processor, kept busy by the device process and by all front ends.
    """

    front_ends: int | None
    callers: int
    per_s: float
    p50_ms: float | None
    p99_ms: float | None
    device_cores: float | None
    front_end_cores: float | None


@dataclass(frozen=True, slots=True)
class GpuRun:
    """alone, stages: of whole requests one at a time. front_ends: in front of one process that has the device.

    request_items: of the catalogue that ranking and whole requests run over; None where the file does not say.
    """

    device: str
    rehearsal: bool
    bytes_per_s: float | None
    flops_per_s: float | None
    searches: list[GpuSearch]
    request_items: int | None
    ranking: list[Timing]
    alone: Stage | None
    stages: list[Stage]
    loaded: list[Throughput]
    front_ends: list[Throughput]
    absent: list[str]

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Items and dimension of every set of vectors that was searched, small ones first."""
        return sorted({(each.items, each.dim) for each in self.searches})

    @property
    def kinds(self) -> list[str]:
        """In the order of the file."""
        return list(dict.fromkeys(each.kind for each in self.searches))

    @property
    def is_empty(self) -> bool:
        return self.bytes_per_s is None and not (self.searches or self.ranking or self.alone or self.front_ends)


def read_gpu(report: dict[str, Any]) -> GpuRun:
    """Parts that are missing, or not as they should be, are empty; `absent` names those that the run meant to have."""
    alone = dig(report, "requests", "alone")
    stages = dig(report, "requests", "stages")
    searches = [
        GpuSearch(
            str(each.get("kind")),
            int(items),
            int(dim),
            number(each, "recall_at_k"),
            list(_timings(each, "all_eligible")),
            list(_timings(each, "filtered")),
        )
        for each in objects(report, "retrieval")
        if (items := number(each, "items")) and (dim := number(each, "dim"))
    ]
    return GpuRun(
        device=str(report.get("device") or "a GPU whose name the file does not say"),
        rehearsal=bool(report.get("rehearsal")),
        bytes_per_s=number(report, "floors", "bytes_per_s"),
        flops_per_s=number(report, "floors", "flops_per_s"),
        searches=searches,
        request_items=int(size) if (size := number(report, "settings", "request_items")) else None,
        ranking=list(_timings(dig(report, "ranking"), "by_batch")),
        alone=next(_stages({"whole request": alone}), None),
        # The pipeline's own total is less than what its caller waits for, which `alone` is.
        stages=[stage for stage in _stages(stages) if stage.name != "total"],
        loaded=list(_throughputs(dig(report, "requests"), "loaded")),
        front_ends=[each for each in _throughputs(dig(report, "front_ends"), "runs") if each.front_ends],
        absent=_absent(report, searches),
    )


def _timings(tree: Any, name: str) -> Iterator[Timing]:
    for each in objects(tree, name):
        batch, p50_ms = number(each, "batch"), number(each, "p50_ms")
        if batch and p50_ms:
            share = number(each, "share") or 1.0
            yield Timing(int(batch), p50_ms, number(each, "p99_ms"), share, number(each, "floor_ms"))


def _stages(tree: Any) -> Iterator[Stage]:
    for name, each in tree.items() if isinstance(tree, dict) else ():
        # A logarithmic axis has no zero.
        if p50_ms := number(each, "p50_ms"):
            yield Stage(str(name), p50_ms, number(each, "p99_ms"))


def _throughputs(tree: Any, name: str) -> Iterator[Throughput]:
    for each in objects(tree, name):
        callers, per_s = number(each, "callers"), number(each, "requests_per_s")
        if callers and per_s is not None:
            front_ends = number(each, "front_ends")
            yield Throughput(
                int(front_ends) if front_ends else None,
                int(callers),
                per_s,
                *(number(each, key) for key in ("p50_ms", "p99_ms", "device_cores", "front_end_cores")),
            )


def _absent(report: dict[str, Any], searches: list[GpuSearch]) -> list[str]:
    """In words, what a run had set out to measure and has not, as far as its settings say."""
    parts = [title for name, title in (("ranking", "ranking"), ("requests", "whole requests")) if not report.get(name)]
    found = {(each.items, each.dim, each.kind) for each in searches}
    settings = dig(report, "settings")
    chosen = [kind for kind in _listed(settings, "kinds") if isinstance(kind, str)] or list(
        dict.fromkeys(each.kind for each in searches)
    )
    for items in _counts(settings, "items"):
        for dim in _counts(settings, "dims"):
            missing = [kind for kind in chosen if (items, dim, kind) not in found]
            if missing or not chosen:
                what = "any search" if len(missing) == len(chosen) else " and ".join(missing)
                parts.append(f"{what} over {short(items)} × {dim}")
    return parts


def _counts(tree: Any, name: str) -> list[int]:
    return [each for each in _listed(tree, name) if isinstance(each, int)]


def _listed(tree: Any, name: str) -> list[Any]:
    found = dig(tree, name)
    return found if isinstance(found, list) else []
