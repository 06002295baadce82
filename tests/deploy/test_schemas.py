"""Every file against the schema of what reads it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.files import DEPLOY, OVERLAYS, ROOT, Document, compose, documents, manifests, rendered

# The oldest that knows all that the manifests use, and the newest that the checker knows.
KUBERNETES_VERSIONS = ("1.30", "1.37")


def check_object(document: Document, version: str) -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    kubernetes_validate.validate(document, version, strict=True)


def installed(name: str) -> str:
    """A tool of the environment that runs the tests; skips without it."""
    path = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


def check(*command: str) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("version", KUBERNETES_VERSIONS)
@pytest.mark.parametrize(
    "document", [pytest.param(document, id=f"{file}-{document['kind']}") for file, document in manifests()]
)
def test_every_object_is_one_that_kubernetes_takes(document: Document, version: str) -> None:
    check_object(document, version)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_overlay_comes_to_such_objects(overlay: str) -> None:
    for document in rendered(overlay):
        check_object(document, KUBERNETES_VERSIONS[-1])


def test_the_checker_refuses_a_misspelt_key() -> None:
    document = next(document for _, document in manifests() if document["kind"] == "Deployment")
    misspelt = json.loads(json.dumps(document))
    misspelt["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    with pytest.raises(kubernetes_validate.ValidationError, match="readynessProbe"):
        check_object(misspelt, KUBERNETES_VERSIONS[-1])


def test_compose_takes_its_files() -> None:
    files = [str(DEPLOY / name) for name in ("compose.yaml", "compose.gpu.yaml")]
    check(installed("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", *files)


def test_every_file_that_compose_mounts_or_builds_from_is_there() -> None:
    services, configs = compose()["services"], compose()["configs"]
    mounted = [volume.split(":")[0] for service in services.values() for volume in service.get("volumes", [])]
    for path in [config["file"] for config in configs.values()] + [path for path in mounted if path.startswith(".")]:
        assert (DEPLOY / path).exists()
    used = [entry["source"] for service in services.values() for entry in service.get("configs", [])]
    assert set(used) == set(configs)
    assert {path for path in mounted if not path.startswith(".")} == set(compose()["volumes"])
    [overlay] = documents(DEPLOY / "compose.gpu.yaml")
    assert (ROOT / overlay["services"]["engine"]["build"]["dockerfile"]).is_file()


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.gpu"])
def test_hadolint_has_nothing_to_say(name: str) -> None:
    check(installed("hadolint"), str(ROOT / name))


@pytest.mark.parametrize(("kind", "file"), [("config", "prometheus.yml"), ("rules", "alerts.yml")])
def test_prometheus_takes_its_files(kind: str, file: str) -> None:
    check(installed("promtool"), "check", kind, str(DEPLOY / "prometheus" / file))
