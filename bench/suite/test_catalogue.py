"""What a changing catalogue costs by size: new items beside the index, and most items out of stock."""

import asyncio
import itertools
import time
from typing import Any

import numpy as np
import pytest

from engine.adapters.faiss.index import FaissIndex
from engine.app.model import load_model
from engine.bundle.bundle import INDEX_FILE
from engine.catalog.changes import Change, ContentChange, ItemState, Overlay, VectorChange
from engine.config.serving import EngineConfig
from engine.request.model import ServingModel
from engine.request.pipeline import Pipeline
from engine.stages import BUDGETS_MS
from engine.types import Float32Array, RecommendQuery, UInt8Array, item_key
from engine_bench.targets import TARGET_ITEMS, Target
from engine_client.v1 import catalog_pb2 as pb
from suite.serving import PATIENCE_S, SURFACE, PublishedWorld, Serving, exact_rows, mean_recall

K, SLATE, NEW_ITEMS, ROUNDS, RATIO = 1000, 50, 10_000, 400, 1.3
RECALL_QUERIES = 64


@pytest.fixture
def with_new_items(world: PublishedWorld) -> ServingModel:
    """The bundle and 10,000 new items, whose vectors are those of random items, a little moved."""
    bundle = world.bundle
    model = load_model(bundle.path, EngineConfig())
    rng = np.random.default_rng(0)
    alike = np.array(bundle.item_vectors[rng.integers(0, world.item_count, NEW_ITEMS)])
    alike += rng.normal(scale=0.05, size=alike.shape).astype(np.float32)
    changes: list[Change] = []
    for number, vector in enumerate(alike):
        name = f"new-{number}"
        stored = pb.StoredItem(item=pb.Item(item_id=name, title=name))
        changes += [
            ContentChange(item_key(name), stored),
            VectorChange(item_key(name), bundle.manifest.generation, vector),
        ]
    overlay = Overlay()
    overlay.add(changes)
    started = time.perf_counter()
    model.catalogue.apply(overlay.since(0), overlay.sequence)
    print(f"\n{NEW_ITEMS:,} items embedded, written and shown in {time.perf_counter() - started:.2f} s")
    return model


def test_fresh_items_beside_the_index(benchmark: Any, world: PublishedWorld, with_new_items: ServingModel) -> None:
    """Both indexes against the main one alone, turn by turn."""
    bundle = world.bundle
    main = FaissIndex.open(bundle.path / INDEX_FILE, bundle.manifest.index, bundle.item_table)
    rng = np.random.default_rng(1)
    queries = np.array(bundle.item_vectors[np.sort(rng.integers(0, world.item_count, 256))])
    bitmap = with_new_items.catalogue.of_surface("home")
    main_bitmap = bitmap[: (world.item_count + 7) // 8]
    seconds: dict[str, list[float]] = {"main": [], "both": []}
    found = 0
    for number, query in zip(range(ROUNDS), itertools.cycle(queries), strict=False):
        for name in ("main", "both") if number % 2 else ("both", "main"):
            started = time.perf_counter()
            if name == "main":
                main.search(query, K, main_bitmap)
            else:
                rows, _ = with_new_items.index.search(query, K, bitmap)
                found += int((rows >= with_new_items.catalogue.new_items.first_row).sum())
            seconds[name].append(time.perf_counter() - started)
    recall = _recall(with_new_items, queries[:RECALL_QUERIES], bitmap)
    turn = itertools.cycle(queries)
    benchmark.pedantic(
        lambda query: with_new_items.index.search(query, K, bitmap), setup=lambda: ((next(turn),), {}), rounds=200
    )
    p50 = {name: float(np.median(values[20:])) * 1000 for name, values in seconds.items()}
    ratio = p50["both"] / p50["main"]
    benchmark.extra_info.update(
        items=world.item_count,
        recall_at_1000=recall,
        main_p50_ms=round(p50["main"], 3),
        both_p50_ms=round(p50["both"], 3),
        ratio=round(ratio, 3),
        new_items=NEW_ITEMS,
    )
    print(f"\nmain {p50['main']:.3f} ms, with {NEW_ITEMS:,} new items {p50['both']:.3f} ms: {ratio:.2f} times")
    assert found, "no new item was near any query"
    if world.item_count >= TARGET_ITEMS:  # of a smaller catalogue 10,000 items are a large part
        name = f"search with {NEW_ITEMS:,} new items, times as long"
        benchmark.extra_info["targets"] = [Target(name, round(ratio, 3), RATIO).as_json()]


def _recall(model: ServingModel, queries: Float32Array, bitmap: UInt8Array) -> float:
    """Against an exact search in the rows of bundle and new items together."""
    vectors = model.catalogue.item_vectors
    mask = np.unpackbits(bitmap, count=len(vectors), bitorder="little").astype(bool)
    return mean_recall(model.index, queries, K, bitmap, exact_rows(vectors, queries, mask, K))


@pytest.mark.parametrize("ineligible", [0.5, 0.9, 0.99, 0.999])
def test_most_of_the_catalogue_out_of_stock(benchmark: Any, serving: Serving, ineligible: float) -> None:
    """Full answers, and retrieval within its budget, whatever part of the catalogue is out of stock."""
    if (1 - ineligible) * serving.world.item_count < 2 * SLATE:
        pytest.skip("so few items would be left that no slate could be full")
    users = itertools.cycle(serving.user_ids)
    rng = np.random.default_rng(0)
    retrieve: list[float] = []

    def ask(loop: asyncio.AbstractEventLoop, pipeline: Pipeline) -> None:
        query = RecommendQuery(next(users), SURFACE, SLATE, serving.now_ms)
        answer = loop.run_until_complete(pipeline.recommend(query, time.monotonic() + PATIENCE_S))
        assert len(answer.slate) == SLATE
        assert not answer.degraded_reasons
        retrieve.append(sum(timing.duration_ms for timing in answer.timings if timing.stage == "retrieve"))

    with serving.pipeline() as (loop, pipeline):
        keys = rng.permutation(pipeline.model.bundle.items.sorted_keys)
        gone = keys[: round(ineligible * serving.world.item_count)]
        pipeline.model.catalogue.apply([ItemState(int(key), in_stock=False) for key in gone], 1)
        benchmark.pedantic(ask, args=(loop, pipeline), rounds=ROUNDS, warmup_rounds=50)
        recall = serving.measured_recall(pipeline.model, K, RECALL_QUERIES)
    p50, p99 = np.percentile(retrieve[-ROUNDS:], [50, 99])
    benchmark.extra_info.update(
        items=serving.world.item_count,
        ineligible=ineligible,
        recall_at_1000=recall,
        retrieve_p50_ms=round(p50, 2),
        retrieve_p99_ms=round(p99, 2),
    )
    print(f"\n{ineligible:.1%} out of stock: retrieve p50 {p50:.2f} ms, p99 {p99:.2f} ms, recall {recall:.4f}")
    name = f"retrieve p99 ms, {ineligible:.1%} out of stock"
    benchmark.extra_info["targets"] = [Target(name, round(p99, 2), BUDGETS_MS["retrieve"], unit="ms").as_json()]
