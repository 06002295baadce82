"""One bundle, opened: everything that serving needs of it, checked and mapped into memory."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from pydantic import ValidationError

from engine.bundle.items import ITEM_FILES, Items, read_items
from engine.bundle.manifest import MANIFEST, Manifest, read_manifest, verify_files
from engine.bundle.popularity import POPULARITY_FILES, Popularity
from engine.errors import BundleError, described
from engine.features.schema import ITEM_DYNAMIC, SCHEMA_VERSION, FeatureSchema
from engine.features.session import SESSION_FIELD, SessionSettings
from engine.types import Float32Array

SCHEMA_FILE: Final = "schema.json"
ITEM_TABLE_FILE: Final = "item_table.npy"
ITEM_DYNAMIC_FILE: Final = "item_dynamic.npy"
INDEX_FILE: Final = "index.faiss"
RANKER_FILE: Final = "ranker.onnx"
# For GPUs. A bundle may be without it.
RANKER_HALF_FILE: Final = "ranker.fp16.onnx"
# With int8 layers, for processors. A bundle is without it where it would order items otherwise.
RANKER_INT8_FILE: Final = "ranker.int8.onnx"
ITEM_TOWER_FILE: Final = "item_tower.onnx"
USER_TOWER_FILE: Final = "user_tower.onnx"
CONTENT_FILE: Final = "content.json"
METRICS_FILE: Final = "metrics.json"

_ADVICE: Final = "; `engine bundles upgrade` makes one of the version before readable"

REQUIRED_FILES: Final = (
    SCHEMA_FILE, ITEM_TABLE_FILE, ITEM_DYNAMIC_FILE, INDEX_FILE, RANKER_FILE, *ITEM_FILES, *POPULARITY_FILES,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Bundle:
    """An opened bundle.

    item_table: float32 (items, schema.table_width), memory-mapped and read-only; column ranges are in the schema.
    item_dynamic: float32 (items, len(ITEM_DYNAMIC)), log1p counts as of the end of the data; mapped and read-only.
    ranker_session: how the ranker read sessions when it learned; what a request mixes in is for `[blend]` to say.
    """

    path: Path
    manifest: Manifest
    schema: FeatureSchema
    items: Items
    item_table: Float32Array
    item_dynamic: Float32Array
    popularity: Popularity
    ranker_session: SessionSettings

    @property
    def version(self) -> str:
        return self.manifest.version

    @property
    def item_vectors(self) -> Float32Array:
        """float32 (items, dim): the retrieval vectors, a strided view of the item table."""
        return self.item_table[:, : self.schema.embedding_dim]

    def column(self, name: str) -> Float32Array:
        """One named column range of the item table: float32 (items, width), a view."""
        start, stop = self.schema.item_columns[name]
        return self.item_table[:, start:stop]


def open_bundle(path: Path, verify: bool = True) -> Bundle:
    """Open and check a bundle.

    Args:
        path: the bundle's directory.
        verify: compare every file's SHA-256, too: one sequential read of the bundle.

    Raises:
        BundleError: a file is missing, truncated, altered, of another schema version, or does not fit the others.
    """
    path = path.resolve()
    manifest = read_manifest(path)
    missing = [name for name in REQUIRED_FILES if name not in manifest.files]
    if missing:
        raise BundleError(f"{path / 'manifest.json'}: does not list {missing[0]}")
    if verify:
        verify_files(path, manifest)
    schema = _read_schema(path)
    items = read_items(path)
    if len(items) != manifest.item_count:
        raise BundleError(f"{path / 'items.arrow'}: {len(items)} items where the manifest says {manifest.item_count}")
    table = _read_matrix(path / ITEM_TABLE_FILE, (len(items), schema.table_width))
    dynamic = _read_matrix(path / ITEM_DYNAMIC_FILE, (len(items), len(ITEM_DYNAMIC)))
    popularity = Popularity.read(path, len(items))
    return Bundle(path, manifest, schema, items, table, dynamic, popularity, _ranker_session(path, manifest))


def _read_schema(path: Path) -> FeatureSchema:
    try:
        schema = FeatureSchema.model_validate_json((path / SCHEMA_FILE).read_text())
    except (ValidationError, OSError) as error:
        raise BundleError(f"{path / SCHEMA_FILE}: {described(error)}") from None
    if schema.schema_version != SCHEMA_VERSION:
        raise BundleError(
            f"{path / SCHEMA_FILE}: feature schema version {schema.schema_version} is unknown;"
            f" this engine reads {SCHEMA_VERSION}{_ADVICE if schema.schema_version < SCHEMA_VERSION else ''}"
        )
    return schema


def _ranker_session(path: Path, manifest: Manifest) -> SessionSettings:
    try:
        return SessionSettings.of_training(manifest.training)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, ("training", SESSION_FIELD, *first["loc"])))
        raise BundleError(f"{path / MANIFEST}: {where}: {first['msg']}") from None


def _read_matrix(path: Path, shape: tuple[int, int]) -> Float32Array:
    try:
        matrix: Float32Array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise BundleError(f"{path}: {described(error)}") from None
    if matrix.shape != shape or matrix.dtype != np.float32 or not matrix.flags.c_contiguous:
        raise BundleError(f"{path}: {matrix.dtype} {matrix.shape} where float32 {shape} is expected")
    return matrix
