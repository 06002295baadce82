"""The Dockerfiles: alike where they should be, pinned, and with the user, ports and cache of the manifests."""

import json
import re
from fnmatch import fnmatch

import pytest

from engine.config.serving import EngineConfig
from tests.deploy.dockerfile import Stage, options_and_rest, read_stages, variables
from tests.deploy.files import DEPLOY, ROOT, containers, manifests, pod_of

FILES = ("Dockerfile", "Dockerfile.gpu")
PIN = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)$")


def values(stage: Stage, instruction: str) -> list[str]:
    return [step.value for step in stage.steps if step.instruction == instruction]


def last(name: str) -> Stage:
    return read_stages(ROOT / name)[-1]


def pins(name: str) -> dict[str, str]:
    found = {}
    for line in (ROOT / name).read_text().splitlines():
        if line and not line.startswith("#"):
            match = PIN.match(line)
            assert match is not None, line
            found[match[1].lower().replace("_", "-")] = match[2]
    return found


@pytest.mark.parametrize("name", FILES)
def test_every_install_is_held_by_pins_and_takes_wheels_alone(name: str) -> None:
    installs = [
        install
        for stage in read_stages(ROOT / name)
        for value in values(stage, "RUN")
        for install in re.findall(r"pip\s+(?:--python \S+ )?install .*?(?=&&|$)", value)
    ]
    assert len(installs) == 4
    for install in installs:
        held = "--constraint constraints.txt" in install and "--only-binary :all:" in install
        assert held or "--no-deps" in install
    assert ("constraints-gpu.txt" in installs[1]) == (name == "Dockerfile.gpu")


def test_pins_of_the_gpu_image_are_beside_the_others_not_against_them() -> None:
    assert not pins("constraints.txt").keys() & pins("constraints-gpu.txt").keys()
    assert {"faiss-gpu-cuvs", "onnxruntime-gpu"} <= pins("constraints-gpu.txt").keys()
    assert {"faiss-cpu", "onnxruntime", "setuptools", "pip"} <= pins("constraints.txt").keys()


def test_images_differ_in_their_extra_alone() -> None:
    cpu, gpu = (read_stages(ROOT / name) for name in FILES)
    assert [stage.name for stage in cpu] == [stage.name for stage in gpu]
    differing = {
        step.instruction
        for one, other in zip(cpu, gpu, strict=True)
        for step, another in zip(one.steps, other.steps, strict=True)
        if step != another
    }
    assert differing == {"ARG", "COPY", "RUN", "ENV", "LABEL"}
    assert values(cpu[0], "ARG") == ["EXTRAS=cpu"]
    assert values(gpu[0], "ARG") == ["EXTRAS=gpu"]


@pytest.mark.parametrize("name", FILES)
def test_an_image_is_what_the_manifests_take_it_for(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = last(name)
    [user] = values(stage, "USER")
    environment = variables(values(stage, "ENV")[0])
    config = EngineConfig.load(DEPLOY / "config/engine.toml")
    assert [port for value in values(stage, "EXPOSE") for port in value.split()] == [
        str(config.server.port),
        str(config.server.metrics_port),
    ]
    assert environment["PYTHONUNBUFFERED"] == "1"
    assert environment["ENGINE_CONFIG"] == "/etc/engine/engine.toml"
    # Exec form, so that signals reach the engine and no shell.
    assert json.loads(values(stage, "ENTRYPOINT")[0]) == ["engine"]
    assert json.loads(values(stage, "CMD")[0]) == ["serve"]
    _, health = options_and_rest(values(stage, "HEALTHCHECK")[0])
    assert json.loads(health.removeprefix("CMD ")) == ["engine", "health"]
    for _, document in manifests():
        pod = pod_of(document)
        ours = [c for c in containers(document) if c["image"].startswith("personalization-engine")]
        if pod is None or not ours:
            continue
        security = pod["securityContext"]
        assert user == f"{security['runAsUser']}:{security['runAsGroup']}"
        for container in ours:
            if container["name"] == "kernels":
                assert container["command"][2] == f"{environment['NUMBA_CACHE_DIR']}/."
            else:
                assert environment["NUMBA_CACHE_DIR"] in [mount["mountPath"] for mount in container["volumeMounts"]]


def test_the_gpu_image_finds_its_libraries_where_its_python_puts_them() -> None:
    stage = last("Dockerfile.gpu")
    environment = variables(values(stage, "ENV")[0])
    python = re.search(r"python:([\d.]+)-", stage.image)
    assert python is not None
    assert f"/python{python[1]}/" in environment["LD_LIBRARY_PATH"]


@pytest.mark.parametrize("name", FILES)
def test_what_is_copied_is_there_and_not_ignored(name: str) -> None:
    first, *rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert first == "*"
    allowed = [rule.removeprefix("!") for rule in rules if rule.startswith("!")]
    copied = [
        source
        for stage in read_stages(ROOT / name)
        for value in values(stage, "COPY")
        if not value.startswith("--from")
        for source in value.split()[:-1]
    ]
    assert copied
    for source in copied:
        assert (ROOT / source).exists()
        assert any(fnmatch(source, rule) or source.startswith(f"{rule}/") for rule in allowed), source


@pytest.mark.parametrize(("name", "extra", "pins"), [
    ("Dockerfile", "cpu", ["constraints.txt"]),
    ("Dockerfile.gpu", "gpu", ["constraints-gpu.txt", "constraints.txt"]),
])  # fmt: skip
def test_the_rehearsal_can_read_what_an_image_installs(name: str, extra: str, pins: list[str]) -> None:
    """deploy/rehearse.sh looks for these lines."""
    text = (ROOT / name).read_text()
    assert re.findall(r"^ARG EXTRAS=(.*)$", text, re.MULTILINE)[0] == extra
    assert re.findall(r"^USER (\d+:\d+)$", text, re.MULTILINE)
    assert sorted(set(re.findall(r"--constraint ([a-z-]+\.txt)", text))) == pins
