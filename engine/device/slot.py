"""A slot: the shared memory of one request at a time, and the messages that hand it over.

A slot belongs to one connection (a Unix socket that keeps message boundaries) between a front end and the device
process. The arrays lie in memory that both have mapped. One short message says that the request is there, another that
the answer is. Between the two the front end does not touch the arrays, so that the memory itself holds no state.
"""

import math
import mmap
import os
import select
import socket
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from struct import Struct
from typing import Any, Final

import numpy as np

from engine.errors import DeadlineExceeded, DependencyUnavailable, EngineError
from engine.types import Float32Array, Int64Array, UInt8Array

SEARCH: Final = 1
RANK: Final = 2

# kind, items wanted or candidates, how many of those are new, share of eligible items, deadline (time.monotonic()).
REQUEST: Final = Struct("<Bqqdd")

# An answer: how it went, and how many items; a sentence follows where it failed.
ANSWER: Final = Struct("<Bq")
ANSWERED, UNFOUND, LATE, FAILED = 0, 1, 2, 3
MAX_TEXT: Final = 1024
ANSWER_BYTES: Final = ANSWER.size + MAX_TEXT

# What a connection begins with: JSON of the bundle's path and the slot's shape. The answer is WELCOME, or a sentence.
HANDSHAKE_BYTES: Final = 16_384
WELCOME: Final = b"welcome"
AWAY: Final = "the device process is away"

_ALIGNMENT: Final = 64


@dataclass(frozen=True, slots=True)
class SlotShape:
    """The sizes of a slot's arrays. A connection with other sizes on the two sides is refused.

    dim, collaborative_dim, dense_dim, code_count: of a request's vectors. item_count: items of the index, which
    bitmaps are about. row_count: rows of the catalogue, and most candidates of a request.
    """

    dim: int
    collaborative_dim: int
    dense_dim: int
    code_count: int
    item_count: int
    row_count: int

    def to_json(self) -> dict[str, int]:
        return asdict(self)

    def fields(self) -> dict[str, tuple[Any, int]]:
        """Each array's dtype and length, in the order in which they lie in memory."""
        return {
            "query": (np.float32, self.dim),
            "session": (np.float32, self.dim),
            "collaborative": (np.float32, self.collaborative_dim),
            "dense": (np.float32, self.dense_dim),
            "codes": (np.int64, self.code_count),
            "eligible": (np.uint8, (self.item_count + 7) // 8),
            "candidates": (np.int64, self.row_count),
            "new_item_keys": (np.int64, self.row_count),
            "found": (np.int64, self.row_count),
            "scores": (np.float32, self.row_count),
        }

    @property
    def size(self) -> int:
        """Bytes of a slot. Only pages that were written to take memory: the bitmap, and as many rows as are used."""
        return max(_ALIGNMENT, sum(_aligned(np.dtype(dtype).itemsize * n) for dtype, n in self.fields().values()))


class SlotMemory:
    """The arrays of a slot, as views of its shared memory.

    query, session, collaborative, dense: float32. codes: int64. eligible: uint8, a bitmap.
    candidates: int64, rows; those of new items are the front end's own and mean nothing to another process.
    new_item_keys: int64, the keys of the new items among the candidates, in order. found: int64, rows. scores: float32.
    """

    query: Float32Array
    session: Float32Array
    collaborative: Float32Array
    dense: Float32Array
    codes: Int64Array
    eligible: UInt8Array
    candidates: Int64Array
    new_item_keys: Int64Array
    found: Int64Array
    scores: Float32Array

    def __init__(self, shape: SlotShape, file: int) -> None:
        """Map a file that allocate() made. Raises ValueError or OSError where it is too short."""
        memory, offset = mmap.mmap(file, shape.size), 0
        for name, (dtype, length) in shape.fields().items():
            setattr(self, name, np.ndarray(length, dtype, memory, offset))
            offset += _aligned(np.dtype(dtype).itemsize * length)


def allocate(shape: SlotShape) -> int:
    """Memory of one slot, as the descriptor of a file without a name; it goes when the last mapping does."""
    file = os.memfd_create("engine-slot", os.MFD_CLOEXEC)
    os.ftruncate(file, shape.size)
    return file


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


class TakenSlot:
    """The front end's end of a slot: fill `memory`, ask, read `memory`."""

    __slots__ = ("_give_back", "_readable", "_socket", "broken", "epoch", "memory", "waiting")

    def __init__(
        self,
        give_back: "Callable[[TakenSlot], None]",
        connection: socket.socket,
        memory: SlotMemory,
        epoch: int,
    ) -> None:
        self._give_back = give_back
        self._socket = connection
        self._readable = select.poll()
        self._readable.register(connection, select.POLLIN)
        self.memory = memory
        self.epoch = epoch
        self.waiting = self.broken = False

    def __enter__(self) -> "TakenSlot":
        return self

    def __exit__(self, *_: object) -> None:
        self._give_back(self)

    def ask(self, kind: int, count: int, new_count: int, share: float, deadline: float) -> int | None:
        """Hand the slot over, and wait for the answer until the deadline (a time.monotonic() instant) at most.

        Args:
            kind, count, new_count, share: see REQUEST.

        Returns:
            How many items were answered; None where only a scan can tell.

        Raises:
            DeadlineExceeded: it passed. DependencyUnavailable: the device process has ended. EngineError: what it said.
        """
        if deadline <= time.monotonic():
            raise DeadlineExceeded("the deadline passed before the device process was asked")
        self.waiting = True
        try:
            self._socket.send(REQUEST.pack(kind, count, new_count, share, deadline))
            if not self._readable.poll(_left_ms(deadline)):
                raise DeadlineExceeded("the deadline passed before the device process had an answer")
            answer = self._socket.recv(ANSWER_BYTES)
        except OSError:
            answer = b""
        if not answer:
            self.broken = True
            raise DependencyUnavailable(AWAY)
        self.waiting = False
        status, answered = ANSWER.unpack_from(answer)
        if status == ANSWERED:
            return int(answered)
        if status == UNFOUND:
            return None
        text = answer[ANSWER.size :].decode(errors="replace")
        raise DeadlineExceeded(text) if status == LATE else EngineError(text)

    def answered_late(self) -> bool:
        """Whether the answer that nobody waited for is there by now, or never will be."""
        if not self._readable.poll(0):
            return False
        self.waiting = False
        try:
            self.broken = not self._socket.recv(ANSWER_BYTES)
        except OSError:
            self.broken = True
        return True

    def close(self) -> None:
        self._socket.close()


def _left_ms(deadline: float) -> int | None:
    return None if deadline == float("inf") else max(0, math.ceil((deadline - time.monotonic()) * 1000))
