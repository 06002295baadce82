"""From stages to an image: each step performed in the root of its stage."""

import logging
import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from deploy.rehearse import dockerfile, host
from deploy.rehearse.context import Context, copy_tree
from deploy.rehearse.dockerfile import Stage, Step
from deploy.rehearse.root import Command, Mount, debian, entering, make_targets
from engine.errors import ConfigError, EngineError

log = logging.getLogger(__name__)

# Which Debian release stands for an official Python image; it must come with that Python.
_PYTHON_OF_RELEASE = {"bookworm": "3.11", "trixie": "3.13"}
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_IGNORED = ("EXPOSE", "VOLUME", "MAINTAINER")


@dataclass(slots=True)
class Image:
    """A root, and how what is in it wants to be run. arguments: those of ARG, which only the build sees."""

    root: Path
    environment: dict[str, str] = field(default_factory=lambda: {"PATH": _PATH})
    arguments: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    directory: str = "/"
    user: tuple[int, int] = (0, 0)
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)
    stop_signal: str = "SIGTERM"

    @property
    def variables(self) -> dict[str, str]:
        """What $name means in a step: ENV wins over ARG."""
        return {**self.arguments, **self.environment}


class Builder:
    """Performs stages.

    Args:
        context: what COPY takes from.
        work: a directory for the roots; a Debian in it is kept for the next time.
        build_args: as of `docker build --build-arg`.
    """

    def __init__(self, context: Context, work: Path, build_args: Mapping[str, str]) -> None:
        self._context = context
        self._work = work
        self._build_args = build_args
        self._built: dict[str, Image] = {}
        self._mounts: list[Mount] = []

    def build(self, stages: Sequence[Stage]) -> Image:
        """Perform all stages in order; the last one is the image.

        Raises:
            EngineError: a step failed, with the end of what it printed. ConfigError: one that is not understood.
        """
        self._work.mkdir(parents=True, exist_ok=True)
        self._mounts = [Mount(path, str(path)) for path in host.paths()]
        self._mounts.append(Mount(host.pip_settings(self._work), "/run/pip.conf"))
        for number, stage in enumerate(stages):
            started = time.monotonic()
            log.info("FROM %s (%s)", stage.image, stage.name)
            image = self._built[stage.name] = self._begin(stage, number)
            for step in stage.steps:
                self._perform(step, image)
            log.info("stage %s: %.0f s", stage.name, time.monotonic() - started)
        return self._built[stages[-1].name]

    def _begin(self, stage: Stage, number: int) -> Image:
        root = self._work / f"stage-{number}"
        subprocess.run(["rm", "-rf", "--one-file-system", str(root)], check=True)
        parent = self._built.get(stage.image)
        base = parent.root if parent else debian(self._work, release_of(stage.image))
        subprocess.run(["cp", "-a", "--reflink=auto", str(base), str(root)], check=True)
        if parent is None:
            return Image(root)
        return Image(
            root, dict(parent.environment), {}, dict(parent.labels), parent.directory, parent.user,
            parent.entrypoint, parent.command, parent.health, parent.stop_signal,
        )  # fmt: skip

    def _perform(self, step: Step, image: Image) -> None:
        log.info("  %s %s", step.instruction, re.sub(r"\s+", " ", step.value)[:140])
        match step.instruction:
            case "RUN":
                self._run(step.value, image)
            case "COPY":
                self._copy(step.value, image)
            case "ARG":
                name, _, default = dockerfile.words(step.value, image.variables)[0].partition("=")
                image.arguments[name] = self._build_args.get(name, default)
            case "WORKDIR":
                [directory] = dockerfile.words(step.value, image.variables)
                image.directory = str(PurePosixPath(image.directory) / directory)
                (image.root / image.directory.lstrip("/")).mkdir(parents=True, exist_ok=True)
            case "USER":
                image.user = user_of(image.root, step.value)
            case other if not describe(step, image) and other not in _IGNORED:
                raise ConfigError(f"{other}: a step that the rehearsal does not know")

    def _run(self, value: str, image: Image) -> None:
        options, script = dockerfile.options_and_rest(value)
        if options:
            raise ConfigError(f"RUN --{next(iter(options))}: an option that the rehearsal does not know")
        environment = host.environment() | {"PIP_CONFIG_FILE": "/run/pip.conf", "HOME": "/root"} | image.variables
        make_targets(image.root, self._mounts)
        step = Command(tuple(dockerfile.command(script)), environment, image.directory, image.user)
        done = subprocess.run(
            entering(image.root, step, self._mounts), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise EngineError(f"RUN {script[:80]}…: exit status {done.returncode}\n{done.stdout[-3000:]}")

    def _copy(self, value: str, image: Image) -> None:
        options, rest = dockerfile.options_and_rest(value)
        *sources, target = dockerfile.words(rest, image.variables)
        into = image.root / str(PurePosixPath(image.directory) / target).lstrip("/")
        owner = user_of(image.root, options["chown"]) if "chown" in options else (0, 0)
        for source in sources:
            stage = self._built.get(options.get("from", ""))
            path = (stage.root if stage else self._context.directory) / source.lstrip("/")
            # A directory's contents go to the target, a file goes into it where it ends in a slash.
            place = into / path.name if target.endswith(("/", ".")) and not path.is_dir() else into
            if stage:
                copy_tree(path, place, owner)
            elif "from" in options:
                raise ConfigError(f"COPY --from={options['from']}: no such stage")
            else:
                self._context.copy(source, place)


def describe(step: Step, image: Image) -> bool:
    """Take in a step that says how the image is run, and changes no file; False for every other one."""
    match step.instruction:
        case "ENV":
            image.environment |= dockerfile.key_values(step.value, image.variables)
        case "LABEL":
            image.labels |= dockerfile.key_values(step.value, image.variables)
        case "ENTRYPOINT":
            image.entrypoint = dockerfile.command(step.value)
        case "CMD":
            image.command = dockerfile.command(step.value)
        case "HEALTHCHECK":
            _, test = dockerfile.options_and_rest(step.value)
            image.health = dockerfile.command(test.removeprefix("CMD").strip())
        case "STOPSIGNAL":
            image.stop_signal = step.value.strip()
        case _:
            return False
    return True


def release_of(image: str) -> str:
    """The Debian release that stands for a base image. Raises ConfigError for images other than slim Pythons."""
    match = re.fullmatch(r"(?:docker\.io/library/)?python:([\d.]+)-slim-([a-z]+)(?:@sha256:[0-9a-f]+)?", image)
    if match is None or _PYTHON_OF_RELEASE.get(match[2]) != match[1]:
        known = ", ".join(f"python:{python}-slim-{release}" for release, python in _PYTHON_OF_RELEASE.items())
        raise ConfigError(f"FROM {image}: the rehearsal can stand in for {known} only")
    return match[2]


def user_of(root: Path, value: str) -> tuple[int, int]:
    """User and group of USER or --chown, by number or by name in the root."""
    user, _, group = value.strip().partition(":")
    entries = [line.split(":") for line in (root / "etc/passwd").read_text().splitlines()]
    groups = [line.split(":") for line in (root / "etc/group").read_text().splitlines()]
    if user.isdigit():
        user_id, default = int(user), next((int(entry[3]) for entry in entries if entry[2] == user), 0)
    else:
        user_id, default = next(((int(entry[2]), int(entry[3])) for entry in entries if entry[0] == user), (-1, -1))
    group_id = default
    if group:
        group_id = int(group) if group.isdigit() else next((int(g[2]) for g in groups if g[0] == group), -1)
    if min(user_id, group_id) < 0:
        raise ConfigError(f"{value}: no such user or group in the image")
    return user_id, group_id


def remove(work: Path) -> None:
    """Remove the stages; the Debian that they began with stays."""
    for root in work.glob("stage-*"):
        subprocess.run(["rm", "-rf", "--one-file-system", str(root)], check=True)
