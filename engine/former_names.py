"""Modules that have moved: their former names still import, with a DeprecationWarning.

Those of engine_bench are in a distribution of their own, bench/.
"""

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Final

MOVED: Final = {
    "engine.bundle.room": "engine.bundle.spare_rows",
    "engine.catalog.fresh": "engine.catalog.new_items",
    "engine.experiments.analysis.desk": "engine.experiments.analysis.report_service",
    "engine.experiments.analysis.question": "engine.experiments.analysis.report_query",
    "engine.features.people": "engine.features.user_counts",
    "engine.runtime.elsewhere": "engine.runtime.helper_process",
    "engine.stream.fresh": "engine.stream.nearline",
    "engine.stream.lanes": "engine.stream.sink_shards",
    "engine.adapters.faiss.cells": "engine.adapters.faiss.inverted_lists",
    "engine.adapters.cuda_device": "engine.adapters.cuda.device",
    "engine.adapters.cuda_program": "engine.adapters.cuda.program",
    "engine.adapters.cuda_scan": "engine.adapters.cuda.scan",
    "engine.adapters.device_table": "engine.adapters.cuda.device_table",
    "engine.adapters.embedded_kafka": "engine.adapters.kafka.embedded",
    "engine.adapters.embedded_redis": "engine.adapters.redis.embedded",
    "engine.adapters.faiss.float16": "engine_bench.float16",
    "engine.adapters.faiss_build": "engine.adapters.faiss.build",
    "engine.adapters.faiss_calibrate": "engine.adapters.faiss.calibrate",
    "engine.adapters.faiss_cells": "engine.adapters.faiss.inverted_lists",
    "engine.adapters.faiss_float16": "engine_bench.float16",
    "engine.adapters.faiss_gpu_index": "engine.adapters.faiss.gpu_index",
    "engine.adapters.faiss_index": "engine.adapters.faiss.index",
    "engine.adapters.faiss_visits": "engine.adapters.faiss.visits",
    "engine.adapters.kafka_bus": "engine.adapters.kafka.bus",
    "engine.adapters.kafka_exposures": "engine.adapters.kafka.exposures",
    "engine.adapters.kafka_log": "engine.adapters.kafka.log",
    "engine.adapters.kafka_source": "engine.adapters.kafka.source",
    "engine.adapters.onnx_gpu_ranker": "engine.adapters.onnx.gpu_ranker",
    "engine.adapters.onnx_ranker": "engine.adapters.onnx.ranker",
    "engine.adapters.onnx_ranker_graph": "engine.adapters.onnx.ranker_graph",
    "engine.adapters.onnx_towers": "engine.adapters.onnx.towers",
    "engine.adapters.redis_catalog": "engine.adapters.redis.catalog",
    "engine.adapters.redis_keys": "engine.adapters.redis.keys",
    "engine.adapters.redis_multiplexed": "engine.adapters.redis.multiplexed",
    "engine.adapters.redis_state": "engine.adapters.redis.state",
    "engine.adapters.redis_store": "engine.adapters.redis.store",
    "engine.adapters.redis_trending": "engine.adapters.redis.trending",
    "engine.assemble": "engine.app.serve",
    "engine.assemble_device": "engine.app.backends",
    "engine.assemble_device_process": "engine.app.device_process",
    "engine.assemble_model": "engine.app.model",
    "engine.assemble_processor": "engine.app.processor",
    "engine.batching.index": "engine.batching.batched",
    "engine.batching.queue": "engine.batching.micro_batcher",
    "engine.batching.ranker": "engine.batching.batched",
    "engine.bundle_check": "engine.app.bundle_check",
    "engine.catalog.index": "engine.retrieval.live_index",
    "engine.catalog.overfetch": "engine.retrieval.overfetch",
    "engine.catalog.shards": "engine.retrieval.shards",
    "engine.cli.synth": "engine_bench.commands.synth",
    "engine.clock": "engine.request.clock",
    "engine.compute": "engine.request.compute",
    "engine.data.completejourney": "engine_bench.datasets.completejourney",
    "engine.data.event_log": "engine.data.inspect",
    "engine.data.movielens": "engine_bench.datasets.movielens",
    "engine.data.synth": "engine_bench.synthetic.tables",
    "engine.data.synth_catalogue": "engine_bench.synthetic.catalogue",
    "engine.data.synth_events": "engine_bench.synthetic.events",
    "engine.data.synth_sampler": "engine_bench.synthetic.sampler",
    "engine.data.synth_words": "engine_bench.synthetic.words",
    "engine.data.synth_world": "engine_bench.synthetic.world",
    "engine.elsewhere": "engine.runtime.helper_process",
    "engine.evaluation.attributes": "engine.evaluation.revealed",
    "engine.evaluation.lists": "engine.evaluation.leave_one_out",
    "engine.evaluation.replay": "engine.evaluation.next_event",
    "engine.evaluation.taste": "engine_bench.taste_figures",
    "engine.experiments.allocation": "engine.experiments.layers",
    "engine.experiments.analysis.categories": "engine.experiments.analysis.read",
    "engine.experiments.analysis.corrections": "engine.experiments.analysis.significance",
    "engine.experiments.analysis.counted": "engine.experiments.analysis.metrics",
    "engine.experiments.analysis.cuped": "engine.experiments.analysis.statistics",
    "engine.experiments.analysis.daily": "engine.experiments.analysis.compare",
    "engine.experiments.analysis.declared": "engine.experiments.analysis.report_query",
    "engine.experiments.analysis.lines": "engine.experiments.analysis.verdict",
    "engine.experiments.analysis.ope_read": "engine.experiments.analysis.ope",
    "engine.experiments.analysis.sequential": "engine.experiments.analysis.significance",
    "engine.experiments.analysis.srm": "engine.experiments.analysis.significance",
    "engine.experiments.check": "engine.config.check_experiments",
    "engine.experiments.declaration": "engine.config.experiments",
    "engine.experiments.named": "engine.experiments.settings",
    "engine.explain": "engine.request.explain",
    "engine.log_writer": "engine.runtime.log_writer",
    "engine.model": "engine.request.model",
    "engine.pipeline": "engine.request.pipeline",
    "engine.publish_items": "engine.publish.items",
    "engine.roads": "engine.request.candidates",
    "engine.rpc.arguments": "engine_client.arguments",
    "engine.rpc.channel": "engine_client.channel",
    "engine.rpc.client": "engine_client.client",
    "engine.rpc.convert": "engine.contract.requests",
    "engine.rpc.requests": "engine_client.requests",
    "engine.rpc.validate": "engine.contract.requests",
    "engine.rpc.validate_catalog": "engine.contract.items",
    "engine.rpc.validate_events": "engine.contract.events",
    "engine.rpc.validate_experiment": "engine.rpc.experiment_servicer",
    "engine.settings.environment": "engine.config.environment",
    "engine.settings.load": "engine.config.load",
    "engine.settings.names": "engine.config.names",
    "engine.settings.seen": "engine.config.seen",
    "engine.stalls.cause": "engine.runtime.stalls.cause",
    "engine.stalls.collector": "engine.runtime.stalls.collector",
    "engine.stalls.metrics": "engine.runtime.stalls.metrics",
    "engine.stalls.turns": "engine.runtime.stalls.turns",
    "engine.stalls.usage": "engine.runtime.stalls.usage",
    "engine.stalls.watch": "engine.runtime.stalls.watch",
    "engine.stream.codec": "engine.contract.events",
    "engine.supervisor": "engine.app.supervisor",
    "engine.swap": "engine.app.swap",
    "engine.training.segments": "engine.training.popular",
    "engine.training.two_tower.export": "engine.training.two_tower.model",
    "engine.trending": "engine.app.trending",
    "engine.v1": "engine_client.v1",
    "engine.v1.catalog_pb2": "engine_client.v1.catalog_pb2",
    "engine.v1.catalog_pb2_grpc": "engine_client.v1.catalog_pb2_grpc",
    "engine.v1.event_pb2": "engine_client.v1.event_pb2",
    "engine.v1.event_pb2_grpc": "engine_client.v1.event_pb2_grpc",
    "engine.v1.experiment_pb2": "engine_client.v1.experiment_pb2",
    "engine.v1.experiment_pb2_grpc": "engine_client.v1.experiment_pb2_grpc",
    "engine.v1.exposure_pb2": "engine_client.v1.exposure_pb2",
    "engine.v1.exposure_pb2_grpc": "engine_client.v1.exposure_pb2_grpc",
    "engine.v1.recommendation_pb2": "engine_client.v1.recommendation_pb2",
    "engine.v1.recommendation_pb2_grpc": "engine_client.v1.recommendation_pb2_grpc",
    "engine.workers": "engine.app.workers",
}
# Packages that are gone; without them, what was inside could not be found.
_FORMER_PACKAGES: Final = frozenset({"engine.settings", "engine.stalls"})


class _Finder(MetaPathFinder, Loader):
    """Asked first: what another version of the engine has under a former name is not wanted."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name in MOVED:
            return ModuleSpec(name, self)
        if name in _FORMER_PACKAGES:
            return ModuleSpec(name, self, is_package=True)
        return None

    def exec_module(self, module: ModuleType) -> None:
        name = module.__name__
        if name not in MOVED:
            return
        warnings.warn(f"{name} is now {MOVED[name]}", DeprecationWarning, stacklevel=2)
        # One module under both names: what is patched or compared there is the same object here.
        sys.modules[name] = importlib.import_module(MOVED[name])


def install() -> None:
    """Let the former names be found, in this process. Cost: a microsecond an import."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
