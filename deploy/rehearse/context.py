"""COPY: what of a directory may be taken, and taking it."""

import os
import shutil
from pathlib import Path

import pathspec


class Context:
    """The files that a build may see: a directory less what its .dockerignore leaves out."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        ignore = directory / ".dockerignore"
        lines = ignore.read_text().splitlines() if ignore.is_file() else []
        patterns = [pattern for line in lines for pattern in _anchored(line)]
        self._ignored = pathspec.PathSpec.from_lines("gitignore", patterns)

    def copy(self, source: str, target: Path) -> None:
        """Copy one file or directory, ignored files left out. Raises FileNotFoundError where nothing is left."""
        path = self.directory / source
        if path.is_file() and not self._ignored.match_file(source):
            _copy_file(path, target)
            return
        files = [
            found for found in sorted(path.rglob("*")) if found.is_file() and not self._ignored.match_file(
                str(found.relative_to(self.directory))
            )
        ]  # fmt: skip
        if not files:
            raise FileNotFoundError(f"COPY {source}: not in the build context, or ignored")
        for file in files:
            _copy_file(file, target / file.relative_to(path))


def copy_tree(source: Path, target: Path, owner: tuple[int, int]) -> None:
    """Copy a file or the contents of a directory as they are, links too, with another owner."""
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)
        for directory, names, files in os.walk(target):
            for path in (directory, *(os.path.join(directory, name) for name in names + files)):
                os.chown(path, *owner, follow_symlinks=False)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target, follow_symlinks=False)
        os.chown(target, *owner, follow_symlinks=False)


def _copy_file(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, target)


def _anchored(line: str) -> list[str]:
    """A .dockerignore pattern is meant from the top, and for all that is below what it matches."""
    line = line.strip()
    if not line or line.startswith("#"):
        return []
    negated, pattern = "!" if line.startswith("!") else "", line.lstrip("!").strip("/")
    return [f"{negated}/{pattern}", f"{negated}/{pattern}/**"]
