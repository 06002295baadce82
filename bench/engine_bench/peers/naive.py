"""The straightforward wiring: the same models, index and stored users, and per item Python around them.

What a competent engineer writes in an afternoon: libraries called as their documentation shows, NumPy for arithmetic,
lists, sets and loops for items. Nothing in it is slow on purpose, and it owes its answers the same care: eligible items
only, as many as asked for, scored by the same ranker and diversified by the same rule.
"""

from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np

from engine.adapters.redis.keys import live_key, past_key, record_key
from engine.bundle.bundle import INDEX_FILE, open_bundle
from engine.config.serving import EngineConfig
from engine.features.context import ContextEncoder
from engine.features.record import unpack_record
from engine.features.seen import read_seen
from engine.features.session import SessionSettings
from engine.features.state import SeenItems, Session, UserRecord
from engine.stream.state import view_state
from engine.types import Demographics, EventType, Float32Array, Int64Array, RankingContext
from engine_bench.peers.greedy import numpy_mmr
from engine_bench.peers.tiled import TiledRanker

# More than is wanted of the index, since what is out of stock or not for the surface goes only afterwards.
_OVERFETCH = 1.25


@dataclass(frozen=True, slots=True)
class NaiveRequest:
    """One request. excluded: item ids. diversity_weight: None for the surface's."""

    user_id: str
    surface: str
    item_count: int
    time_ms: int
    device: str = ""
    country: str = ""
    excluded: frozenset[str] = frozenset()
    diversity_weight: float | None = None


class Naive:
    """Answers from one bundle, mapped and unpacked into lists. Safe for concurrent calls.

    Args:
        bundle: the bundle's directory.
        tiled: the graph of engine_bench.peers.tiled_export for its ranker.

    Cost: about half a kilobyte an item.
    """

    def __init__(self, bundle: Path, tiled: Path) -> None:
        opened = open_bundle(bundle, verify=False)
        config = EngineConfig()
        self.version = opened.version
        self._generation = opened.manifest.generation
        self._index = faiss.read_index(str(bundle / INDEX_FILE), faiss.IO_FLAG_MMAP_IFC)
        if hasattr(self._index, "nprobe"):
            self._index.nprobe = opened.manifest.index["nprobe"]
        self._ranker = TiledRanker(tiled, opened.item_table, opened.item_dynamic)
        self._vectors = opened.item_vectors
        self._encoder = ContextEncoder(opened.schema)
        self._read_session = opened.ranker_session
        self._blended_session = SessionSettings.of(config.blend)
        self._evidence_half = config.blend.evidence_half
        self._config = config
        self._hide_s, self._demote_s = (
            {int(EventType[name.upper()]): seconds for name, seconds in windows.model_dump().items()}
            for windows in (config.seen.hide, config.seen.demote)
        )
        table = opened.items.table
        self._ids: list[str] = table.column("item_id").to_pylist()
        self._in_stock = [there is not False for there in table.column("in_stock").to_pylist()]
        self._surfaces = [set(names.split("|")) if names else None for names in table.column("surfaces").to_pylist()]
        self._row_of_key = dict(zip(opened.items.sorted_keys.tolist(), opened.items.sorted_rows.tolist(), strict=True))
        self._popular: list[int] = opened.popularity.overall.rows.tolist()

    def keys(self, user_id: str) -> list[str]:
        """What to read of a user, for `answer`: record, live state with the session in it, seen items."""
        return [record_key(user_id, self._generation), live_key(user_id), past_key(user_id)]

    def answer(self, asked: NaiveRequest, blobs: list[bytes | None]) -> list[tuple[str, float]]:
        """Item ids and their scores, in slate order. blobs: the values of `keys`."""
        record = unpack_record(blobs[0]) if blobs[0] else None
        live = view_state(blobs[1])
        session = live.session
        met = read_seen(blobs[2]).joined(live.seen)
        seen = self._rows_within(met, self._hide_s, asked.time_ms // 1000)
        if record is None or record.interaction_count < self._config.cold_start.min_interactions:
            return self._most_popular(asked, seen)
        session_rows = np.array([self._row_of_key.get(key, -1) for key in session.item_keys.tolist()], np.int64)
        query = self._query(record, session, session_rows, asked.time_ms)
        rows = self._candidates(query, asked, seen)
        scores = self._ranker.score(self._context(record, session, session_rows, query, asked), rows)
        rows, scores = self._demoted(rows, scores, self._rows_within(met, self._demote_s, asked.time_ms // 1000), asked)
        picks = self._diverse(rows, scores, asked)
        slate = [(self._ids[int(rows[pick])], float(scores[pick])) for pick in picks]
        if len(slate) < asked.item_count:
            slate += self._most_popular(asked, seen | set(rows.tolist()))[: asked.item_count - len(slate)]
        return slate

    def _rows_within(self, met: SeenItems, windows_s: dict[int, int], now_s: int) -> set[int]:
        """Rows of the items with an event that is no older than its type's window; showings do not count here."""
        events = zip(met.item_keys.tolist(), met.event_types.tolist(), met.times_s.tolist(), strict=True)
        keys = {key for key, kind, time_s in events if now_s - time_s < windows_s.get(kind, 0)}
        return {row for key in keys if (row := self._row_of_key.get(key)) is not None}

    def _demoted(
        self, rows: Int64Array, scores: Float32Array, recent: set[int], asked: NaiveRequest
    ) -> tuple[Int64Array, Float32Array]:
        """The candidates, best first: what was just looked at after others like it, and no more than its share."""
        policy = self._config.seen_on(asked.surface)
        scored = [
            (row, score * policy.demotion if row in recent else score)
            for row, score in zip(rows.tolist(), scores.tolist(), strict=True)
        ]
        scored.sort(key=lambda one: -one[1])
        kept, left = [], int(policy.recent_share * asked.item_count)
        for row, score in scored:
            if row in recent:
                left -= 1
                if left < 0:
                    continue
            kept.append((row, score))
        return np.array([row for row, _ in kept], np.int64), np.array([score for _, score in kept], np.float32)

    def _query(self, record: UserRecord, session: Session, rows: Int64Array, now_ms: int) -> Float32Array:
        """The stored embedding with the unread part of the session mixed in, at its own length."""
        unread = session.timestamps_ms > record.embedded_until_ms
        recent, evidence, _ = session_mean(
            self._vectors, np.where(unread, rows, -1), session, now_ms, self._blended_session
        )
        if not evidence:
            return record.embedding
        length = np.linalg.norm(record.embedding)
        share = evidence / (evidence + self._evidence_half)
        mixed = (1.0 - share) * record.embedding + share * length * recent / np.linalg.norm(recent)
        query: Float32Array = (mixed * (length / np.linalg.norm(mixed))).astype(np.float32)
        return query

    def _candidates(self, query: Float32Array, asked: NaiveRequest, seen: set[int]) -> Int64Array:
        """The nearest items that may be shown; the search is made wider until there are enough of them."""
        wanted = max(self._config.retrieval.candidate_count, asked.item_count)
        count = int(wanted * _OVERFETCH) + len(seen)
        while True:
            count = min(count, len(self._ids))
            _, found = self._index.search(query[None], count)
            kept = [row for row in found[0].tolist() if row >= 0 and self._eligible(row, asked, seen)]
            if len(kept) >= asked.item_count or count == len(self._ids):
                return np.array(kept[:wanted], np.int64)
            count *= 2

    def _eligible(self, row: int, asked: NaiveRequest, seen: set[int]) -> bool:
        if not self._in_stock[row] or row in seen:
            return False
        surfaces = self._surfaces[row]
        if surfaces is not None and asked.surface not in surfaces:
            return False
        return not asked.excluded or self._ids[row] not in asked.excluded

    def _context(
        self, record: UserRecord, session: Session, rows: Int64Array, query: Float32Array, asked: NaiveRequest
    ) -> RankingContext:
        mean, _, dense = session_mean(self._vectors, rows, session, asked.time_ms, self._read_session)
        users: Demographics = record.demographics
        return RankingContext(
            query=query,
            session=mean,
            collaborative=record.collaborative,
            dense=self._encoder.dense(record.profile, asked.time_ms, dense),
            codes=self._encoder.codes(users, asked.device, asked.country, asked.surface, asked.time_ms),
        )

    def _diverse(self, rows: Int64Array, scores: Float32Array, asked: NaiveRequest) -> list[int]:
        if not len(rows):
            return []
        weight = asked.diversity_weight
        if weight is None:
            weight = self._config.surfaces[asked.surface].diversity_weight
        vectors = self._vectors[rows]
        units = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        logs = np.log(scores)
        spread = logs.max() - logs.min()
        relevance = (logs - logs.min()) / spread if spread else np.ones(len(logs), np.float32)
        picks: list[int] = numpy_mmr(relevance, units, 1.0 - weight, asked.item_count).tolist()
        return picks

    def _most_popular(self, asked: NaiveRequest, taken: set[int]) -> list[tuple[str, float]]:
        slate: list[tuple[str, float]] = []
        for row in self._popular:
            if len(slate) == asked.item_count:
                break
            if self._eligible(row, asked, taken):
                slate.append((self._ids[row], 0.0))
        return slate


def session_mean(
    vectors: Float32Array, rows: Int64Array, session: Session, now_ms: int, settings: SessionSettings
) -> tuple[Float32Array, float, Float32Array]:
    """What engine.kernels.session.session_vector and the ranker's dense session features say, in NumPy.

    Args:
        vectors: float32 (items, dim). rows: int64 (n,), of the session's items, -1 for those that do not count.

    Returns:
        The mean float32 (dim,), the evidence, and float32 (3,): see engine.features.schema.SESSION_DENSE.
    """
    ages_s = np.maximum(now_ms - session.timestamps_ms, 0) / 1000.0
    weights = settings.type_weights[session.event_types]
    counted = (rows >= 0) & (ages_s <= settings.window_s) & (weights > 0)
    if not counted.any():
        dense = np.log1p(np.array([0.0, 0.0, settings.window_s]))
        return np.zeros(vectors.shape[1], np.float32), 0.0, dense.astype(np.float32)
    decayed = weights[counted] * 2.0 ** (-ages_s[counted] / settings.half_life_s)
    found = vectors[rows[counted]]
    units = found / np.linalg.norm(found, axis=1, keepdims=True)
    evidence = float(decayed.sum())
    dense = np.log1p(np.array([evidence, np.count_nonzero(counted), ages_s[counted].min()]))
    return (decayed @ units / evidence).astype(np.float32), evidence, dense.astype(np.float32)
