"""The demonstration: data in, a trained bundle out, a server in a process of its own, and a client that calls it."""

import json
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from engine.adapters.kafka.embedded import EmbeddedKafka
from engine.adapters.redis.embedded import EmbeddedRedis
from engine.app.publish import publish_once
from engine.bundle.store import BundleStore
from engine.config.serving import EngineConfig
from engine.data.build import build_dataset
from engine.errors import DependencyUnavailable, described
from engine.rpc.port import check_bindable
from engine_bench.demo.catalogue import show_catalogue
from engine_bench.demo.experiments import SURFACE as EXPERIMENT_SURFACE
from engine_bench.demo.experiments import declare_holdout, show_experiments
from engine_bench.demo.lift import show_lift
from engine_bench.demo.model import ready_bundle
from engine_bench.demo.page import write_page
from engine_bench.demo.patient import PASSING, PatientClient
from engine_bench.demo.signals import show_signals
from engine_bench.demo.tastes import Tastes
from engine_bench.demo.users import show_users, time_calls
from engine_bench.demo.world import World, choose_users, prepare_data
from engine_bench.processes import engine_process, wait_until_serving, write_settings
from engine_client import RecommendationClient

SURFACE: Final = "home"
PAGE: Final = "demo.html"
_POLL_S: Final = 0.2
_WORLD: Final = World()


@dataclass(frozen=True, slots=True)
class Demo:
    """How the demonstration is run.

    source: a known data set or canonical tables; None: a synthetic world. work: where everything is kept. once: end
    after the last part instead of serving on. train: train again although an earlier run's bundle would do.
    """

    source: Path | None
    work: Path
    once: bool
    port: int
    train: bool = False
    world: World = _WORLD


def run_demo(demo: Demo, console: Console) -> dict[str, Any]:
    """Run everything, and write the page; without `once` the server goes on until SIGINT or SIGTERM.

    A part that a busy machine makes too late is left out, and said so.

    Returns:
        `recommendations`, `stages_ms`, `budgets`, `calls`, `signals`, `catalogue`, `experiments`, `page`, `notes` (what
        was late, failed or left out), and `lift` where the world is synthetic; of a part left out there is nothing.

    Raises:
        ConfigError: the port is taken. EngineError: a part fails for another reason than time, or a process has ended.
    """
    started = time.monotonic()
    check_bindable("0.0.0.0", demo.port)
    console.rule("1. data")
    data, archive = demo.work / "data", demo.work / "archive"
    dataset = build_dataset(prepare_data(demo.source, data, demo.world))
    about = f"{len(dataset.interactions):,} events, {dataset.item_count:,} items, {dataset.user_count:,} users"
    console.print(about)
    config_file = write_settings(demo.work, demo.port)
    # Every run begins alike: without what the last one clicked, sold and archived.
    for left_over in (archive, demo.work / "redis"):
        shutil.rmtree(left_over, ignore_errors=True)
    declare_holdout(config_file, archive)
    settings = EngineConfig.load(config_file)
    console.rule("2. train")
    path = ready_bundle(dataset, data, BundleStore(settings.bundle.directory), demo.world.training, demo.train, console)

    with EmbeddedRedis(settings.redis.directory), EmbeddedKafka(settings.kafka.directory):
        console.rule("3. publish users")
        console.print(
            f"{publish_once(data, settings):,} user records in Redis; a Kafka broker for development beside it"
        )
        console.rule("4. serve and call")
        with (
            engine_process("serve", config_file, demo.work / "serve.log") as server,
            engine_process("process", config_file, demo.work / "process.log") as processor,
            RecommendationClient(f"localhost:{demo.port}", timeout_s=5.0) as client,
        ):
            console.print(f"The logs of server and stream processor: {demo.work}/serve.log, {demo.work}/process.log")
            wait_until_serving(client, server)
            parts = _Parts(console)
            patient, tastes = PatientClient(client, parts.say), Tastes(dataset)
            users = choose_users(dataset)
            user = users[0].user_id
            parts.run(
                "recommendations",
                lambda: {"recommendations": show_users(patient, dataset, tastes, users, SURFACE, console)},
            )
            parts.run("milliseconds", lambda: time_calls(patient, dataset, SURFACE, console))
            console.rule("5. click")
            parts.run("signals", lambda: {"signals": show_signals(patient, dataset, tastes, user, SURFACE, console)})
            console.rule("6. change the catalogue")
            parts.run(
                "catalogue", lambda: {"catalogue": show_catalogue(patient, dataset, tastes, user, SURFACE, console)}
            )
            console.rule("7. experiment")
            parts.run("experiments", lambda: {"experiments": show_experiments(patient, dataset, tastes, user, console)})
            if demo.source is None:
                console.rule("8. what it is worth")
                parts.run("lift", lambda: {"lift": show_lift(data, archive, EXPERIMENT_SURFACE, settings, console)})
            for name, process in (("server", server), ("processor", processor)):
                if process.poll() is not None:
                    raise DependencyUnavailable(f"the {name} has ended (status {process.returncode}); its log says why")
            seconds = time.monotonic() - started
            facts = {"about": about, "bundle": path.name, "surface": SURFACE, "seconds": seconds}
            page = write_page(parts.result | facts, demo.work / PAGE)
            console.rule("everything on one page")
            console.print(f"{page.resolve()} ({seconds:.0f} s)", soft_wrap=True, highlight=False)
            if not demo.once:
                _keep_serving(server, demo.port, console)
    return parts.result | {"page": str(page)}


class _Parts:
    """What has come of the parts so far, and what was late, failed or left out on the way."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self.notes: list[str] = []
        self.result: dict[str, Any] = {"notes": self.notes}

    def say(self, note: str) -> None:
        self.notes.append(note)
        self._console.print(note)

    def run(self, name: str, part: Callable[[], dict[str, Any]]) -> None:
        try:
            self.result |= part()
        except PASSING as error:
            self.say(f"Left out on this busy machine: {name}: {described(error)}")


def _keep_serving(server: subprocess.Popen[bytes], port: int, console: Console) -> None:
    """Until SIGINT or SIGTERM, which from here on are no reason to fail."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    console.print(f"\nServing on localhost:{port} until Ctrl-C. Try, in another terminal:")
    body = json.dumps({"user_id": "demo-nobody", "surface": SURFACE, "item_count": 5})
    console.print(
        f"  grpcurl -plaintext -d '{body}' localhost:{port} engine.v1.RecommendationService/Recommend",
        soft_wrap=True,
        highlight=False,
    )
    while not stop.wait(_POLL_S):
        if server.poll() is not None and not stop.is_set():
            raise DependencyUnavailable(f"the server has ended (status {server.returncode}); its log says why")
    console.print("draining")
