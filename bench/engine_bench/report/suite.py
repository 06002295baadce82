"""What `make bench` wrote, by what it is about."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.stages import BUDGETS_MS
from engine_bench.report.read import dig, number, objects
from engine_bench.targets import target_size

PARTS = tuple(BUDGETS_MS)


@dataclass(frozen=True, slots=True)
class Search:
    """One measured search. recall: of the exact top k among the eligible items. file: the test that measured it."""

    test: str
    catalogue: str
    items: int
    dim: int | None
    k: int
    eligible_share: float | None
    with_vectors: bool
    p50_ms: float
    p99_ms: float | None
    recall: float | None
    index: str


@dataclass(frozen=True, slots=True)
class Kernel:
    """Medians in microseconds; `numpy_us` is None where only the kernel ran."""

    name: str
    kernel_us: float
    numpy_us: float | None


@dataclass(frozen=True, slots=True)
class StageAlone:
    """One stage, called alone; `detail` says how many candidates or which diversifier."""

    stage: str
    detail: str
    items: int
    p50_ms: float
    p99_ms: float | None
    recall: float | None


@dataclass(frozen=True, slots=True)
class Suite:
    """requests: by catalogue size, the `extra_info` of test_request with numbers where the report reads them."""

    requests: Mapping[int, dict[str, Any]]
    searches: list[Search]
    stages: list[StageAlone]
    kernels: list[Kernel]

    @property
    def items(self) -> int | None:
        """The catalogue size that is held against the targets; None where no request was measured."""
        return target_size(self.requests) if self.requests else None


def read_suite(report: dict[str, Any]) -> Suite:
    requests: dict[int, dict[str, Any]] = {}
    searches: list[Search] = []
    stages: list[StageAlone] = []
    kernels: dict[str, dict[str, float]] = {}
    for bench in objects(report, "benchmarks"):
        name, info = str(bench.get("name", "")), bench.get("extra_info") or {}
        p50 = number(info, "p50_ms") or _median_ms(bench)
        if p50 is None:
            continue
        items = int(number(info, "items") or 0)
        if name.startswith("test_request[") and items:
            requests[items] = info | {"p50_ms": p50}
        elif name.startswith("test_kernel["):
            title, implementation = dig(bench, "params", "name"), dig(bench, "params", "implementation")
            kernels.setdefault(str(title), {})[str(implementation)] = p50 * 1000
        elif dig(info, "stage"):
            detail = dig(info, "diversifier") or (f"k = {int(info['k'])}" if number(info, "k") else "")
            stages.append(
                StageAlone(info["stage"], detail, items, p50, number(info, "p99_ms"), number(info, "recall_at_k"))
            )
        elif number(info, "recall_at_k") is not None and items:
            searches.append(_search(bench, info, items, p50))
    known = [Kernel(name, each["kernel"], each.get("numpy")) for name, each in kernels.items() if "kernel" in each]
    return Suite(dict(sorted(requests.items())), searches, stages, known)


def _search(bench: dict[str, Any], info: dict[str, Any], items: int, p50_ms: float) -> Search:
    dim = number(info, "dim")
    return Search(
        test=str(bench["name"]).partition("[")[0],
        catalogue="clustered" if "clustered" in str(bench.get("param")) else "synthetic",
        items=items,
        dim=int(dim) if dim else None,
        k=int(number(info, "k") or 1000),
        eligible_share=number(info, "eligible_share"),
        with_vectors="index-only" not in str(bench.get("param")),
        p50_ms=p50_ms,
        p99_ms=number(info, "p99_ms"),
        recall=number(info, "recall_at_k"),
        index=str(info.get("index", "")),
    )


def _median_ms(bench: dict[str, Any]) -> float | None:
    seconds = number(bench, "stats", "median")
    return None if seconds is None else seconds * 1000
