"""Is a bundle fit to serve? It is opened as a server would, and answers sample requests, beside the one that serves."""

import json
import logging
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from engine.app.model import load_embedders, load_item_embedder, load_model
from engine.config.experiments import HoldoutConfig
from engine.config.serving import DeviceConfig, EngineConfig
from engine.errors import BundleError, described
from engine.features.state import Session, UserRecord, UserState
from engine.kernels.membership import count_rows
from engine.request.clock import RequestClock, StageEstimates
from engine.request.model import ServingModel
from engine.request.pipeline import Pipeline
from engine.stages.features import FetchFeatures
from engine.types import Demographics, Float32Array, Int64Array, Recommendation, RecommendQuery, Strategy, item_keys

log = logging.getLogger(__name__)

PROBES: Final = 32
_HISTORY: Final = 5
_ITEM_COUNT: Final = 50
# However many milliseconds it takes: this is no request that anybody waits for.
_PATIENCE_S: Final = 60.0
# Where so small a part of the items of all probes' slates differ, everybody gets about the same.
_LEAST_DISTINCT: Final = 1.5
# A bundle with less than this share of the current one's items is more likely a mistake than a catalogue.
_LEAST_ITEMS: Final = 0.5
_TIMEOUT_S: Final = 900.0


@dataclass(frozen=True)
class Findings:
    """What was found of a bundle that is fit to serve.

    distinct: items in the slates of all probes, by the length of a slate. overlap: the mean share of a probe's slate
    that the bundle it is compared with shows, too; None without one, and so is `current_items`.
    """

    version: str
    items: int
    probes: int
    distinct: float
    overlap: float | None = None
    current_items: int | None = None

    def __str__(self) -> str:
        text = f"{self.items:,} items; {self.probes} sample requests answered in full"
        if self.overlap is None:
            return text
        return f"{text}, {self.overlap:.0%} of their items as in the current bundle ({self.current_items:,} items)"


def check_bundle(path: Path, config: EngineConfig, current: Path | None = None) -> Findings:
    """Open a bundle whole, and answer sample requests from it; of `current`, the same requests, to compare.

    The devices of the settings are left alone: all of this runs on processors.

    Raises:
        BundleError: it does not verify, a stage fails on a sample request, an answer is short or its scores are not
            finite, its ranker tells no item from another, everybody gets the same, or it has lost half of the items.

    Cost: that of opening it, two times where it is compared; the requests take a fraction of a second.
    """
    config = _plain(config)
    model = load_model(path, config)
    _try_towers(model)
    before = None if current is None or current.resolve() == path.resolve() else _opened(current, config)
    if before is not None and len(model.bundle.items) < _LEAST_ITEMS * len(before.bundle.items):
        raise BundleError(
            f"{path}: {len(model.bundle.items):,} items, where the current bundle has {len(before.bundle.items):,};"
            " --force if that is meant"
        )
    histories = _histories(model, before)
    answers = _answers(model, config, histories)
    distinct = len({item for answer in answers for item in answer.item_ids}) / max(len(answers[0].item_ids), 1)
    if distinct < _LEAST_DISTINCT and _could_differ(model):
        raise BundleError(f"{path}: {len(answers)} users with different histories get about the same items")
    findings = Findings(model.bundle.version, len(model.bundle.items), len(answers), distinct)
    if before is None:
        return findings
    try:
        theirs = _answers(before, config, histories)
    except BundleError as error:
        # What serves now is broken: that must never keep out what would mend it.
        log.warning("nothing to compare with: %s", described(error))
        return findings
    shared = [
        len(set(ours.item_ids) & set(other.item_ids)) / max(len(ours.item_ids), 1)
        for ours, other in zip(answers, theirs, strict=True)
    ]
    return replace(findings, overlap=float(np.mean(shared)), current_items=len(before.bundle.items))


def check_apart(path: Path, config_path: Path | None, bundles: Path, current: Path | None) -> Findings:
    """The same in a process of its own, so that a file which crashes its reader crashes nothing else.

    Raises BundleError with what that process says, or how it ended.
    """
    command = [sys.executable, "-m", "engine", "bundles", "check", str(path), "--json", "--bundles", str(bundles)]
    command += [] if config_path is None else ["--config", str(config_path)]
    command += [] if current is None else ["--against", str(current)]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise BundleError(f"{path}: its check did not end within {_TIMEOUT_S:g} s") from None
    if ended.returncode < 0:
        raise BundleError(f"{path}: the process that opened it was ended by signal {-ended.returncode}: a file crashes")
    if ended.returncode:
        lines = [line for line in ended.stderr.splitlines() if line.strip()]
        said = [
            line.partition("engine: ")[2].removeprefix("refused: ") for line in lines if line.startswith("engine: ")
        ]
        raise BundleError(said[-1] if said else (lines or [f"{path}: its check ended with {ended.returncode}"])[-1])
    return Findings(**json.loads(ended.stdout))


def as_json(findings: Findings) -> str:
    return json.dumps(asdict(findings))


def _opened(current: Path, config: EngineConfig) -> ServingModel | None:
    """The bundle to compare with; one that cannot be opened is no reason against another."""
    try:
        return load_model(current, config)
    except BundleError as error:
        log.warning("nothing to compare with: %s", error)
        return None


def _try_towers(model: ServingModel) -> None:
    """What publishes users and takes new items in opens as well, and gives vectors of this space."""
    bundle = model.bundle
    load_embedders(bundle)
    few = pl.DataFrame(pl.from_arrow(bundle.items.table.slice(0, 4)))
    try:
        vectors = load_item_embedder(bundle)(few)
    except (ValueError, RuntimeError) as error:
        raise BundleError(f"{bundle.path}: its item tower fails: {described(error)}") from error
    if vectors.shape != (len(few), bundle.schema.embedding_dim) or not np.isfinite(vectors).all():
        raise BundleError(
            f"{bundle.path}: its item tower gives vectors of {vectors.shape}, or some that are not finite"
        )


def _histories(model: ServingModel, other: ServingModel | None) -> list[tuple[str, ...]]:
    """A few items for each made-up user, the same in every run; of those that both bundles have, where any are."""
    items = model.bundle.items
    rng = np.random.default_rng(0)
    rows: Int64Array = rng.permutation(len(items))[: 8 * PROBES * _HISTORY]
    if other is not None:
        known = other.catalogue.rows(item_keys(items.ids(rows))) >= 0
        rows = rows[known] if known.any() else rows
    return [tuple(items.ids(rng.choice(rows, min(_HISTORY, len(rows)), replace=False))) for _ in range(PROBES)]


def _answers(model: ServingModel, config: EngineConfig, histories: list[tuple[str, ...]]) -> list[Recommendation]:
    """What each of these users gets, over the surfaces in turn. Raises BundleError for what no server should say."""
    surfaces, path = tuple(config.surfaces), model.bundle.path
    with ThreadPoolExecutor(1) as unused:
        pipeline = Pipeline(model, FetchFeatures(_Nobody(), 1.0, 1 << 20), config, unused)
    answers = []
    for number, history in enumerate(histories):
        query = RecommendQuery(
            user_id=f"probe-{number}",
            surface=surfaces[number % len(surfaces)],
            item_count=_ITEM_COUNT,
            time_ms=model.bundle.manifest.data_end_ms,
        )
        clock = RequestClock(time.monotonic() + _PATIENCE_S, StageEstimates())
        answer = pipeline.answer(model, query, pipeline.experiments.assign(query), _state(model, history), clock)
        eligible = count_rows(model.catalogue.of_surface(query.surface), model.catalogue.row_count)
        count = len(answer.item_ids)
        if answer.degraded_reasons:
            raise BundleError(f"{path}: a sample request was answered by a fallback: {answer.degraded_reasons[0].name}")
        if not np.isfinite(answer.slate.scores).all():
            raise BundleError(f"{path}: a sample request got scores that are not finite")
        if count < min(_ITEM_COUNT, eligible):
            raise BundleError(f"{path}: a sample request got {count} items, where {eligible:,} may be shown")
        alike = count > 1 and np.ptp(answer.slate.scores) == 0
        if alike and answer.strategy is Strategy.PERSONALIZED and _could_differ(model):
            raise BundleError(f"{path}: its ranker gives every item the same score")
        answers.append(answer)
    return answers


def _plain(config: EngineConfig) -> EngineConfig:
    """The settings without experiments, chance and devices: an answer depends on the bundle alone."""
    return config.model_copy(
        update={
            "device": DeviceConfig(),
            "experiments": (),
            "holdout": HoldoutConfig(),
            "exploration": config.exploration.model_copy(update={"share": 0.0}),
        }
    )


def _state(model: ServingModel, history: tuple[str, ...]) -> UserState:
    """Somebody who liked these items, long ago."""
    bundle, rows = model.bundle, model.catalogue.rows(item_keys(history))
    rows = rows[(rows >= 0) & (rows < len(bundle.items))]
    record = UserRecord(
        generation=bundle.manifest.generation,
        embedding=_mean(bundle.item_vectors, rows),
        collaborative=_mean(bundle.column("collaborative"), rows),
        profile=np.zeros(len(bundle.schema.profile), np.float32),
        interaction_count=1000,
        purchase_count=0,
        demographics=Demographics(),
    )
    return replace(UserState.unknown(), record=record, session=Session.empty())


def _mean(vectors: Float32Array, rows: Int64Array) -> Float32Array:
    if not len(rows):
        return np.zeros(vectors.shape[1], np.float32)
    mean: Float32Array = vectors[rows].mean(axis=0, dtype=np.float32)
    return np.ascontiguousarray(mean)


def _could_differ(model: ServingModel) -> bool:
    """A shop of few items has no choice."""
    return len(model.bundle.items) >= 4 * _ITEM_COUNT


class _Nobody:
    """A feature store that is never asked: what it would know is given."""

    async def fetch(self, user_id: str, generation: int) -> Any:
        raise NotImplementedError
