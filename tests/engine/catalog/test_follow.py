"""What follows the overlay and the rules, while both change."""

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from engine.app.model import load_model
from engine.catalog.changes import Change
from engine.catalog.follow import CatalogueFollower
from engine.catalog.live import LiveCatalogue
from engine.config.serving import EngineConfig
from engine.errors import DependencyUnavailable, RulesError, SnapshotNeeded
from engine.kernels.membership import test_rows as rows_in
from engine.rules.compiled import CompiledRules
from engine.rules.load import parse_rules
from engine.rules.schema import Rules
from tests.conftest import Trained
from tests.engine.catalog.items import stock

SURFACES = ("home", "category", "cart", "email")


@dataclass
class Held:
    """An overlay that holds these changes; a source of nothing else."""

    changes: list[Change] = field(default_factory=list)

    def snapshot(self, generations: Iterable[int]) -> list[Change]:
        return self.changes

    def follow(self, timeout_s: float) -> list[Change]:
        return []


@pytest.fixture
def catalogue(trained: Trained) -> LiveCatalogue:
    return _open(trained)


def _open(trained: Trained) -> LiveCatalogue:
    return load_model(trained.bundles.current(), EngineConfig.load(catalog={"fresh_capacity": 64})).catalogue


def _rules(text: str) -> Rules:
    return parse_rules(f"version: 1\nrules: [{text}]".encode(), "rules.yaml", SURFACES)


def _shown(catalogue: LiveCatalogue) -> list[str]:
    rows = np.flatnonzero(rows_in(catalogue.of_surface("home"), np.arange(catalogue.row_count)))
    return list(catalogue.ids(rows))


def test_stock_changes_while_rules_are_compiled(catalogue: LiveCatalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    sold_out, denied, *_ = _shown(catalogue)
    source = Held()
    follower = CatalogueFollower(source)
    compile_rules = catalogue.compile_rules
    seen: list[bool] = []

    def slowly(rules: Rules) -> CompiledRules:
        compiled = compile_rules(rules)
        source.changes = [stock(sold_out, False)]
        follower.load({catalogue.bundle.manifest.generation})
        follower.catch_up(catalogue)
        seen.append(sold_out in _shown(catalogue))
        return compiled

    monkeypatch.setattr(catalogue, "compile_rules", slowly)
    follower.use_rules(catalogue, _rules(f"{{name: gone, action: deny, items: {{item_ids: [{denied}]}}}}"))
    assert seen == [False]
    assert not {sold_out, denied} & set(_shown(catalogue))


def test_refused_rules_are_tried_again_with_another_bundle_alone(trained: Trained, catalogue: LiveCatalogue) -> None:
    other = _open(trained)
    other.bundle = replace(other.bundle, manifest=other.bundle.manifest.model_copy(update={"version": "another"}))
    item_id = _shown(catalogue)[0]
    category = trained.dataset.items.row(trained.dataset.items["item_id"].index_of(item_id), named=True)["category"]
    clash = _rules(
        f"{{name: none, action: deny, items: {{category: {category}}}}},"
        f"{{name: this, action: pin, item_id: {item_id}, position: 1}}"
    )
    follower = CatalogueFollower(Held())
    with pytest.raises(RulesError, match="is denied by the rule 'none'"):
        follower.use_rules(catalogue, clash)
    follower.use_rules(catalogue, clash)
    assert item_id in _shown(catalogue)
    with pytest.raises(RulesError, match="is denied by the rule 'none'"):
        follower.use_rules(other, clash)


@dataclass
class Script:
    """A source that gives these answers to `follow`, one after the other, and then ends; it counts whole reads."""

    answers: list[list[Change] | Exception]
    stop: threading.Event
    snapshots: list[list[int]] = field(default_factory=list)

    def snapshot(self, generations: Iterable[int]) -> list[Change]:
        self.snapshots.append(sorted(generations))
        return []

    def follow(self, timeout_s: float) -> list[Change]:
        answer = self.answers.pop(0)
        if not self.answers:
            self.stop.set()
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_the_whole_overlay_is_read_where_the_position_is_lost_and_for_a_new_space_alone(
    trained: Trained, catalogue: LiveCatalogue
) -> None:
    generation = catalogue.bundle.manifest.generation
    other = _open(trained)
    other.bundle = replace(other.bundle, manifest=other.bundle.manifest.model_copy(update={"generation": 7}))
    serving = [catalogue]
    stop = threading.Event()
    source = Script([[], [], SnapshotNeeded("trimmed"), [], []], stop)
    follower = CatalogueFollower(source)
    follower.load({generation})
    follower.run(lambda: serving, stop)
    assert source.snapshots == [[generation]] * 2
    stop.clear()
    source.answers = [DependencyUnavailable("Redis is away"), []]
    follower.run(lambda: serving, stop)
    assert source.snapshots[2:] == [[generation]]
    stop.clear()
    source.answers = [[], []]
    serving.append(other)
    follower.run(lambda: serving, stop)
    assert source.snapshots[3:] == [sorted([generation, 7])]
