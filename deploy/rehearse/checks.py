"""What must be true of an image: it comes up healthy, answers, leaves when told to, and says what is wrong."""

import json
import shutil
import subprocess
import time
from pathlib import Path

import polars as pl

from deploy.rehearse.build import Image
from deploy.rehearse.container import Container, Running
from deploy.rehearse.root import Mount
from deploy.rehearse.world import World
from engine.errors import EngineError
from engine.rpc.client import RecommendationClient
from engine.v1 import recommendation_pb2 as pb

ITEM_COUNT = 50
_START_TIMEOUT_S = 180.0
# server.drain_s and what its workers may take on top.
_STOP_TIMEOUT_S = 25.0
# Run inside the image, by its own interpreter.
_LOOK_AROUND = """\
import importlib.util, json, os, shutil
print(json.dumps({
    "uid": os.getuid(),
    "pid1": open("/proc/1/cmdline").read().split(chr(0))[1],
    "compilers": [name for name in ("gcc", "cc", "g++", "make") if shutil.which(name)],
    "modules": [name for name in ("torch", "pip", "implicit", "pytest") if importlib.util.find_spec(name)],
    "writable": [path for path in ("/", "/srv/bundles", "/opt/engine", "/etc/engine") if os.access(path, os.W_OK)],
}))
"""
_IMPORT_CUDA = """\
import faiss, onnxruntime
print("faiss", faiss.__version__, "sees", faiss.get_num_gpus(), "GPUs; onnxruntime", onnxruntime.__version__, "has",
      ", ".join(onnxruntime.get_available_providers()))
"""


class CheckError(EngineError):
    """The image does not do what it must; the text says what, and the end of what it said."""


def check_image(image: Image, world: World, work: Path, port: int) -> list[str]:
    """Hold an image against all that follows; returns what was found, a line each.

    Raises:
        CheckError: at the first thing that is not as it must be.
    """
    found = _refuses_to_start_without_a_bundle(image, work, port)
    if "NVIDIA_VISIBLE_DEVICES" in image.environment:
        found += _has_cuda(image, world, work, port)
    return found + _serves(image, world, work, port)


def _refuses_to_start_without_a_bundle(image: Image, work: Path, port: int) -> list[str]:
    empty = work / "empty"
    empty.mkdir(exist_ok=True)
    with Container(
        image, work / "refused.log", (), _environment(port), _volumes(image, empty, empty, work)
    ) as container:
        status = container.wait(_START_TIMEOUT_S)
        last = container.said.strip().splitlines()[-1]
        if status != 2 or "no bundle has been published" not in last or "Traceback" in container.said:
            raise CheckError(f"without a bundle: exit status {status}\n{container.said[-2000:]}")
    return [f"without a bundle: exit status 2, {last!r}"]


def _has_cuda(image: Image, world: World, work: Path, port: int) -> list[str]:
    """The libraries load, and where there is no device the engine says so in one line in place of serving without."""
    volumes = _volumes(image, world.bundles, world.data, work)
    imported = Container(image, work / "import.log", (), {}, volumes, entrypoint=("python", "-c", _IMPORT_CUDA))
    with imported as container:
        status = container.wait(_START_TIMEOUT_S)
        if status != 0 or "CUDAExecutionProvider" not in container.said:
            raise CheckError(f"libraries: exit status {status}\n{container.said[-2000:]}")
        found = [container.said.strip().splitlines()[-1]]
    if Path("/dev/nvidia0").exists():
        return found
    wants = _environment(port) | {"ENGINE_DEVICE__RETRIEVAL": "cuda", "ENGINE_DEVICE__RANKING": "cuda"}
    with Container(image, work / "no-device.log", (), wants, volumes) as container:
        status = container.wait(_START_TIMEOUT_S)
        last = container.said.strip().splitlines()[-1]
        if status != 2 or "Traceback" in container.said:
            raise CheckError(f"without a device: exit status {status}\n{container.said[-2000:]}")
    return [*found, f"without a device: exit status 2, {last!r}"]


def _serves(image: Image, world: World, work: Path, port: int) -> list[str]:
    volumes = _volumes(image, world.bundles, world.data, work)
    kernels = work / "volumes/kernels"
    compiled = _files(kernels)
    with Container(image, work / "serve.log", (), _environment(port), volumes) as container:
        found = [_comes_up(container), *_is_lean(container)]
        found += [_publishes(container, "/srv/data"), _answers(port, world.data)]
        if new := _files(kernels) - compiled:
            raise CheckError(f"{len(new)} kernels were compiled anew, such as {min(new)}")
        found.append(f"{len(compiled)} files of compiled kernels, none added")
        found.append(_leaves(container, image.stop_signal))
    return found


def check_installed(image: Image, world: World, work: Path, port: int) -> list[str]:
    """What can be seen of an engine that is installed, and runs as a process like any other. Raises CheckError."""
    places = {
        "ENGINE_BUNDLE__DIRECTORY": str(world.bundles),
        "ENGINE_REDIS__DIRECTORY": str(work / "redis"),
        "ENGINE_KAFKA__DIRECTORY": str(work / "kafka"),
    }
    with Running(image, work / "serve.log", (), _environment(port) | places) as process:
        found = [_comes_up(process), _publishes(process, str(world.data)), _answers(port, world.data)]
        return [*found, _leaves(process, image.stop_signal)]


def _comes_up(process: Running) -> str:
    started = time.monotonic()
    while not process.healthy():
        if process.ended() or time.monotonic() - started > _START_TIMEOUT_S:
            raise CheckError(f"HEALTHCHECK never succeeded\n{process.said[-2000:]}")
        time.sleep(0.5)
    return f"healthy after {time.monotonic() - started:.1f} s"


def _publishes(process: Running, data: str) -> str:
    published = process.run(["engine", "publish-users", data])
    if published.returncode != 0:
        raise CheckError(f"publish-users: exit status {published.returncode}\n{published.stdout[-2000:]}")
    return published.stdout.strip().splitlines()[-1]


def _leaves(process: Running, stop_signal: str) -> str:
    told = time.monotonic()
    status = process.stop(_STOP_TIMEOUT_S)
    if "telemetry" in process.said:
        raise CheckError(f"something wants to report to somebody\n{process.said[-2000:]}")
    if status != 0:
        raise CheckError(f"after {stop_signal}: exit status {status}\n{process.said[-2000:]}")
    return f"left with exit status 0, {time.monotonic() - told:.1f} s after {stop_signal}"


def _is_lean(container: Container) -> list[str]:
    """No compiler, no PyTorch, no pip beside the engine, and an ordinary user who can write nowhere else."""
    said = container.run(["python", "-c", _LOOK_AROUND])
    try:
        seen = json.loads(said.stdout)
    except json.JSONDecodeError:
        raise CheckError(f"python inside: {said.stdout[-2000:]}") from None
    if seen["uid"] == 0 or seen["compilers"] or seen["modules"] or seen["writable"]:
        raise CheckError(f"more in the image than it needs: {seen}")
    if not seen["pid1"].endswith("/engine"):
        raise CheckError(f"process 1 is {seen['pid1']}, which signals would reach in place of the engine")
    return [f"user {seen['uid']}, process 1 is {seen['pid1']}; no compiler, no PyTorch, nothing writable"]


def _answers(port: int, data: Path) -> str:
    """Ask for somebody whom the published records know well, so that every model has its say."""
    seen = pl.read_parquet(data / "interactions.parquet")["user_id"].value_counts(sort=True)
    with RecommendationClient(f"127.0.0.1:{port}", timeout_s=5.0) as client:
        response = client.recommend(seen["user_id"][0], "home", item_count=ITEM_COUNT)
    strategy = pb.Strategy.Name(response.strategy)
    degraded = [pb.DegradedReason.Name(reason) for reason in response.degraded_reasons]
    if len(response.items) != ITEM_COUNT or degraded or response.strategy != pb.STRATEGY_PERSONALIZED:
        raise CheckError(f"Recommend: {len(response.items)} items, {strategy}, degraded: {degraded}")
    return f"Recommend: {len(response.items)} items, {strategy}, from bundle {response.bundle_version}"


def _environment(port: int) -> dict[str, str]:
    """Over the settings of the image: development servers in place of the cluster's, and ports of this machine."""
    return {
        "ENGINE_REDIS__URL": "",
        "ENGINE_REDIS__DIRECTORY": "/tmp/redis",
        # The first answers of a small busy machine must not look like a failing Redis.
        "ENGINE_REDIS__TIMEOUT_MS": "2000",
        "ENGINE_SERVER__REQUEST_TIMEOUT_MS": "4000",
        "ENGINE_KAFKA__BROKERS": "",
        "ENGINE_KAFKA__DIRECTORY": "/tmp/kafka",
        "ENGINE_SERVER__HOST": "127.0.0.1",
        "ENGINE_SERVER__PORT": str(port),
        "ENGINE_SERVER__METRICS_PORT": str(port + 1),
    }


def _volumes(image: Image, bundles: Path, data: Path, work: Path) -> list[Mount]:
    """Bundles and data as they are mounted in a cluster, and the two directories that are written to."""
    volumes = work / "volumes"
    shutil.rmtree(volumes, ignore_errors=True)
    # As the init container of the manifests does it: a copy of what the image has compiled.
    cache = image.environment["NUMBA_CACHE_DIR"]
    subprocess.run(["mkdir", "-p", str(volumes / "tmp"), str(volumes / "empty")], check=True)
    subprocess.run(["cp", "-R", str(image.root / cache.lstrip("/")), str(volumes / "kernels")], check=True)
    subprocess.run(["chown", "-R", ":".join(map(str, image.user)), str(volumes)], check=True)
    return [
        Mount(bundles, "/srv/bundles"),
        Mount(data, "/srv/data"),
        Mount(volumes / "tmp", "/tmp", writable=True),
        Mount(volumes / "kernels", cache, writable=True),
    ]


def _files(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}
