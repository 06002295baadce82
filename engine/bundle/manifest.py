"""The bundle's table of contents: what is in the directory, and the SHA-256 that proves it."""

import hashlib
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from engine.errors import BundleError

MANIFEST: Final = "manifest.json"
BUNDLE_SCHEMA_VERSION: Final = 1


# The name of a directory or file right here: what a bundle says must never lead out of its store.
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$")]


class FileEntry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    bytes: int
    sha256: str


class Manifest(BaseModel):
    """manifest.json. `generation` names the embedding space; `files` covers every other file of the directory."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int
    version: Name
    generation: int
    created_ms: int
    data_end_ms: int
    embeddings: str
    item_count: int
    user_count: int
    training: dict[str, Any]
    index: dict[str, Any]
    files: dict[Name, FileEntry]


def file_entry(path: Path) -> FileEntry:
    """Size and SHA-256 of one file."""
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return FileEntry(bytes=path.stat().st_size, sha256=digest)


def read_manifest(directory: Path) -> Manifest:
    """Parse manifest.json. Raises BundleError for a missing, broken or unknown-version one."""
    path = directory / MANIFEST
    try:
        text = path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path}: not a bundle: {error.strerror}") from None
    try:
        manifest = Manifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        raise BundleError(f"{path}: {'.'.join(map(str, first['loc'])) or 'content'}: {first['msg']}") from None
    if manifest.schema_version != BUNDLE_SCHEMA_VERSION:
        raise BundleError(
            f"{path}: schema version {manifest.schema_version} is unknown; this engine reads {BUNDLE_SCHEMA_VERSION}"
        )
    return manifest


def verify_files(directory: Path, manifest: Manifest) -> None:
    """Compare every listed file with its entry. Cost: one read of the bundle. Raises BundleError at the first."""
    for name, expected in manifest.files.items():
        path = directory / name
        if not path.is_file():
            raise BundleError(f"{path}: listed in the manifest but missing")
        size = path.stat().st_size
        if size != expected.bytes:
            raise BundleError(f"{path}: {size} bytes where the manifest says {expected.bytes}: truncated or altered")
        if file_entry(path).sha256 != expected.sha256:
            raise BundleError(f"{path}: SHA-256 differs from the manifest: altered after it was written")
