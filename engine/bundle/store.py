"""A directory of bundles: versions side by side, and a `current` pointer that moves in one step."""

import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from engine.bundle.manifest import BUNDLE_SCHEMA_VERSION, MANIFEST, Manifest, file_entry, read_manifest, verify_files
from engine.errors import BundleError

CURRENT: Final = "current"
NEXT: Final = "next"


class BundleStore:
    """Publishes bundles and says which one is current. Readers never see a half-written bundle."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def current(self) -> Path:
        """The directory that the pointer names. Raises BundleError when there is none."""
        path = self._pointed_to(CURRENT)
        if path is None:
            raise BundleError(
                f"{self.directory / CURRENT}: no bundle has been published there; run `engine train` first"
            )
        return path

    def next(self) -> Path | None:
        """The bundle that is to become current once its users are published; None where none waits."""
        path = self._pointed_to(NEXT)
        return path if path is not None and (path / MANIFEST).is_file() else None

    def point_to(self, version: str) -> None:
        """Make a version current, atomically: a symbolic link is made aside and renamed over the old one."""
        self._point(CURRENT, version)
        if (waiting := self.next()) is not None and waiting.name == version:
            (self.directory / NEXT).unlink(missing_ok=True)

    def let_wait(self, version: str) -> None:
        """Have a version wait for its users; what waited before it waits no longer."""
        self._point(NEXT, version)

    def _pointed_to(self, pointer: str) -> Path | None:
        try:
            return self.directory / os.readlink(self.directory / pointer)
        except OSError:
            return None

    def _point(self, pointer: str, version: str) -> None:
        if not (self.directory / version / MANIFEST).is_file():
            raise BundleError(f"{self.directory / version}: not a bundle")
        aside = self.directory / f".{pointer}.{os.getpid()}"
        with suppress(FileNotFoundError):
            aside.unlink()
        aside.symlink_to(version)
        aside.replace(self.directory / pointer)

    def publish(self, write: Callable[[Path], dict[str, Any]], make_current: bool = True) -> Path:
        """Write a new version and make it current.

        Args:
            write: fills the (empty) directory that it is given and returns the manifest's fields other than
                schema_version, version, created_ms and files.
            make_current: move the pointer, too.

        Returns:
            The directory of the finished bundle. A failed `write` leaves no files.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        staging = self.directory / f".writing.{os.getpid()}"
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir()
        try:
            fields = write(staging)
            created_ms = time.time_ns() // 1_000_000
            files = {path.name: file_entry(path) for path in sorted(staging.iterdir())}
            version = self._unused_version(created_ms)
            manifest = Manifest(
                schema_version=BUNDLE_SCHEMA_VERSION, version=version, created_ms=created_ms, files=files, **fields
            )
            (staging / MANIFEST).write_text(manifest.model_dump_json(indent=1))
            staging.rename(self.directory / version)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
        if make_current:
            self.point_to(version)
        return self.directory / version

    def versions(self) -> list[Path]:
        """The directories of all bundles, the newest first; what is half-written is none of them."""
        if not self.directory.is_dir():
            return []
        found = [path for path in self.directory.iterdir() if not path.is_symlink() and (path / MANIFEST).is_file()]
        bundles = [path for path in found if not path.name.startswith(".")]
        return sorted(bundles, key=lambda path: (read_manifest(path).created_ms, path.name), reverse=True)

    def add(self, source: Path) -> Path:
        """Copy a bundle into this directory, under its own version. The pointer does not move.

        Returns:
            Its directory here; one that is here already is not copied again.

        Raises:
            BundleError: not a bundle, or one that does not verify once it is here.
        """
        manifest = read_manifest(source)
        target = self.directory / manifest.version
        if not target.exists():
            staging = self.directory / f".adding.{os.getpid()}"
            shutil.rmtree(staging, ignore_errors=True)
            try:
                shutil.copytree(source, staging)
                verify_files(staging, manifest)
                staging.rename(target)
            except BaseException:
                shutil.rmtree(staging, ignore_errors=True)
                raise
        verify_files(target, manifest)
        return target

    def drop_old(self, keep: int) -> list[Path]:
        """Delete all but the newest `keep` bundles, the current one and the next; returns what is gone."""
        needed = {path.resolve() for path in (self.current(), self.next()) if path is not None}
        old = [path for path in self.versions()[keep:] if path.resolve() not in needed]
        for path in old:
            shutil.rmtree(path)
        return old

    def _unused_version(self, created_ms: int) -> str:
        base = time.strftime("%Y%m%dT%H%M%S", time.gmtime(created_ms / 1000))
        version, attempt = base, 1
        while (self.directory / version).exists():
            version, attempt = f"{base}-{attempt}", attempt + 1
        return version


def bundle_at(directory: Path) -> Path:
    """The directory itself, where it is a bundle; of a directory of bundles the current one. Raises BundleError."""
    return directory if (directory / MANIFEST).is_file() else BundleStore(directory).current()
