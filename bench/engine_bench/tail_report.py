"""What a tail run came to: figures, pauses by cause, and whose making they were."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from engine_bench.load_driver import Record, Status
from engine_bench.targets import Target

PAUSE_AT_MOST_MS: Final = 5.0
P999_TIMES_P50_AT_MOST: Final = 5.0
# More of the time than this spent waiting for a processor, and the machine is not quiet.
QUIET_SHARE: Final = 0.01
# The machine's pauses beyond so many are in the JSON alone.
_LINES: Final = 40
_DEEP: Final = 5
_NS: Final = 1e9


@dataclass(frozen=True, slots=True)
class Steal:
    """Seconds without a processor, as the kernel counts them: of all the server's threads, and of the whole machine.

    server: ready, but none was free. machine: taken by other guests of the same host, over all processors.
    """

    server: float
    machine: float

    @staticmethod
    def read(process_id: int) -> "Steal":
        """Zeros on systems that do not say."""
        waited = 0.0
        for task in Path(f"/proc/{process_id}/task").glob("*/schedstat"):
            try:
                waited += int(task.read_text().split()[1]) / _NS
            except (OSError, IndexError):  # a thread that has just ended
                continue
        try:
            ticks = int(Path("/proc/stat").read_text().split("\n", 1)[0].split()[8])
        except (OSError, IndexError):
            ticks = 0
        return Steal(waited, ticks / 100.0)

    def __sub__(self, other: "Steal") -> "Steal":
        return Steal(self.server - other.server, self.machine - other.machine)


def read_pauses(path: Path, began: float, ended: float) -> list[dict[str, Any]]:
    """The pauses between two time.monotonic() instants that a server has recorded (stalls.record), oldest first.

    at_s: seconds since the first instant.
    """
    if not path.is_file():
        return []
    pauses = [json.loads(line) for line in path.read_text().splitlines()]
    return [pause | {"at_s": round(pause["at"] - began, 3)} for pause in pauses if began <= pause["at"] <= ended]


def report_tail(
    record: Record, pauses: Sequence[Mapping[str, Any]], done: Mapping[str, int], stolen: Steal, seconds: float
) -> dict[str, Any]:
    """The figures.

    Returns:
        `errors`; `p50_ms`, `p99_ms`, `p999_ms`, `max_ms` of good answers, from when they were due; `max_pause_ms`,
        the longest that the server's event loop stood still by its own making, and `own_pauses` of more than 5 ms;
        `max_machine_pause_ms`, of which the machine had the greater part; `pauses`, every one of 5 ms or more;
        `going_on`, how often each thing was done; `quiet`, whether the machine was; and `targets`.
    """
    latency = record.latency_ms[record.ok]
    p50, p99, p999, longest = (
        (round(float(value), 2) for value in np.percentile(latency, [50, 99, 99.9, 100]))
        if len(latency)
        else (float("inf"),) * 4
    )
    own = [pause for pause in pauses if pause["cause"] != "machine"]
    machine = [pause for pause in pauses if pause["cause"] == "machine"]
    errors = int((~record.ok).sum())
    max_pause_ms = max((pause["own_ms"] for pause in own), default=0.0)
    waited_share = stolen.server / seconds
    return {
        "requests": len(record.schedule),
        "errors": errors,
        "errors_by_status": {
            status.name.lower(): count
            for status in Status
            if status is not Status.OK and (count := int((record.status == status).sum()))
        },
        "degraded": int(record.degraded.sum()),
        "p50_ms": p50,
        "p99_ms": p99,
        "p999_ms": p999,
        "max_ms": longest,
        "max_pause_ms": max_pause_ms,
        "own_pauses": len([pause for pause in own if pause["own_ms"] > PAUSE_AT_MOST_MS]),
        "max_machine_pause_ms": max((pause["pause_ms"] for pause in machine), default=0.0),
        "machine_pauses": len(machine),
        "late_sends_p99_ms": round(float(np.percentile(record.lateness_ms, 99)), 2),
        "server_waited_share": round(waited_share, 4),
        "stolen_share": round(stolen.machine / seconds, 4),
        "quiet": waited_share <= QUIET_SHARE and stolen.machine / seconds <= QUIET_SHARE,
        "going_on": dict(done),
        "pauses": list(pauses),
        "targets": [
            each.as_json()
            for each in (
                Target("errors", errors, 0),
                Target("longest pause of its own making ms", max_pause_ms, PAUSE_AT_MOST_MS, unit="ms"),
                Target("p99.9 / p50", round(p999 / p50, 2), P999_TIMES_P50_AT_MOST),
            )
        ],
    }


def tail_lines(result: Mapping[str, Any]) -> Iterator[str]:
    """The report for users."""
    latencies = ", ".join(
        f"{name} {result[key]:g} ms"
        for name, key in (("p50", "p50_ms"), ("p99", "p99_ms"), ("p99.9", "p999_ms"), ("max", "max_ms"))
    )
    yield f"{result['requests']} requests, {result['errors']} errors {result['errors_by_status'] or ''}".rstrip()
    yield f"{latencies}; p99.9 is {result['p999_ms'] / result['p50_ms']:.1f} × p50; {result['degraded']} degraded"
    yield "meanwhile: " + ", ".join(f"{count} {name}" for name, count in result["going_on"].items())
    yield (
        f"the machine was {'quiet' if result['quiet'] else 'busy'}: the server's threads waited for a processor for"
        f" {result['server_waited_share']:.1%} of the time, other guests took {result['stolen_share']:.1%}"
    )
    own = [pause for pause in result["pauses"] if pause["cause"] != "machine"]
    machine = sorted(
        (pause for pause in result["pauses"] if pause["cause"] == "machine"), key=lambda pause: -pause["pause_ms"]
    )
    yield f"pauses of its own making above 5 ms: {result['own_pauses']}, the longest {result['max_pause_ms']:g} ms"
    for pause in own:
        yield _line(pause)
    yield f"pauses by the machine: {len(machine)}, the longest {result['max_machine_pause_ms']:g} ms"
    for pause in machine[:_LINES]:
        yield _line(pause)
    if len(machine) > _LINES:
        yield f"  … {len(machine) - _LINES} shorter ones are in the JSON"
    yield from (str(Target.of(each)) for each in result["targets"])


def _line(pause: Mapping[str, Any]) -> str:
    stack = " < ".join(pause["stack"][:_DEEP]) or "no stack was seen"
    return (
        f"  at {pause['at_s']:.1f} s: {pause['pause_ms']:.1f} ms, {pause['own_ms']:.1f} of its own making:"
        f" {pause['cause']}, {pause['thread']}: {stack}"
    )
