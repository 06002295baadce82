import json
from pathlib import Path
from typing import Any

import pytest

from engine.bundle.manifest import MANIFEST, read_manifest, verify_files
from engine.bundle.store import BundleStore
from engine.errors import BundleError

FIELDS: dict[str, Any] = {
    "generation": 7, "data_end_ms": 0, "embeddings": "als", "item_count": 1, "user_count": 1,
    "training": {}, "index": {},
}  # fmt: skip


def write(directory: Path) -> dict[str, Any]:
    (directory / "a.bin").write_bytes(b"some bytes")
    (directory / "b.bin").write_bytes(b"")
    return FIELDS


def test_a_published_bundle_is_current_and_verifies(tmp_path: Path) -> None:
    store = BundleStore(tmp_path / "bundles")
    path = store.publish(write)
    assert store.current() == path
    manifest = read_manifest(path)
    assert manifest.version == path.name
    assert set(manifest.files) == {"a.bin", "b.bin"}
    verify_files(path, manifest)


def test_versions_stay_side_by_side_and_the_pointer_moves_both_ways(tmp_path: Path) -> None:
    store = BundleStore(tmp_path)
    first, second, third = store.publish(write), store.publish(write), store.publish(write, make_current=False)
    assert len({first, second, third}) == 3
    assert store.current() == second
    store.point_to(first.name)
    assert store.current() == first


def test_a_writer_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    store = BundleStore(tmp_path)
    first = store.publish(write)

    def fail(directory: Path) -> dict[str, Any]:
        write(directory)
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        store.publish(fail)
    assert store.current() == first
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([first.name, "current"])


def test_no_bundle_is_said_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="engine train"):
        BundleStore(tmp_path / "nowhere").current()
    with pytest.raises(BundleError, match="not a bundle"):
        BundleStore(tmp_path).point_to("20260101T000000")


def test_truncated_altered_and_missing_files_are_named(tmp_path: Path) -> None:
    path = BundleStore(tmp_path).publish(write)
    manifest = read_manifest(path)
    (path / "a.bin").write_bytes(b"some byteZ")
    with pytest.raises(BundleError, match=r"a\.bin: SHA-256 differs"):
        verify_files(path, manifest)
    (path / "a.bin").write_bytes(b"some")
    with pytest.raises(BundleError, match=r"a\.bin: 4 bytes where the manifest says 10: truncated"):
        verify_files(path, manifest)
    (path / "a.bin").unlink()
    with pytest.raises(BundleError, match=r"a\.bin: listed in the manifest but missing"):
        verify_files(path, manifest)


def test_a_manifest_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    path = BundleStore(tmp_path).publish(write)
    good = json.loads((path / MANIFEST).read_text())
    (path / MANIFEST).write_text(json.dumps({**good, "schema_version": 99}))
    with pytest.raises(BundleError, match="schema version 99 is unknown"):
        read_manifest(path)
    (path / MANIFEST).write_text(json.dumps({key: value for key, value in good.items() if key != "generation"}))
    with pytest.raises(BundleError, match="generation"):
        read_manifest(path)
    (path / MANIFEST).write_text("{ not json")
    with pytest.raises(BundleError, match="manifest"):
        read_manifest(path)


def test_versions_are_listed_newest_first_without_what_is_half_written(tmp_path: Path) -> None:
    store = BundleStore(tmp_path / "bundles")
    assert store.versions() == []
    first, second = store.publish(write), store.publish(write)
    (store.directory / ".writing.1").mkdir()
    (store.directory / ".writing.1" / MANIFEST).write_text("{")
    (store.directory / "notes").mkdir()
    assert store.versions() == [second, first]


def test_a_bundle_from_elsewhere_keeps_its_version_and_does_not_serve_by_itself(tmp_path: Path) -> None:
    elsewhere, store = BundleStore(tmp_path / "elsewhere"), BundleStore(tmp_path / "bundles")
    here = store.publish(write)
    other = elsewhere.publish(write)
    other = other.rename(other.with_name("20300101T000000"))
    manifest = json.loads((other / MANIFEST).read_text())
    (other / MANIFEST).write_text(json.dumps(manifest | {"version": other.name}))
    added = store.add(other)
    assert added == store.directory / other.name
    assert store.add(other) == added
    assert store.current() == here
    verify_files(added, read_manifest(added))


def test_a_copy_that_does_not_verify_is_not_taken_in(tmp_path: Path) -> None:
    other = BundleStore(tmp_path / "elsewhere").publish(write)
    (other / "a.bin").write_bytes(b"other bytes")
    store = BundleStore(tmp_path / "bundles")
    store.directory.mkdir()
    with pytest.raises(BundleError, match=r"a\.bin"):
        store.add(other)
    assert list(store.directory.iterdir()) == []


def test_old_bundles_go_and_the_current_one_stays(tmp_path: Path) -> None:
    store = BundleStore(tmp_path)
    first, second, third, fourth = (store.publish(write) for _ in range(4))
    store.point_to(first.name)
    assert store.drop_old(2) == [second]
    assert store.versions() == [fourth, third, first]
    assert store.drop_old(2) == []
