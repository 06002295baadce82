"""The pages: every link leads somewhere, every path that they name is there, and every setting is on its page."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from engine.config.serving import EngineConfig, SurfaceConfig
from engine.training.config import TrainingConfig

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
# Pages for readers of this tree; records of decisions and of changes name files of their time.
CURRENT = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
CONFIGURATION = ROOT / "docs" / "configuration.md"
_TOP = "|".join(path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith("."))
_PATH = re.compile(rf"(?<![\w./:-])(?:(?:{_TOP})/[\w./-]+|[\w-]+\.(?:toml|md)|Makefile)(?![\w(])")
# Made by a command, by a reader of the page, or in another place than the root.
_NOT_HERE = re.compile(r"var/|.*NAME|(?:mapping|training|engine)\.toml$")
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """What GitHub makes of the headings."""
    headings = re.findall(r"^#+ (.*)$", without_code(page.read_text()), flags=re.MULTILINE)
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    broken = []
    for target in _LINK.findall(without_code(page.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert not broken


def paths(page: Path) -> set[str]:
    """What a page names of the tree, links left out: those have a test of their own."""
    named = _PATH.findall(re.sub(r"\]\([^)]*\)", "]", page.read_text()))
    return {path.rstrip(".") for path in named if not _NOT_HERE.match(path)}


@pytest.mark.parametrize("page", CURRENT, ids=lambda page: page.name)
def test_every_path_that_a_page_names_is_there(page: Path) -> None:
    # A page names a file of its own folder without it.
    assert not [path for path in sorted(paths(page)) if not ((ROOT / path).exists() or (page.parent / path).exists())]


def test_the_walks_and_the_lists_name_their_files() -> None:
    assert len(paths(ROOT / "docs" / "architecture.md")) > 50
    assert len(paths(ROOT / "docs" / "extending.md")) > 20


def settings(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every key below a model, and its default."""
    for name, field in model.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if isinstance(default, BaseModel):
            yield from settings(type(default), f"{prefix}{name}.")
        else:
            yield prefix + name, default


def as_toml(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return "none" if value is None else str(value).lower()
    if isinstance(value, str | Path):
        return f'"{value}"'
    if isinstance(value, tuple):
        return f"[{', '.join(map(as_toml, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {as_toml(one)}" for key, one in value.items()) + "}"
    return f"{value:.15g}"


def test_the_configuration_page_has_every_setting_with_its_default() -> None:
    serving = dict(settings(EngineConfig))
    del serving["surfaces"]
    serving |= {f"surfaces.NAME.{key}": value for key, value in settings(SurfaceConfig) if not key.startswith("seen.")}
    training = {key: value for key, value in settings(TrainingConfig) if not key.startswith("seen.")}
    rows = dict(re.findall(r"^\| `([\w.]+)` \| (.*?) \|", CONFIGURATION.read_text(), flags=re.MULTILINE))
    # The training settings have a seen policy as well, which the page describes once.
    assert rows.pop("seen") == "as above"
    assert rows == {key: as_toml(value) for key, value in (serving | training).items()}
