"""The second best, where there is no root to build in: an image's packages in a virtual environment of their own."""

import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from deploy.rehearse import dockerfile
from deploy.rehearse.build import Image, describe
from deploy.rehearse.dockerfile import Stage
from engine.errors import ConfigError, EngineError


def install(stages: Sequence[Stage], context: Path, directory: Path, build_args: Mapping[str, str]) -> Image:
    """Install what the first stage installs, with its pins, and take from the last one how it is run.

    Returns:
        An image whose root is the environment; its settings are the ones beside the Dockerfile.

    Raises:
        EngineError: pip failed, with its last words. ConfigError: no extras or pins in the first stage.
    """
    declared = [dockerfile.key_values(step.value, {}) for step in stages[0].steps if step.instruction == "ARG"]
    extras = build_args.get("EXTRAS") or next((values["EXTRAS"] for values in declared if "EXTRAS" in values), "")
    steps = " ".join(step.value for step in stages[0].steps if step.instruction == "RUN")
    pins = sorted(set(re.findall(r"--constraint (\S+)", steps)))
    if not extras or not pins:
        raise ConfigError("the first stage names no EXTRAS or no --constraint")
    pip = [str(directory / "bin/pip"), "install", "--only-binary", ":all:"]
    pip += [word for pin in pins for word in ("--constraint", pin)]
    # pip itself is pinned as well, and an older one does not understand the others' pins.
    for command in ([sys.executable, "-m", "venv", "--clear", str(directory)], [*pip, "pip"], [*pip, f".[{extras}]"]):
        done = subprocess.run(command, cwd=context, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise EngineError(f"{' '.join(command)}: {(done.stdout + done.stderr)[-2000:]}")
    image = Image(directory)
    for step in stages[-1].steps:
        describe(step, image)
    image.environment |= {
        "PATH": f"{directory}/bin:/usr/bin:/bin",
        "NUMBA_CACHE_DIR": str(directory / "kernels"),
        "ENGINE_CONFIG": str(context / "deploy/config/engine.toml"),
        "ENGINE_RULES__FILE": str(context / "deploy/config/rules.yaml"),
    }
    return image
