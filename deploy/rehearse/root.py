"""A directory that commands take for the whole file system, each in namespaces of its own."""

import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.errors import EngineError


@dataclass(frozen=True, slots=True)
class Mount:
    """A path of this machine, seen at `target` inside. writable: whether it can be changed there."""

    source: Path
    target: str
    writable: bool = False


@dataclass(frozen=True, slots=True)
class Command:
    """What runs inside: words, environment (nothing else is in it), directory, and ids of user and group."""

    words: tuple[str, ...]
    environment: Mapping[str, str]
    directory: str
    user: tuple[int, int] = (0, 0)


def entering(root: Path, command: Command, mounts: Sequence[Mount] = (), *, contained: bool = False) -> list[str]:
    """The command line that runs `command` inside `root`.

    Its mounts are gone with its last process. `contained`: as process 1 of its own process namespace, without
    capabilities, and with nothing writable but what is mounted so.
    """
    lines = ["set -eu"]
    at = shlex.quote(str(root))
    if contained:
        lines += [f"mount --bind {at} {at}", f"mount -o remount,bind,ro {at}"]
    lines += [f"mount --rbind /dev {at}/dev", f"mount -t proc proc {at}/proc"]
    for mount in mounts:
        source, target = shlex.quote(str(mount.source)), shlex.quote(f"{root}{mount.target}")
        lines.append(f"mount --bind {source} {target}")
        if not mount.writable:
            lines.append(f"mount -o remount,bind,ro {target}")
    lines.append("exec " + shlex.join(["chroot", str(root), *_as_user(command, contained)]))
    namespaces = ["--mount", "--propagation", "private"]
    if contained:
        namespaces += ["--pid", "--fork", "--kill-child"]
    return ["unshare", *namespaces, "sh", "-c", "\n".join(lines)]


def joining(process_id: int, command: Command) -> list[str]:
    """The command line that runs `command` beside a contained process, seeing what it sees."""
    inside = ["nsenter", "--target", str(process_id), "--mount", "--pid", "--root", "--wd=/"]
    return [*inside, *_as_user(command, contained=True)]


def _as_user(command: Command, contained: bool) -> list[str]:
    user, group = command.user
    ids = ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups"]
    if contained:
        ids += ["--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]
    values = [f"{name}={value}" for name, value in command.environment.items()]
    return [*ids, "env", "-i", f"--chdir={command.directory}", *values, *command.words]


def make_targets(root: Path, mounts: Sequence[Mount]) -> None:
    """Something to mount on, where the root has nothing there yet."""
    for mount in mounts:
        target = root / mount.target.lstrip("/")
        if target.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if mount.source.is_dir():
            target.mkdir()
        else:
            target.touch()


def debian(directory: Path, release: str) -> Path:
    """A minimal Debian with Python, made once and kept; stands for python:X.Y-slim-<release>.

    Raises:
        EngineError: debootstrap failed; its last words are the text.
    """
    root = directory / f"debian-{release}"
    if root.is_dir():
        return root
    making = root.with_suffix(".new")
    subprocess.run(["rm", "-rf", "--one-file-system", str(making)], check=True)
    packages = "python3,python3-venv,ca-certificates"
    # In a namespace of its own: what it mounts is gone with it, also where it fails half-way.
    isolated = ["unshare", "--mount", "--propagation", "private"]
    made = subprocess.run(
        [*isolated, "debootstrap", "--variant=minbase", f"--include={packages}", release, str(making)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if made.returncode != 0:
        raise EngineError(f"debootstrap {release}: {(made.stdout + made.stderr).strip()[-400:]}")
    for name in ("python", "python3"):
        # The official image has its interpreter there.
        (making / "usr/local/bin" / name).symlink_to("/usr/bin/python3")
    making.rename(root)
    return root
