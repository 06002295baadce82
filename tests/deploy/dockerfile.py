"""The stages and steps of a Dockerfile, read by dockerfile-parse."""

import io
import re
from dataclasses import dataclass
from pathlib import Path

from dockerfile_parse import DockerfileParser
from dockerfile_parse.parser import image_from
from dockerfile_parse.util import extract_key_values


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
    steps: list[Step]


def read_stages(path: Path) -> list[Stage]:
    parser = DockerfileParser(fileobj=io.BytesIO(path.read_bytes()))
    images, stages = iter(parser.parent_images), list[Stage]()
    for entry in parser.structure:
        if entry["instruction"] == "FROM":
            stages.append(Stage(image_from(entry["value"])[1] or str(len(stages)), next(images), []))
        elif stages and entry["instruction"] != "COMMENT":
            stages[-1].steps.append(Step(entry["instruction"], entry["value"]))
    return stages


def variables(value: str) -> dict[str, str]:
    """Those of an ENV instruction, with PATH of the base image empty."""
    return dict(extract_key_values(env_replace=True, args={}, envs={"PATH": ""}, instruction_value=value))


def options_and_rest(value: str) -> tuple[dict[str, str], str]:
    """The --name=value options that an instruction begins with, and what follows."""
    options = {}
    while match := re.match(r"\s*--([a-z-]+)=(\S+)\s+", value):
        options[match[1]] = match[2]
        value = value[match.end() :]
    return options, value.strip()
