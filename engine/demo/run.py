"""The demonstration: data in, a trained bundle out, a server in a process of its own, and a client that calls it."""

import datetime
import json
import shutil
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from engine.adapters.embedded_kafka import EmbeddedKafka
from engine.adapters.embedded_redis import EmbeddedRedis
from engine.assemble_model import train_bundle
from engine.bundle.store import BundleStore
from engine.cli.progress import progress_bar
from engine.cli.publish import publish_once
from engine.config import EngineConfig
from engine.data.build import build_dataset
from engine.data.dataset import Dataset
from engine.demo.catalogue import show_catalogue
from engine.demo.experiments import SURFACE as EXPERIMENT_SURFACE
from engine.demo.experiments import declare_holdout, show_experiments
from engine.demo.lift import show_lift
from engine.demo.show import show_slate, show_stages, summarize_stages
from engine.demo.signals import show_signals
from engine.demo.world import Person, choose_people, prepare_data
from engine.processes import engine_process, wait_until_serving, write_settings
from engine.rpc.client import RecommendationClient
from engine.training.config import TrainingConfig
from engine.v1 import recommendation_pb2 as pb

SURFACE = "home"
TIMED_CALLS = 400
SHOWN = 10
_STORES = ("bundles", "redis", "kafka")


def run_demo(source: Path | None, work: Path, once: bool, port: int, console: Console) -> dict[str, Any]:
    """Run everything; returns `recommendations`, `stages_ms`, `signals`, `catalogue`, `experiments`, and `lift` where
    the world is synthetic.

    Without `once` the server goes on running until Ctrl-C.
    """
    console.rule("1. data")
    tables = prepare_data(source, work / "data")
    dataset = build_dataset(tables)
    console.print(f"{len(dataset.interactions):,} events, {dataset.item_count:,} items, {dataset.user_count:,} users")
    config_file = write_settings(work, port)
    # The embedded broker forgets, and an archive that remembers what came before would wait for what never comes.
    archive = work / "archive"
    shutil.rmtree(archive, ignore_errors=True)
    declare_holdout(config_file, archive)
    settings = EngineConfig.load(config_file)

    console.rule("2. train")
    with progress_bar() as progress:
        path = train_bundle(dataset, TrainingConfig(), BundleStore(settings.bundle.directory), progress)
    console.print(f"bundle {path.name}")

    with EmbeddedRedis(settings.redis.directory), EmbeddedKafka(settings.kafka.directory, settings.kafka.topic_prefix):
        console.rule("3. publish users")
        console.print(f"{publish_once(work / 'data', settings):,} user records in Redis")
        console.rule("4. serve and call")
        with (
            engine_process("serve", config_file) as server,
            engine_process("process", config_file),
            RecommendationClient(f"localhost:{port}", timeout_s=5.0) as client,
        ):
            wait_until_serving(client, server)
            people = choose_people(dataset)
            result = _call(client, dataset, people, console)
            console.rule("5. click")
            result["signals"] = show_signals(client, dataset, people[0].user_id, SURFACE, console)
            console.rule("6. change the catalogue")
            result["catalogue"] = show_catalogue(client, dataset, people[0].user_id, SURFACE, console)
            console.rule("7. experiment")
            result["experiments"] = show_experiments(client, dataset, people[0].user_id, console)
            if source is None:
                console.rule("8. what it is worth")
                result["lift"] = show_lift(work / "data", archive, EXPERIMENT_SURFACE, settings, console)
            if not once:
                _keep_serving(server, port, console)
    return result


def _call(client: RecommendationClient, dataset: Dataset, people: list[Person], console: Console) -> dict[str, Any]:
    titles = {item_id: title or item_id for item_id, title in dataset.items.select("item_id", "title").iter_rows()}
    moments = _Moments(dataset)
    shown = []
    for person in people:
        response = client.recommend(
            person.user_id, SURFACE, time=moments.of(person.user_id), demographics=person.demographics, debug=True
        )
        shown.append(_describe(person, response, titles, dataset, console))
    known = dataset.users["user_id"].to_list()
    calls = []
    for user in np.random.default_rng(0).choice(len(known), TIMED_CALLS):
        response = client.recommend(known[user], SURFACE, time=moments.of(known[user]), debug=True)
        if response.strategy == pb.STRATEGY_PERSONALIZED:
            calls.append({timing.stage: timing.duration_ms for timing in response.debug.stages})
    show_stages(console, calls)
    return {"recommendations": shown, "stages_ms": summarize_stages(calls)}


class _Moments:
    """When each user asks: a minute after their last event, since the data may be years old."""

    def __init__(self, dataset: Dataset) -> None:
        events = dataset.interactions
        self._places = {name: place for place, name in enumerate(dataset.users["user_id"])}
        self._end_ms = int(events.timestamps_ms.max())
        self._last_ms = np.full(dataset.user_count, 0, np.int64)
        np.maximum.at(self._last_ms, events.users, events.timestamps_ms)

    def of(self, user_id: str) -> datetime.datetime:
        """For somebody unknown, or without events, a minute after everyone's."""
        place = self._places.get(user_id)
        last_ms = int(self._last_ms[place]) if place is not None else 0
        return datetime.datetime.fromtimestamp((last_ms or self._end_ms) / 1000 + 60, datetime.UTC)


def _describe(
    person: Person, response: pb.RecommendResponse, titles: dict[str, str], dataset: Dataset, console: Console
) -> dict[str, Any]:
    history = _history(person.user_id, dataset)
    strategy = pb.Strategy.Name(response.strategy).removeprefix("STRATEGY_").lower()
    items: list[dict[str, Any]] = [
        {
            "position": item.position,
            "id": item.item_id,
            "title": titles[item.item_id],
            "score": item.score,
            "source": pb.ItemSource.Name(item.source).removeprefix("ITEM_SOURCE_").lower(),
        }
        for item in response.items
    ]
    about = ", ".join(value for value in asdict(person.demographics).values() if value)
    heading = f"{person.user_id} ({person.kind}{', ' + about if about else ''}): {strategy}"
    slate = [
        (titles[item.item_id], item.score, entry["source"]) for item, entry in zip(response.items, items, strict=True)
    ]
    show_slate(console, heading, [titles[item_id] for item_id in history[:SHOWN]], slate[:SHOWN])
    return {
        "user_id": person.user_id,
        "kind": person.kind,
        "demographics": asdict(person.demographics),
        "strategy": strategy,
        "degraded_reasons": [pb.DegradedReason.Name(reason) for reason in response.degraded_reasons],
        "history": [{"id": item_id, "title": titles[item_id]} for item_id in history],
        "items": items,
    }


def _history(user_id: str, dataset: Dataset) -> list[str]:
    """The items of a user's latest positive events, latest first, each once."""
    places = dataset.users["user_id"].index_of(user_id)
    if places is None:
        return []
    histories = dataset.histories()
    rows = histories.rows[histories.offsets[places] : histories.offsets[places + 1]]
    item_ids = dataset.items["item_id"]
    return list(dict.fromkeys(item_ids[int(row)] for row in rows[::-1]))


def _keep_serving(server: subprocess.Popen[bytes], port: int, console: Console) -> None:
    console.print(f"\nServing on localhost:{port} until Ctrl-C. Try, in another terminal:")
    body = json.dumps({"user_id": "demo-nobody", "surface": SURFACE, "item_count": 5})
    console.print(
        f"  grpcurl -plaintext -d '{body}' localhost:{port} engine.v1.RecommendationService/Recommend",
        soft_wrap=True,
        highlight=False,
    )
    try:
        server.wait()
    except KeyboardInterrupt:
        console.print("draining")
