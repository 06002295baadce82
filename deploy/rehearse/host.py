"""What a build borrows from this machine for its way to package registries: names, certificates, pip's settings.

Read when it is needed and bound into the root for the time of a step; nothing of it stays in what is built.
"""

import ast
import configparser
import os
import subprocess
import sys
from pathlib import Path

_ENVIRONMENT = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


def environment() -> dict[str, str]:
    """Variables that say how registries are reached."""
    return {
        name: value
        for name, value in os.environ.items()
        if name in _ENVIRONMENT or name.startswith("PIP_") or name.lower().endswith("_proxy")
    }


def pip_settings(directory: Path) -> Path:
    """One file with what pip's configuration files say here, written into `directory`."""
    settings = configparser.RawConfigParser()
    for name, value in _pip_config():
        section, _, key = name.partition(".")
        if section.startswith(":"):
            # From the environment, which is handed on as it is.
            continue
        if not settings.has_section(section):
            settings.add_section(section)
        settings.set(section, key, value)
    path = directory / "pip.conf"
    with path.open("w") as file:
        settings.write(file)
    return path


def paths() -> list[Path]:
    """Files and directories of this machine that those settings name, and how names are resolved."""
    found = {Path("/etc/resolv.conf")}
    values = [*environment().values(), *(value for _, value in _pip_config())]
    for word in " ".join(values).split():
        # An index names its files by relative links, which lie beside it.
        path = Path(word.removeprefix("file://")).parent if word.startswith("file://") else Path(word)
        if path.is_absolute() and path.exists():
            found.add(path)
    return sorted(found)


def _pip_config() -> list[tuple[str, str]]:
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], check=True, capture_output=True, text=True
    ).stdout
    pairs = (line.split("=", 1) for line in listed.splitlines() if "=" in line)
    return [(name, str(ast.literal_eval(value))) for name, value in pairs]
