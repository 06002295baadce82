"""What the checks read: the files of deploy/, parsed."""

import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
OVERLAYS = ("cpu", "gpu", "trial")

Document = dict[str, Any]


def documents(path: Path) -> list[Document]:
    return [document for document in YAML(typ="safe", pure=True).load_all(path.read_text()) if document]


def compose() -> Document:
    [document] = documents(DEPLOY / "compose.yaml")
    return document


@cache
def manifests() -> list[tuple[str, Document]]:
    """Every object that base and components bring, with the file that it is in."""
    paths = [*KUBERNETES.glob("base/*.yaml"), *KUBERNETES.glob("components/*/*.yaml")]
    return [
        (f"{path.relative_to(KUBERNETES)}", document)
        for path in sorted(paths)
        if path.name != "kustomization.yaml"
        for document in documents(path)
    ]


@cache
def rendered(overlay: str) -> list[Document]:
    """What an overlay comes to; skips where there is no kubectl."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl, which renders overlays, is not installed")
    done = subprocess.run(
        ["kubectl", "kustomize", str(KUBERNETES / "overlays" / overlay)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return [document for document in YAML(typ="safe", pure=True).load_all(done.stdout) if document]


def named(objects: list[Document], kind: str, name: str) -> Document:
    [found] = [found for found in objects if found["kind"] == kind and found["metadata"]["name"] == name]
    return found


def pod_of(document: Document) -> Document | None:
    """The pod that an object makes, if it makes any."""
    spec = document.get("spec", {})
    spec = spec.get("jobTemplate", {}).get("spec", spec)
    found = spec.get("template", {}).get("spec")
    return found if isinstance(found, dict) else None


def containers(document: Document) -> Iterator[Document]:
    found = pod_of(document) or {}
    yield from found.get("initContainers", [])
    yield from found.get("containers", [])
