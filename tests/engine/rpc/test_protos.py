"""The protos name their package in every language that needs to be told, and alike in all files."""

import importlib
from pathlib import Path

import pytest
from google.protobuf.descriptor import FileDescriptor

PROTOS = Path(__file__).parents[3] / "proto"
SHARED_OPTIONS = {
    "csharp_namespace": "Engine.V1",
    "go_package": "personalization-engine/engine/v1;enginev1",
    "java_multiple_files": True,
    "java_package": "engine.v1",
    "objc_class_prefix": "ENG",
    "php_namespace": "Engine\\V1",
    "ruby_package": "Engine::V1",
}


@pytest.mark.parametrize("path", sorted(PROTOS.rglob("*.proto")), ids=lambda path: path.stem)
def test_language_options(path: Path) -> None:
    file: FileDescriptor = importlib.import_module(f"engine_client.v1.{path.stem}_pb2").DESCRIPTOR
    options = file.GetOptions()
    assert {name: getattr(options, name) for name in SHARED_OPTIONS} == SHARED_OPTIONS
    # Java needs one class a file, and its name must not be that of a message.
    assert options.java_outer_classname == path.stem.title().replace("_", "") + "Proto"
    assert options.java_outer_classname not in file.message_types_by_name
