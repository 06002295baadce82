"""What goes on beside requests, from a process of its own: swaps, rules, catalogue, events and reports, without end."""

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from engine.bundle.store import BundleStore
from engine.errors import EngineError
from engine_client import RecommendationClient, build_event
from engine_client.v1 import catalog_pb2
from engine_client.v1.event_pb2 import EVENT_TYPE_CLICK

log = logging.getLogger(__name__)

EXPERIMENT = "bench-tail"
# How often each thing is done, in seconds.
PERIODS_S: Mapping[str, float] = {
    "bundle swaps": 20.0,
    "rules reloads": 7.0,
    "catalogue changes": 1.0,
    "events": 0.1,
    "reports": 11.0,
}
_RULES = 60
_TIMEOUT_S = 10.0
_CHANGED_ITEMS = 20


@dataclass(frozen=True, slots=True)
class Stage:
    """Where it happens.

    bundles: the store, and the names of two bundles in it. rules_file: what is written over and over.
    item_ids, user_ids, categories: some that the bundle has.
    """

    address: str
    bundles: Path
    names: tuple[str, str]
    rules_file: Path
    item_ids: Sequence[str]
    user_ids: Sequence[str]
    categories: Sequence[str]


def go_on(stage: Stage, until: Connection) -> None:
    """Do everything at its period until something can be read from `until`, then say there how often each was done.

    What fails is counted, too, as "failed …": a request that is refused here is no reason to end.
    """
    with RecommendationClient(stage.address, timeout_s=_TIMEOUT_S) as client:
        activity = _Activity(stage, client)
        due = {name: time.monotonic() + period for name, period in PERIODS_S.items()}
        while not until.poll(max(0.0, min(due.values()) - time.monotonic())):
            name = min(due, key=due.__getitem__)
            activity.do(name)
            due[name] = max(due[name] + PERIODS_S[name], time.monotonic())
    until.send(activity.done)


@dataclass(slots=True)
class _Activity:
    stage: Stage
    client: RecommendationClient
    done: dict[str, int] = field(default_factory=dict)
    _round: int = 0

    def do(self, name: str) -> None:
        """Do one of PERIODS_S once."""
        acts: dict[str, Callable[[], Any]] = {
            "bundle swaps": self._swap,
            "rules reloads": self._write_rules,
            "catalogue changes": self._change_catalogue,
            "events": self._record_events,
            "reports": lambda: self.client.get_report(EXPERIMENT),
        }
        self._round += 1
        try:
            acts[name]()
        except EngineError as error:
            log.warning("%s: %s", name, error)
            name = f"failed {name}"
        self.done[name] = self.done.get(name, 0) + 1

    def _swap(self) -> None:
        count = self.done.get("bundle swaps", 0)
        BundleStore(self.stage.bundles).point_to(self.stage.names[(count + 1) % 2])

    def _write_rules(self) -> None:
        write_many_rules(self.stage.rules_file, self.stage.categories, 1.1 + 0.01 * (self._round % 50))

    def _change_catalogue(self) -> None:
        ids = self._some(self.stage.item_ids, _CHANGED_ITEMS)
        self.client.update_inventory(dict.fromkeys(ids, self._round % 2 == 0))
        category = self.stage.categories[self._round % len(self.stage.categories)]
        changed = [catalog_pb2.Item(item_id=item_id, title="changed", category=category) for item_id in ids[:3]]
        new = catalog_pb2.Item(item_id=f"bench-new-{self._round}", title="new", category=category)
        self.client.upsert_items([*changed, new])

    def _record_events(self) -> None:
        users, items = self._some(self.stage.user_ids, 3), self._some(self.stage.item_ids, 3)
        self.client.record_events(
            [build_event(user, EVENT_TYPE_CLICK, item, surface="home") for user, item in zip(users, items, strict=True)]
        )

    def _some(self, ids: Sequence[str], count: int) -> list[str]:
        start = self._round * 7919
        return [ids[(start + place) % len(ids)] for place in range(count)]


def write_many_rules(path: Path, categories: Sequence[str], factor: float) -> None:
    """A file as shops have them, some 400 lines; with another factor it is another file."""
    rules: list[dict[str, Any]] = [
        {"name": f"season {number}", "action": "boost", "factor": round(factor, 4), "surfaces": ["home"],
         "items": {"category": categories[number % len(categories)], "price": {"min": number, "max": 500 + number}}}
        for number in range(_RULES)
    ]  # fmt: skip
    rules.append({"name": "variety", "action": "cap", "by": "brand", "limit": 3, "window": 10})
    aside = path.with_suffix(".new")
    # JSON is YAML; a line for each key, as users write it.
    aside.write_text(json.dumps({"version": 1, "rules": rules}, indent=1))
    aside.replace(path)
