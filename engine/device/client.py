"""A front end's side: a lease on a bundle in the device process, and slots for what is asked of it.

The lease is a connection that is open for as long as the bundle is in use here: the device process keeps the bundle for
as long. When it ends, the device process is gone; a thread then asks for a new lease until there is one, and what is
asked meanwhile fails at once, which the stages have fallbacks for.
"""

import json
import logging
import os
import socket
import threading
import time
import weakref
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Final

from engine.device.slot import (
    ANSWER,
    ANSWER_BYTES,
    ANSWERED,
    HELLO_BYTES,
    LATE,
    REQUEST,
    UNFOUND,
    WELCOME,
    SlotMemory,
    SlotShape,
    allocate,
)
from engine.errors import BundleError, DeadlineExceeded, DependencyUnavailable, EngineError, Overloaded
from engine.logs import OncePerInterval

log = logging.getLogger(__name__)
log.addFilter(OncePerInterval(interval_s=30.0))

_AWAY: Final = "the device process is away"
# While it is away; a start takes seconds.
_RETRY_S: Final = 0.2
# A slot's handshake waits for nothing: the bundle is there.
_HELLO_S: Final = 1.0


class DeviceClient:
    """One bundle in the device process. Safe for any number of threads; goes when nobody refers to it any more."""

    def __init__(self, path: Path, bundle: Path, shape: SlotShape, slots: int, patience_s: float = 60.0) -> None:
        """Have the bundle loaded there, and wait for it.

        Args:
            path: the device process's socket.
            bundle: the bundle's directory, as both processes see it.
            shape: of this bundle's slots.
            slots: requests at once; past it: Overloaded.
            patience_s: how long the device process may be away. Loading may take longer.

        Raises:
            BundleError: the device process refuses the bundle, and why. DependencyUnavailable: it stays away.
        """
        self._link = _Link(path, bundle, shape, slots)
        weakref.finalize(self, self._link.close)
        self._link.open(patience_s)

    def take(self) -> "Slot":
        """A slot for one request; to be used as a context manager, which gives it back.

        Raises DependencyUnavailable while the device process is away, Overloaded where all slots are in use.
        """
        return self._link.take()


class Slot:
    """The front end's end of a slot: fill `memory`, ask, read `memory`."""

    __slots__ = ("_link", "_socket", "broken", "epoch", "memory", "waiting")

    def __init__(self, link: "_Link", connection: socket.socket, memory: SlotMemory, epoch: int) -> None:
        self._link = link
        self._socket = connection
        self.memory = memory
        self.epoch = epoch
        self.waiting = self.broken = False

    def __enter__(self) -> "Slot":
        return self

    def __exit__(self, *_: object) -> None:
        self._link.give_back(self)

    def ask(self, kind: int, count: int, fresh: int, share: float, deadline: float) -> int | None:
        """Hand the slot over, and wait for the answer until the deadline (a time.monotonic() instant) at most.

        Args:
            kind, count, fresh, share: see engine.device.slot.REQUEST.

        Returns:
            How many items were answered; None where only a scan can tell.

        Raises:
            DeadlineExceeded: it passed. DependencyUnavailable: the device process has ended. EngineError: what it said.
        """
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise DeadlineExceeded("the deadline passed before the device process was asked")
        try:
            self._socket.settimeout(None if deadline == float("inf") else left_s)
            self.waiting = True
            self._socket.send(REQUEST.pack(kind, count, fresh, share, deadline))
            answer = self._socket.recv(ANSWER_BYTES)
        except TimeoutError:
            raise DeadlineExceeded("the deadline passed before the device process had an answer") from None
        except OSError:
            answer = b""
        if not answer:
            self.broken = True
            raise DependencyUnavailable(_AWAY)
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
        self._socket.setblocking(False)
        try:
            self.broken = not self._socket.recv(ANSWER_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            self.broken = True
        self.waiting = False
        return True

    def close(self) -> None:
        self._socket.close()


class _Link:
    """What a client and the thread that keeps its lease share; the thread must not keep the client itself alive."""

    def __init__(self, path: Path, bundle: Path, shape: SlotShape, limit: int) -> None:
        self._path = path
        self._shape = shape
        self._hello = json.dumps({"bundle": str(bundle), "shape": shape.to_json()}).encode()
        self._name = bundle.name
        self._limit = limit
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._lease: socket.socket | None = None
        # Slots that are of another epoch than this belong to a device process that has ended.
        self._epoch = 0
        self._opened = 0
        self._free: deque[Slot] = deque()
        self._late: list[Slot] = []

    def open(self, patience_s: float) -> None:
        give_up = time.monotonic() + patience_s
        while True:
            try:
                lease = self._ask_for_lease()
                break
            except DependencyUnavailable:
                if time.monotonic() > give_up:
                    raise
                time.sleep(_RETRY_S)
        self._use(lease)
        threading.Thread(target=self._keep, args=(lease,), name="engine-device-lease", daemon=True).start()

    def close(self) -> None:
        self._stop.set()
        with self._lock:
            lease = self._lease
            self._drop_slots()
        if lease is not None:
            _hang_up(lease)

    def take(self) -> Slot:
        with self._lock:
            if self._lease is None:
                raise DependencyUnavailable(_AWAY)
            if self._late:
                self._take_back()
            if self._free:
                return self._free.pop()
            if self._opened >= self._limit:
                raise Overloaded(f"{self._opened} requests wait for the device process")
            self._opened += 1
            epoch = self._epoch
        try:
            return self._open_slot(epoch)
        except BaseException:
            with self._lock:
                if self._epoch == epoch:
                    self._opened -= 1
            raise

    def give_back(self, slot: Slot) -> None:
        with self._lock:
            if slot.epoch != self._epoch:
                slot.close()
            elif slot.broken:
                slot.close()
                self._opened -= 1
            elif slot.waiting:
                # Its memory is not the front end's to write to until the answer is there.
                self._late.append(slot)
            else:
                self._free.append(slot)

    def _take_back(self) -> None:
        answered = [slot for slot in self._late if slot.answered_late()]
        self._late = [slot for slot in self._late if slot.waiting]
        for slot in answered:
            if slot.broken:
                slot.close()
                self._opened -= 1
            else:
                self._free.append(slot)

    def _drop_slots(self) -> None:
        """Those that are in use are closed when they are given back: their epoch is over."""
        self._epoch += 1
        self._lease = None
        for slot in (*self._free, *self._late):
            slot.close()
        self._free.clear()
        self._late.clear()
        self._opened = 0

    def _use(self, lease: socket.socket) -> None:
        with self._lock:
            self._epoch += 1
            self._lease = lease
        if self._stop.is_set():  # who closes may have looked for a lease before this one was there
            _hang_up(lease)

    def _keep(self, lease: socket.socket) -> None:
        """The lease's thread: for as long as the bundle is in use here."""
        current: socket.socket | None = lease
        while current is not None:
            current.settimeout(None)
            with suppress(OSError):
                current.recv(1)
            with self._lock:
                self._drop_slots()
            current.close()
            if self._stop.is_set():
                return
            log.warning("%s; bundle %s waits for it", _AWAY, self._name)
            current = self._wait_for_lease()
            if current is not None:
                self._use(current)
                log.info("the device process is back, bundle %s is there", self._name)

    def _wait_for_lease(self) -> socket.socket | None:
        while not self._stop.wait(_RETRY_S):
            try:
                return self._ask_for_lease()
            except DependencyUnavailable:
                continue
            except EngineError as error:
                log.error("the device process: %s", error)
        return None

    def _ask_for_lease(self) -> socket.socket:
        """Waits for as long as loading takes. Raises as DeviceClient does, without its patience."""
        return self._greet([], None)

    def _open_slot(self, epoch: int) -> Slot:
        file = allocate(self._shape)
        try:
            memory = SlotMemory(self._shape, file)
            return Slot(self, self._greet([file], _HELLO_S), memory, epoch)
        finally:
            os.close(file)  # both sides have it mapped by now

    def _greet(self, files: list[int], timeout_s: float | None) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            connection.settimeout(timeout_s)
            connection.connect(str(self._path))
            socket.send_fds(connection, [self._hello], files)
            reply = connection.recv(HELLO_BYTES)
        except BaseException as error:
            connection.close()
            if isinstance(error, OSError):
                raise DependencyUnavailable(_AWAY) from None
            raise
        if reply == WELCOME:
            return connection
        connection.close()
        if not reply:
            raise DependencyUnavailable(_AWAY)
        raise BundleError(reply.decode(errors="replace"))


def _hang_up(connection: socket.socket) -> None:
    """End a connection that another thread may be reading from: closing it would not wake that one."""
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
