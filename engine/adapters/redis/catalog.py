"""The catalogue overlay on Redis: hashes that hold what is true now, and a stream that says what has changed.

Every write goes to both in one transaction. A follower reads the stream's end, then the hashes, then the stream from
there: what it meets twice is the same change, and what it meets last is what the hashes hold.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import redis
import redis.asyncio
from google.protobuf.message import DecodeError
from redis.backoff import NoBackoff
from redis.retry import Retry

from engine.adapters.redis.connect import INTRODUCTION
from engine.adapters.redis.keys import CATALOG_CHANGES, CATALOG_ITEMS, CATALOG_STOCK, catalog_vectors_key
from engine.catalog.changes import Change, ContentChange, StockChange, VectorChange
from engine.config.serving import RedisConfig
from engine.errors import DependencyUnavailable, SnapshotNeeded, described
from engine.types import Float32Array
from engine_client.v1 import catalog_pb2 as pb

# Batches that the stream keeps. A follower with a larger lag reads the hashes again.
_STREAM_BATCHES: Final = 10_000
_PAGE: Final = 500
_KEY_BYTES: Final = 8
_CONTENT, _STOCK, _VECTOR = b"i", b"s", b"v"
_IN_STOCK, _OUT_OF_STOCK = b"1", b"0"


class RedisCatalogWriter:
    """Stores changes. Belongs to one event loop. Implements engine.rpc.catalog_servicer.CatalogueStore."""

    def __init__(self, url: str, config: RedisConfig) -> None:
        self._client = redis.asyncio.Redis.from_url(
            url,
            socket_connect_timeout=config.connect_timeout_s,
            socket_timeout=config.connect_timeout_s,
            retry=redis.asyncio.retry.Retry(NoBackoff(), 0),
            **INTRODUCTION,
        )

    async def write(self, changes: Sequence[Change]) -> None:
        """Store changes, in their order and all or none. Raises DependencyUnavailable."""
        try:
            async with self._client.pipeline(transaction=True) as pipeline:
                queue_changes(pipeline, changes)
                await pipeline.execute()
        except (redis.RedisError, OSError) as error:
            raise DependencyUnavailable(f"the catalogue store did not answer: {described(error)}") from error

    async def close(self) -> None:
        await self._client.aclose()


class RedisCatalogPublisher:
    """The hourly job's side: reads what the overlay holds of items, and stores moved vectors. Blocking."""

    def __init__(self, url: str, config: RedisConfig) -> None:
        self._source = RedisCatalogSource(url, config)
        self._client = redis.Redis.from_url(url, socket_connect_timeout=config.connect_timeout_s, **INTRODUCTION)
        self._vector_ttl_s = config.record_ttl_s

    def stored(self) -> list[pb.StoredItem]:
        """What the overlay holds of each item. Raises DependencyUnavailable."""
        return [change.stored for change in self._source.snapshot([]) if isinstance(change, ContentChange)]

    def write(self, changes: Sequence[Change]) -> None:
        """Store changes, some hundreds a transaction; vectors live as long as user records do.

        Raises DependencyUnavailable.
        """
        generations = {change.generation for change in changes if isinstance(change, VectorChange)}
        with _reaching_redis():
            for start in range(0, len(changes), _PAGE):
                with self._client.pipeline(transaction=True) as pipeline:
                    queue_changes(pipeline, changes[start : start + _PAGE])
                    for generation in generations:
                        pipeline.expire(catalog_vectors_key(generation), self._vector_ttl_s)
                    pipeline.execute()

    def close(self) -> None:
        self._source.close()
        self._client.close()


def queue_changes(pipeline: Any, changes: Sequence[Change]) -> None:
    """Put the commands of one transaction into a redis-py pipeline."""
    hashes: dict[str, dict[bytes, bytes]] = {}
    for change in changes:
        hashes.setdefault(_hash_of(change), {})[_key(change)] = _payload(change)
    for name, mapping in hashes.items():
        pipeline.hset(name, mapping=mapping)
    pipeline.xadd(CATALOG_CHANGES, dict(map(_to_field, changes)), maxlen=_STREAM_BATCHES, approximate=True)


class RedisCatalogSource:
    """Reads the overlay. Blocking; for one thread. Implements engine.catalog.follow.ChangeSource."""

    def __init__(self, url: str, config: RedisConfig) -> None:
        self._client = redis.Redis.from_url(
            url,
            socket_connect_timeout=config.connect_timeout_s,
            socket_timeout=config.connect_timeout_s,
            retry=Retry(NoBackoff(), 0),
            **INTRODUCTION,
        )
        # Of the server that the position belongs to: one that restarted may have lost what was last written.
        self._run_id = b""
        self._position = b"0-0"

    def snapshot(self, generations: Iterable[int]) -> list[Change]:
        """The whole overlay, with the vectors of these embedding spaces; `follow` goes on from there.

        Raises DependencyUnavailable.
        """
        with _reaching_redis():
            run_id, last, _ = self._state()
            changes: list[Change] = []
            for key, blob in self._scan(CATALOG_ITEMS):
                changes += _content_change(key, blob)
            changes += (StockChange(_number(key), blob == _IN_STOCK) for key, blob in self._scan(CATALOG_STOCK))
            for generation in generations:
                changes += self._vectors(generation)
            self._run_id, self._position = run_id, last
            return changes

    def follow(self, timeout_s: float) -> list[Change]:
        """What has changed since the last call or the snapshot; waits up to timeout_s for the first change.

        Raises:
            SnapshotNeeded: another server answers, or changes are gone from the stream: take a snapshot.
            DependencyUnavailable.
        """
        with _reaching_redis():
            run_id, last, first = self._state()
            if run_id != self._run_id or _order(last) < _order(self._position):
                raise SnapshotNeeded("another server, or one that has lost changes")
            if first is not None and _order(first) > _order(self._position) != (0, 0):
                raise SnapshotNeeded("changes are gone from the stream")
            answer: Any = self._client.xread({CATALOG_CHANGES: self._position}, 100, max(1, round(timeout_s * 1000)))
            changes: list[Change] = []
            for _, entries in answer or ():
                for position, fields in entries:
                    for name, value in fields.items():
                        changes += _from_field(name, value)
                    self._position = position
            return changes

    def close(self) -> None:
        self._client.close()

    def _state(self) -> tuple[bytes, bytes, bytes | None]:
        """The server's run, and the last and first entry of the stream."""
        server: Any = self._client.info("server")
        run_id = str(server["run_id"]).encode()
        if not self._client.exists(CATALOG_CHANGES):
            return run_id, b"0-0", None
        stream: Any = self._client.xinfo_stream(CATALOG_CHANGES)
        first = stream["first-entry"]
        return run_id, stream["last-generated-id"], first[0] if first else None

    def _vectors(self, generation: int) -> list[Change]:
        return [
            VectorChange(_number(key), generation, _vector(blob))
            for key, blob in self._scan(catalog_vectors_key(generation))
        ]

    def _scan(self, name: str) -> Iterator[tuple[bytes, bytes]]:
        cursor: Any = 0
        while True:
            answer: Any = self._client.hscan(name, cursor, count=_PAGE)
            cursor, page = answer
            yield from page.items()
            if not cursor:
                return


@contextmanager
def _reaching_redis() -> Iterator[None]:
    try:
        yield
    except (redis.RedisError, OSError) as error:
        raise DependencyUnavailable(f"the catalogue store did not answer: {described(error)}") from error


def _key(change: Change) -> bytes:
    return change.key.to_bytes(_KEY_BYTES, "little", signed=True)


def _number(key: bytes) -> int:
    return int.from_bytes(key, "little", signed=True)


def _vector(blob: bytes) -> Float32Array:
    return np.frombuffer(blob, np.float32)


def _hash_of(change: Change) -> str:
    match change:
        case ContentChange():
            return CATALOG_ITEMS
        case StockChange():
            return CATALOG_STOCK
        case VectorChange():
            return catalog_vectors_key(change.generation)


def _payload(change: Change) -> bytes:
    match change:
        case ContentChange():
            return change.stored.SerializeToString()
        case StockChange():
            return _IN_STOCK if change.in_stock else _OUT_OF_STOCK
        case VectorChange():
            return change.vector.astype(np.float32).tobytes()


def _to_field(change: Change) -> tuple[bytes, bytes]:
    """One field of the stream's entry: what kind of change of which item, and what it is now."""
    match change:
        case ContentChange():
            name = _CONTENT + _key(change)
        case StockChange():
            name = _STOCK + _key(change)
        case VectorChange():
            name = _VECTOR + _key(change) + change.generation.to_bytes(_KEY_BYTES, "little")
    return name, _payload(change)


def _from_field(name: bytes, value: bytes) -> list[Change]:
    """The change that a field of the stream says; nothing for one that a later engine wrote."""
    kind, key = name[:1], name[1 : 1 + _KEY_BYTES]
    if kind == _CONTENT:
        return _content_change(key, value)
    if kind == _STOCK:
        return [StockChange(_number(key), value == _IN_STOCK)]
    if kind == _VECTOR:
        return [VectorChange(_number(key), int.from_bytes(name[1 + _KEY_BYTES :], "little"), _vector(value))]
    return []


def _content_change(key: bytes, blob: bytes) -> list[Change]:
    try:
        return [ContentChange(_number(key), pb.StoredItem.FromString(blob))]
    except DecodeError:
        return []


def _order(position: bytes) -> tuple[int, int]:
    """A stream id as numbers, which compare as the stream is ordered."""
    milliseconds, _, number = position.partition(b"-")
    return int(milliseconds), int(number or 0)
