"""Reports for callers of a server: made in processes of their own, few at a time, and kept for a while."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from cachetools import TTLCache

from engine.errors import DataError, DependencyUnavailable, Overloaded
from engine.experiments.analysis.files import Archive
from engine.experiments.analysis.read import bundle_categories, count
from engine.experiments.analysis.report import make_report
from engine.experiments.analysis.report_query import ReportQuery
from engine.runtime.helper_process import HelperProcess

log = logging.getLogger(__name__)

# What a question is told by, besides its shares.
_PLAIN = ("experiment", "surface", "from_ms", "to_ms", "control", "rules")
# Reports that are kept at once; a day-by-day report of many surfaces is some hundred kilobytes.
_KEPT = 64


class ReportService:
    """Makes and keeps reports. Implements engine.rpc.experiment_servicer.Reporter; belongs to one event loop.

    Args:
        archive: what they are made of.
        bundle: the directory of the one whose categories of items count, asked for again with each report; None: none.
        complete: fills in what the settings say of the experiment.
        cache_s: so long the same question gets the same report.
        max_concurrent: made at once, each in a process with one thread and with memory_mb of memory.
        max_waiting: made or waiting; past it Overloaded.
    """

    def __init__(
        self,
        archive: Archive,
        bundle: Callable[[], Path | None],
        complete: Callable[[ReportQuery], ReportQuery],
        cache_s: float,
        max_concurrent: int,
        max_waiting: int,
        memory_mb: int,
    ) -> None:
        self._archive = archive
        self._bundle = bundle
        self._complete = complete
        # They only wait: a report is seconds of Python, which the event loop shares an interpreter with.
        self._executor = ThreadPoolExecutor(max_concurrent, "engine-reports")
        self._helper = HelperProcess()
        self._max_waiting = max_waiting
        self._memory_mb = memory_mb
        self._kept: TTLCache[tuple[Any, ...], dict[str, Any]] = TTLCache(_KEPT, cache_s)
        self._making: dict[tuple[Any, ...], asyncio.Future[dict[str, Any]]] = {}

    async def report(self, question: ReportQuery) -> Mapping[str, Any]:
        """See the Protocol. Callers with one question wait for one report; one who leaves takes nothing from others."""
        question = self._complete(question)
        key = (*(getattr(question, name) for name in _PLAIN), tuple(sorted(question.shares.items())))
        kept = self._kept.get(key)
        if kept is not None:
            return kept
        making = self._making.get(key)
        if making is None:
            if len(self._making) >= self._max_waiting:
                raise Overloaded(f"{self._max_waiting} reports are being made; ask again in a while")
            making = asyncio.get_running_loop().run_in_executor(self._executor, self._make, question)
            self._making[key] = making
            making.add_done_callback(lambda done: self._keep(key, done))
        return await asyncio.shield(making)

    @property
    def making(self) -> int:
        """Reports that are made or wait at this moment."""
        return len(self._making)

    def close(self) -> None:
        """Start no further report, and end those that are being made."""
        self._helper.close()
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _keep(self, key: tuple[Any, ...], done: "asyncio.Future[dict[str, Any]]") -> None:
        del self._making[key]
        # Asking for the exception says that somebody has seen it, also where every caller has left.
        if not done.cancelled() and done.exception() is None:
            self._kept[key] = done.result()

    def _make(self, question: ReportQuery) -> dict[str, Any]:
        try:
            return self._helper.call(make, self._archive, question, self._bundle(), self._memory_mb)
        except DataError as error:
            log.error("no report: %s", error)
            raise DependencyUnavailable("the archive cannot be read") from error


def make(archive: Archive, question: ReportQuery, bundle: Path | None, memory_mb: int) -> dict[str, Any]:
    """One report as JSON has it; raises as `count` and `make_report` do."""
    categories = {} if bundle is None else bundle_categories(bundle)
    # One thread for the database, too: the cores are for recommendations.
    counted = count(archive, question, categories, threads=1, memory_mb=memory_mb)
    return make_report(counted, question).to_dict()
