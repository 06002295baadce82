"""The stages and steps of a Dockerfile, in order, with their words; the reading itself is dockerfile-parse's."""

import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dockerfile_parse import DockerfileParser
from dockerfile_parse.parser import image_from
from dockerfile_parse.util import WordSplitter, extract_key_values

from engine.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Step:
    """One instruction after FROM; `value` as it stands there, on one line."""

    instruction: str
    value: str


@dataclass(frozen=True, slots=True)
class Stage:
    """One FROM with what follows. name: after AS, else its number. image: a base image or another stage's name."""

    name: str
    image: str
    steps: tuple[Step, ...]


def read_stages(path: Path, build_args: Mapping[str, str]) -> list[Stage]:
    """All stages of a file.

    Args:
        build_args: win over the defaults of ARG in front of the first FROM.

    Raises:
        ConfigError: no such file, or nothing in it that can be built.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: no such file")
    parser = DockerfileParser(fileobj=io.BytesIO(path.read_bytes()))
    images, stages, steps = list(_images(parser, build_args)), list[Stage](), list[Step]()
    for entry in parser.structure:
        instruction, value = entry["instruction"], entry["value"]
        if instruction == "FROM":
            _, name = image_from(value)
            steps = []
            stages.append(Stage(name or str(len(stages)), images[len(stages)], ()))
        elif stages and instruction != "COMMENT":
            steps.append(Step(instruction, value))
            stages[-1] = Stage(stages[-1].name, stages[-1].image, tuple(steps))
    if not stages:
        raise ConfigError(f"{path}: no FROM")
    return stages


def _images(parser: DockerfileParser, build_args: Mapping[str, str]) -> list[str]:
    parser.build_args = dict(build_args)
    return list(parser.parent_images)


def words(value: str, variables: Mapping[str, str]) -> list[str]:
    """Split into words, with quotes taken off and variables put in."""
    return list(WordSplitter(value, args={}, envs=dict(variables)).split())


def key_values(value: str, variables: Mapping[str, str]) -> dict[str, str]:
    """Those of ENV and LABEL."""
    return dict(extract_key_values(env_replace=True, args={}, envs=dict(variables), instruction_value=value))


def options_and_rest(value: str) -> tuple[dict[str, str], str]:
    """The --name=value options that an instruction begins with, and what follows."""
    options = {}
    while match := re.match(r"\s*--([a-z-]+)=(\S+)\s+", value):
        options[match[1]] = match[2]
        value = value[match.end() :]
    return options, value.strip()


def command(value: str) -> list[str]:
    """What is run: the JSON form as it is, the other one by a shell."""
    try:
        parsed = json.loads(value)
    except json.JSONDecodeError:
        return ["/bin/sh", "-c", value]
    if not isinstance(parsed, list):
        return ["/bin/sh", "-c", value]
    return [str(word) for word in parsed]
