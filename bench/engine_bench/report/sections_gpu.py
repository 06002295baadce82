"""What `engine bench gpu` says: the device and its floors, search, ranking and whole requests on it."""

from typing import Any

from engine_bench.report.goals import gpu_goals
from engine_bench.report.gpu import FLOOR, GpuRun, read_gpu
from engine_bench.report.gpu_figures import gpu_figures
from engine_bench.report.gpu_tables import gpu_tables
from engine_bench.report.numbers import amount, milliseconds
from engine_bench.report.read import number
from engine_bench.report.section import Section


def gpu_sections(report: dict[str, Any]) -> list[Section]:
    """One, where anything was measured; a rehearsal says at once, and everywhere, that it is one."""
    run = read_gpu(report)
    if run.is_empty:
        return []
    found = gpu_goals(report)
    paragraphs = [
        *_rehearsal(run),
        "With `device.retrieval` and `device.ranking` set to `cuda` a GPU finds the 1,000 candidates and ranks them; "
        "all else of a request stays on the processor. Requests that wait for the device share a call. "
        "The bench first holds the device's answers against those of the processor, and times nothing that is wrong: "
        "an exact search must find what a scan in float32 finds, but for scores within 0.002 of the last one.",
        *_ranker(report),
        *_floors(run),
        *_absent(run),
    ]
    target = next((goal.bound for goal in found if goal.title.startswith("requests a second")), None)
    title = "On a GPU: a rehearsal on the processor" if run.rehearsal else "On a GPU"
    return [Section("gpu", title, "gpu", paragraphs, gpu_figures(run, target), gpu_tables(run), found)]


def _rehearsal(run: GpuRun) -> list[str]:
    if not run.rehearsal:
        return []
    return [
        "This is a rehearsal: everything ran on the processor, and no GPU had a part in it. It shows that the bench "
        "works from end to end. None of its figures says how fast a GPU is, and none is held against the targets."
    ]


def _ranker(report: dict[str, Any]) -> list[str]:
    difference, overlap = (number(report, "ranking", name) for name in ("max_difference", "top_50_overlap"))
    if difference is None or overlap is None:
        return []
    return [
        f"The ranker's probabilities differ by {difference:.2g} at most from those in float32 on the processor "
        f"(0.01 is allowed), and {overlap:.1%} of the first 50 are the same (98% is asked for)."
    ]


def _floors(run: GpuRun) -> list[str]:
    if run.bytes_per_s is None or run.flops_per_s is None:
        return [f"The device is {run.device}."] if not run.rehearsal else []
    device = "The processor, in the place of a device," if run.rehearsal else f"The device, {run.device},"
    text = (
        f"{device} copies {_scaled(run.bytes_per_s, 'bytes')} a second within its memory, reads and writes together, "
        f"and does {_scaled(run.flops_per_s, 'operations')} a second in products of "
        f"{'float32' if run.rehearsal else 'float16'} matrices, both measured in the same run."
    )
    # Two bytes and two operations for each component: as many requests as there are operations to a byte.
    even = run.flops_per_s / run.bytes_per_s
    floor = (
        f"From these comes {FLOOR}: an exact search reads every vector once, two bytes a component, and multiplies "
        f"it with every request's, so that it takes the longer of the two at least{_example(run)}. Up to "
        f"{amount(float(round(even)))} requests in one call that is the reading, and a further request should "
        "cost next to nothing."
        if even >= 1
        else f"From these comes {FLOOR}: an exact search multiplies every vector with every request's, and takes as "
        f"long as that at least{_example(run)}."
    )
    return [text, floor]


def _example(run: GpuRun) -> str:
    """Of the largest search that has a floor."""
    found = [(search, each) for search in run.searches for each in search.all_eligible[:1] if each.floor_ms is not None]
    if not found:
        return ""
    search, each = max(found, key=lambda pair: pair[0].items * pair[0].dim)
    requests = "one request" if each.batch == 1 else f"{each.batch} requests"
    return f" ({milliseconds(each.floor_ms)} ms over {search.vectors} for {requests})"


def _absent(run: GpuRun) -> list[str]:
    return [f"Not in this file, because its run did not get that far: {'; '.join(run.absent)}."] if run.absent else []


def _scaled(value: float, unit: str) -> str:
    for size, name in ((1e12, "trillion"), (1e9, "billion")):
        if value >= size:
            return f"{amount(round(value / size, 1))} {name} {unit}"
    return f"{amount(value)} {unit}"
