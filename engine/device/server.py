"""The device process's side: one thread serves all slots, batch by batch; others accept connections."""

import json
import logging
import os
import select
import signal
import socket
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from struct import error as StructError
from typing import Any, Final

from engine.batching.micro_batcher import take_batch
from engine.device.model import Answer, DeviceModel, Handler, LeasedModels, SlotRequest
from engine.device.slot import (
    ANSWER,
    ANSWERED,
    FAILED,
    HANDSHAKE_BYTES,
    LATE,
    MAX_TEXT,
    REQUEST,
    UNFOUND,
    WELCOME,
    SlotMemory,
    SlotShape,
)
from engine.errors import BundleError, EngineError, described
from engine.logs import OncePerInterval

log = logging.getLogger(__name__)
log.addFilter(OncePerInterval(interval_s=30.0))

_HANDSHAKE_S: Final = 5.0
_BACKLOG: Final = 1024


@dataclass(slots=True, eq=False)
class _Slot:
    connection: socket.socket
    memory: SlotMemory
    model: DeviceModel[Any]
    open: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class _SlotJob:
    slot: _Slot
    group: Handler
    deadline: float
    request: SlotRequest


class DeviceServer:
    """Serves front ends at a Unix socket. A context manager: front ends are let in while it lasts.

    A batch is the oldest request and the queued ones of its kind and bundle, up to a cap; it never waits for more. A
    slot holds at most one request, so that the queue is no longer than the number of slots. A slot or lease ends with
    its connection, whatever its front end died of.
    """

    def __init__(self, path: Path, models: LeasedModels[Any], max_batch: int) -> None:
        """path: of the socket; replaces one that is left over. Its directory's permissions decide who may connect."""
        self._models = models
        self._max_batch = max_batch
        self._slots: dict[int, _Slot] = {}
        self._leases: set[socket.socket] = set()
        self._queue: deque[_SlotJob] = deque()
        self._epoll = select.epoll()
        self._closing = os.eventfd(0)
        self._epoll.register(self._closing, select.EPOLLIN)
        if path.is_socket():  # of one that was killed
            path.unlink()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(str(path))
        self._listener.listen(_BACKLOG)
        self._server = threading.Thread(target=self._serve_or_end, name="engine-device", daemon=True)
        self._acceptor = threading.Thread(target=self._accept_connections, name="engine-device-acceptor", daemon=True)

    def __enter__(self) -> "DeviceServer":
        self._server.start()
        self._acceptor.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Serve what is queued, then close all connections."""
        _shut_down(self._listener)
        self._acceptor.join()
        self._listener.close()
        os.eventfd_write(self._closing, 1)
        self._server.join()
        os.close(self._closing)
        for lease in list(self._leases):
            _shut_down(lease)

    @property
    def slots(self) -> int:
        """How many are connected."""
        return len(self._slots)

    # The acceptor: its threads wait, so that the one that serves never does.

    def _accept_connections(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:  # shut down
                return
            try:
                self._shake_hands(connection)
            except EngineError as error:
                _send(connection, str(error).encode()[:HANDSHAKE_BYTES])
                connection.close()
            except Exception:  # a bad handshake must not end the acceptor
                log.exception("a front end could not be let in")
                connection.close()

    def _shake_hands(self, connection: socket.socket) -> None:
        connection.settimeout(_HANDSHAKE_S)
        message, files, _, _ = socket.recv_fds(connection, HANDSHAKE_BYTES, 1)
        try:
            handshake = json.loads(message)
            path, shape = Path(handshake["bundle"]), SlotShape(**handshake["shape"])
            if files:
                self._open_slot(connection, path, shape, files[0])
            else:
                thread = threading.Thread(target=self._lease, args=(connection, path, shape), daemon=True)
                thread.start()
        finally:
            for file in files:
                os.close(file)

    def _open_slot(self, connection: socket.socket, path: Path, shape: SlotShape, file: int) -> None:
        model = self._models.get(path)
        if model is None or model.shape != shape:
            raise EngineError(f"{path}: there is no lease on this bundle")
        slot = _Slot(connection, SlotMemory(shape, file), model)
        connection.setblocking(False)
        _send(connection, WELCOME)
        self._slots[connection.fileno()] = slot
        self._epoll.register(connection, select.EPOLLIN)

    def _lease(self, connection: socket.socket, path: Path, shape: SlotShape) -> None:
        """One lease, from its beginning to its end."""
        with connection:
            try:
                model = self._models.lease(path)
            except Exception as error:  # whatever a library or a device may raise: the front end is to know
                if not isinstance(error, EngineError):
                    log.exception("bundle %s cannot be loaded", path)
                _send(connection, f"{described(error)}".encode()[:HANDSHAKE_BYTES] or b"the bundle cannot be loaded")
                return
            try:
                if model.shape != shape:
                    fault = BundleError(f"{path}: the device process has other settings, or another bundle there")
                    _send(connection, str(fault).encode())
                    return
                connection.settimeout(None)
                self._leases.add(connection)
                _send(connection, WELCOME)
                with suppress(OSError):
                    connection.recv(1)
            finally:
                del model  # or this frame would keep it
                self._leases.discard(connection)
                self._models.give_up(path)

    # The one thread that serves.

    def _serve_or_end(self) -> None:
        try:
            self._serve()
        except Exception:  # front ends would wait for answers that never come
            log.exception("the device process ends")
            os.kill(os.getpid(), signal.SIGTERM)

    def _serve(self) -> None:
        closing = False
        while self._queue or not closing:
            for file, _ in self._epoll.poll(0 if self._queue else None):
                if file == self._closing:
                    closing = True
                    self._epoll.unregister(self._closing)
                else:
                    self._receive(self._slots[file])
            if self._queue:
                self._serve_batch()
        for slot in list(self._slots.values()):
            self._close(slot)
        self._epoll.close()

    def _receive(self, slot: _Slot) -> None:
        try:
            message = slot.connection.recv(REQUEST.size)
            if message:
                kind, count, new_count, share, deadline = REQUEST.unpack(message)
                request = SlotRequest(slot.memory, count, new_count, share)
                self._queue.append(_SlotJob(slot, slot.model.handlers[kind], deadline, request))
                return
        except BlockingIOError:
            return
        except OSError:  # it was killed
            pass
        except (StructError, KeyError):
            log.warning("a front end of another version, or no front end at all, is disconnected")
        self._close(slot)

    def _close(self, slot: _Slot) -> None:
        """Its front end is gone; a request of it that is queued is dropped."""
        slot.open = False
        del self._slots[slot.connection.fileno()]
        self._epoll.unregister(slot.connection)
        slot.connection.close()

    def _serve_batch(self) -> None:
        batch, late = take_batch(self._queue, self._max_batch, time.monotonic(), lambda job: job.slot.open)
        for job in late:
            _send(job.slot.connection, _packed(LATE, 0, "the deadline passed in the queue for the device process"))
        if not batch:
            return
        try:
            answers = batch[0].group([job.request for job in batch])
        except EngineError as error:
            answers = [error] * len(batch)
        except Exception:  # of a library or a bug: it fails this batch alone
            log.exception("a batch of %d failed", len(batch))
            answers = [EngineError("the device process failed; its log says why")] * len(batch)
        for job, answer in zip(batch, answers, strict=True):
            _send(job.slot.connection, _message(answer))


def _message(answer: Answer) -> bytes:
    if answer is None:
        return ANSWER.pack(UNFOUND, 0)
    if isinstance(answer, EngineError):
        return _packed(FAILED, 0, str(answer))
    return ANSWER.pack(ANSWERED, answer)


def _packed(status: int, count: int, text: str) -> bytes:
    return ANSWER.pack(status, count) + text.encode(errors="replace")[:MAX_TEXT]


def _send(connection: socket.socket, message: bytes) -> None:
    """A failure to send is ignored: the end of the connection shows a front end that is gone."""
    with suppress(OSError):
        connection.send(message)


def _shut_down(connection: socket.socket) -> None:
    """End a connection that a thread may wait for: closing alone would not wake that thread."""
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
