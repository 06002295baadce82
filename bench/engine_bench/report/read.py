"""The JSON files of a directory, whichever of them are there, and where each comes from."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from engine.errors import ConfigError, described


@dataclass(frozen=True, slots=True)
class Source:
    """One bench: the file that it writes, the command that makes it, and what it measures in a few words."""

    name: str
    command: str
    title: str

    @property
    def file(self) -> str:
        return f"{self.name}.json"


SOURCES: Final = (
    Source("bench", "make bench", "kernels, stages and requests in one process"),
    Source("load", "make bench-load", "one server under load, over real sockets"),
    Source("peers", "make bench-peers", "other ways to do the same"),
    Source("startup", "make bench-startup", "start and memory of a serving process"),
    Source("freshness", "engine bench freshness --json .benchmarks/freshness.json", "from a click to the next answer"),
    Source("inventory", "engine bench inventory --json .benchmarks/inventory.json", "from a stock-out to every answer"),
    Source("processor", "engine bench processor --json .benchmarks/processor.json", "events a second"),
    Source("gpu", "make bench-gpu", "search, ranking and requests on a GPU"),
)


@dataclass(frozen=True, slots=True)
class Provenance:
    """On what, of what and when a file was measured; "unknown" for what it does not say.

    changed: the working tree was not quite that commit's, where the file knows.
    """

    machine: str
    commit: str
    changed: bool
    date: str
    libraries: str


@dataclass(frozen=True, slots=True)
class Reports:
    """What there is: the parsed files by name of their source, and why others could not be read."""

    found: dict[str, dict[str, Any]]
    problems: dict[str, str]

    def of(self, name: str) -> dict[str, Any]:
        """The file of this source, empty where there is none."""
        return self.found.get(name, {})

    @property
    def missing(self) -> list[Source]:
        return [source for source in SOURCES if source.name not in self.found]


def read_reports(directory: Path) -> Reports:
    """Read what is there.

    Raises ConfigError where the directory is missing, or none of the files is in it.
    """
    found: dict[str, dict[str, Any]] = {}
    problems: dict[str, str] = {}
    for source in SOURCES:
        path = directory / source.file
        try:
            read = json.loads(path.read_text())
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            problems[source.name] = f"{path.name} cannot be read: {described(error)}"
            continue
        if isinstance(read, dict):
            found[source.name] = read
        else:
            problems[source.name] = f"{path.name} holds no report"
    if not found:
        names = ", ".join(source.file for source in SOURCES)
        raise ConfigError(f"{directory} holds none of {names}; make bench and make bench-load write the first two")
    return Reports(found, problems)


def provenance(report: dict[str, Any]) -> Provenance:
    machine = dig(report, "machine") or {}
    parts = [
        str(machine.get("processor", "unknown processor")),
        f"{machine['cores']} cores" if machine.get("cores") else "",
        f"{machine['memory_gib']} GiB of memory" if machine.get("memory_gib") else "",
        device if isinstance(device := dig(report, "device"), str) and device != "cpu" else "",
    ]
    commit = str(machine.get("commit") or dig(report, "commit_info", "id") or "unknown")
    versions = {"Python": machine.get("python")} | (machine.get("libraries") or {})
    return Provenance(
        machine=", ".join(part for part in parts if part),
        commit=commit[:12],
        changed=bool(dig(report, "commit_info", "dirty")),
        date=str(machine.get("date") or report.get("datetime") or "unknown")[:19].replace("T", " "),
        libraries=", ".join(f"{name} {version}" for name, version in versions.items() if version),
    )


def dig(tree: Any, *keys: str | int) -> Any:
    """What lies under these keys, one after the other; None where the way ends before."""
    for key in keys:
        if isinstance(key, int):
            tree = tree[key] if isinstance(tree, list) and key < len(tree) else None
        else:
            tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


def number(tree: Any, *keys: str | int) -> float | None:
    """The number under these keys; None where there is none."""
    found = dig(tree, *keys)
    return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else None


def objects(tree: Any, *keys: str | int) -> Iterator[dict[str, Any]]:
    """The objects in the list under these keys; none where there is no list."""
    found = dig(tree, *keys)
    for each in found if isinstance(found, list) else ():
        if isinstance(each, dict):
            yield each
