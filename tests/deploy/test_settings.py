"""One set of settings, and files that agree with it and with each other."""

import re
from pathlib import Path
from typing import get_args

import pytest
from typer.main import get_command

from engine.app.supervisor import _DEVICE_END_TIMEOUT_S, _END_TIMEOUT_S
from engine.cli.main import app
from engine.config.serving import DeviceConfig, EngineConfig
from engine.rules.load import load_rules
from tests.deploy.files import (
    DEPLOY,
    KUBERNETES,
    OVERLAYS,
    Document,
    compose,
    containers,
    documents,
    manifests,
    named,
    pod_of,
    rendered,
)

SETTINGS = DEPLOY / "config/engine.toml"


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> EngineConfig:
    monkeypatch.delenv("ENGINE_CONFIG", raising=False)
    return EngineConfig.load(SETTINGS)


def objects() -> list[Document]:
    return [document for _, document in manifests()]


def serve() -> Document:
    return named(objects(), "Deployment", "engine")


def port_of(container: Document, name: str) -> int:
    [port] = [port["containerPort"] for port in container["ports"] if port["name"] == name]
    return int(port)


def test_settings_and_rules_load(config: EngineConfig) -> None:
    assert config.rules.file == Path("/etc/engine/rules.yaml")
    load_rules(DEPLOY / "config/rules.yaml", tuple(config.surfaces))
    [kustomization] = documents(DEPLOY / "config/kustomization.yaml")
    for generator in kustomization["configMapGenerator"]:
        for file in generator["files"]:
            assert (DEPLOY / "config" / file).is_file()


def test_a_container_says_how_many_cores_it_has(config: EngineConfig) -> None:
    # A worker would take the machine's for its own.
    assert config.server.compute_threads > 0
    [engine] = pod_of(serve())["containers"]  # type: ignore[index]
    assert int(engine["resources"]["requests"]["cpu"]) == config.server.workers * config.server.compute_threads


def test_the_autoscaler_wants_fewer_calls_at_once_than_a_pod_computes_or_admits(config: EngineConfig) -> None:
    autoscaler = documents(KUBERNETES / "base/autoscale.yaml")[0]
    target = float(autoscaler["spec"]["metrics"][0]["pods"]["target"]["averageValue"])
    assert target < config.server.workers * config.server.compute_threads
    assert target < config.server.workers * config.server.max_concurrent_requests


def test_ports_are_those_of_the_settings(config: EngineConfig) -> None:
    [engine] = pod_of(serve())["containers"]  # type: ignore[index]
    assert (port_of(engine, "grpc"), port_of(engine, "metrics")) == (config.server.port, config.server.metrics_port)
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert engine[probe]["grpc"]["port"] == config.server.port
    service = named(objects(), "Service", "engine")
    assert {port["name"]: port["port"] for port in service["spec"]["ports"]} == {
        "grpc": config.server.port,
        "metrics": config.server.metrics_port,
    }
    [processor] = pod_of(named(objects(), "Deployment", "processor"))["containers"]  # type: ignore[index]
    assert port_of(processor, "metrics") == config.processor.metrics_port
    scraped = {
        document["metadata"]["name"]: document["spec"]["template"]["metadata"]["annotations"]["prometheus.io/port"]
        for document in objects()
        if document["kind"] == "Deployment"
    }
    assert scraped == {"engine": str(config.server.metrics_port), "processor": str(config.processor.metrics_port)}
    [prometheus] = documents(DEPLOY / "prometheus/prometheus.yml")
    assert {job["job_name"]: job["dns_sd_configs"][0]["port"] for job in prometheus["scrape_configs"]} == {
        "engine": config.server.metrics_port,
        "processor": config.processor.metrics_port,
    }
    services = compose()["services"]
    assert services["engine"]["ports"][0].endswith(f":{config.server.port}")
    assert f":{config.processor.metrics_port}/metrics" in services["processor"]["healthcheck"]["test"][-1]


def test_stores_have_the_names_of_the_settings(config: EngineConfig) -> None:
    redis, kafka = re.search(r"//([^/]+)", config.redis.url), config.kafka.brokers
    assert redis is not None
    for service, address in (("redis", redis[1]), ("kafka", kafka)):
        assert service in compose()["services"]
        [port] = named(objects(), "Service", service)["spec"]["ports"]
        assert address == f"{service}:{port['port']}"
        egress = named(objects(), "NetworkPolicy", "engine-calls")["spec"]["egress"][0]["ports"]
        assert port["port"] in [allowed["port"] for allowed in egress]


def test_what_the_settings_name_is_mounted_where_they_name_it(config: EngineConfig) -> None:
    archive = config.processor.archive_directory
    assert archive is not None
    for name, paths in {"engine": [config.bundle.directory], "processor": [config.bundle.directory, archive]}.items():
        [container] = pod_of(named(objects(), "Deployment", name))["containers"]  # type: ignore[index]
        mounts = [Path(mount["mountPath"]) for mount in container["volumeMounts"]]
        volumes = [Path(volume.split(":")[1]) for volume in compose()["services"][name]["volumes"]]
        for path in paths:
            assert any(path.is_relative_to(mount) for mount in mounts)
            assert any(path.is_relative_to(mount) for mount in volumes)


def test_nobody_is_killed_while_draining(config: EngineConfig) -> None:
    needed = config.server.drain_s + _END_TIMEOUT_S + _DEVICE_END_TIMEOUT_S
    pod = pod_of(serve())
    assert pod is not None
    before = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] > before + needed
    assert float(compose()["services"]["engine"]["stop_grace_period"].removesuffix("s")) > needed


def commands() -> list[tuple[str, list[str]]]:
    """What every container of the engine's images is told to run."""
    found = []
    for file, document in manifests():
        found += [
            (f"{file}-{container['name']}", container["args"])
            for container in containers(document)
            if container["image"].startswith("personalization-engine") and "command" not in container
        ]
    for name, service in compose()["services"].items():
        if service["image"].startswith("personalization-engine"):
            # Of a shell's, every line begins with the name of the command.
            lines = service["command"][0].splitlines() if "entrypoint" in service else []
            scripted = [line.removeprefix("engine ").split() for line in lines]
            found += [(f"compose-{name}-{words[0]}", words) for words in scripted or [service["command"]]]
    return found


@pytest.mark.parametrize("words", [pytest.param(words, id=name) for name, words in commands()])
def test_every_command_is_one_that_the_engine_has(words: list[str]) -> None:
    command, rest = get_command(app), list(words)
    while hasattr(command, "commands"):
        command = command.commands[rest.pop(0)]
    # Parsing alone: nothing is run.
    command.make_context("engine", rest, resilient_parsing=False).close()


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_settings_from_the_environment_are_settings(overlay: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if overlay == "gpu" and "cuda" not in get_args(DeviceConfig.model_fields["retrieval"].annotation):
        pytest.skip("the settings know no CUDA device")
    for document in rendered(overlay):
        for container in containers(document):
            with monkeypatch.context() as environment:
                for variable in container.get("env", []):
                    if variable["name"].startswith("ENGINE_"):
                        environment.setenv(variable["name"], variable["value"])
                EngineConfig.load(SETTINGS)


def test_pods_keep_to_what_the_namespace_demands() -> None:
    for _, document in manifests():
        pod = pod_of(document)
        if pod is None:
            continue
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
        for container in containers(document):
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False
            assert security["capabilities"]["drop"] == ["ALL"]
            assert security.get("readOnlyRootFilesystem") is True or container["name"] == "kafka"
            assert "memory" in container["resources"]["limits"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_policies_and_budgets_select_pods_that_exist(overlay: str) -> None:
    rendering = rendered(overlay)
    labels = [
        (document["spec"].get("jobTemplate", document)["spec"]["template"]["metadata"]["labels"])
        for document in rendering
        if pod_of(document)
    ]
    for document in rendering:
        if document["kind"] in ("Service", "PodDisruptionBudget", "NetworkPolicy"):
            selector = document["spec"].get("podSelector", document["spec"].get("selector"))
            wanted = selector.get("matchLabels", {} if "matchExpressions" in selector else selector)
            assert any(wanted.items() <= pod_labels.items() for pod_labels in labels), document["metadata"]["name"]
