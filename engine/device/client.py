"""A front end's side: a lease on a bundle in the device process, and slots for requests to it.

The lease is a connection that stays open while the bundle is in use here. The device process keeps the bundle for that
time. When the connection ends, the device process is gone. A thread then asks for a new lease until it gets one.
Requests fail at once meanwhile, and the stages fall back.
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

from engine.device.slot import AWAY, HANDSHAKE_BYTES, WELCOME, SlotMemory, SlotShape, TakenSlot, allocate
from engine.errors import BundleError, DependencyUnavailable, EngineError, Overloaded
from engine.logs import OncePerInterval

log = logging.getLogger(__name__)
log.addFilter(OncePerInterval(interval_s=30.0))

# Between attempts while the device process is away; its start takes seconds.
_RETRY_S: Final = 0.2
# Between attempts while it refuses the bundle: each attempt to load may take it seconds.
_REFUSED_RETRY_S: Final = 5.0
# A slot's handshake waits only for its turn: the bundle is loaded.
_HANDSHAKE_S: Final = 10.0


class DeviceClient:
    """One bundle in the device process. Safe for any number of threads; the lease ends with the last reference."""

    def __init__(self, path: Path, bundle: Path, shape: SlotShape, slots: int, timeout_s: float = 60.0) -> None:
        """Have the device process load the bundle, and wait for it.

        Args:
            path: the device process's socket.
            bundle: the bundle's directory, as both processes see it.
            shape: of this bundle's slots.
            slots: requests at once; past it: Overloaded.
            timeout_s: how long the device process may be away. Loading may take longer.

        Raises:
            BundleError: the device process refuses the bundle; the text says why. DependencyUnavailable: it stays away.
        """
        self._connection = _DeviceConnection(path, bundle, shape, slots)
        weakref.finalize(self, self._connection.close)
        self._connection.open(timeout_s)

    def take(self) -> TakenSlot:
        """A slot for one request; to be used as a context manager, which gives it back.

        Raises DependencyUnavailable while the device process is away, Overloaded where all slots are in use.
        """
        return self._connection.take()


class _DeviceConnection:
    """State shared by a client and its lease's thread. The thread must not keep the client itself alive."""

    def __init__(self, path: Path, bundle: Path, shape: SlotShape, limit: int) -> None:
        self._path = path
        self._shape = shape
        self._handshake = json.dumps({"bundle": str(bundle), "shape": shape.to_json()}).encode()
        self._name = bundle.name
        self._limit = limit
        # Reentrant: close() may be called while garbage is collected, wherever that happens.
        self._lock = threading.RLock()
        self._stop = threading.Event()
        self._lease: socket.socket | None = None
        # Slots of another epoch belong to a device process that has ended.
        self._epoch = 0
        self._free: deque[TakenSlot] = deque()
        self._late: list[TakenSlot] = []

    def open(self, timeout_s: float) -> None:
        give_up = time.monotonic() + timeout_s
        while True:
            try:
                lease = self._begin()
                break
            except DependencyUnavailable:
                if time.monotonic() > give_up:
                    raise
                time.sleep(_RETRY_S)
        threading.Thread(target=self._keep, args=(lease,), name="engine-device-lease", daemon=True).start()

    def close(self) -> None:
        self._stop.set()
        with self._lock:
            self._end_lease()

    def take(self) -> TakenSlot:
        with self._lock:
            if self._late:
                self._take_back()
            if self._lease is None:
                raise DependencyUnavailable(AWAY)
            if not self._free:
                raise Overloaded(f"{self._limit} requests wait for the device process")
            # The last one used: its memory is in the processor's caches, and slots that are never used take no memory.
            return self._free.pop()

    def give_back(self, slot: TakenSlot) -> None:
        with self._lock:
            if slot.epoch != self._epoch:
                slot.close()
            elif slot.broken:
                slot.close()
                self._end_lease()
            elif slot.waiting:
                # The front end must not write to its memory until the answer has arrived.
                self._late.append(slot)
            else:
                self._free.append(slot)

    def _take_back(self) -> None:
        """Take back late slots whose answers have arrived by now."""
        late, self._late = self._late, []
        for slot in late:
            (self._free if slot.answered_late() else self._late).append(slot)
        if any(slot.broken for slot in late):
            self._end_lease()

    def _end_lease(self) -> None:
        """A slot's connection ended, which ends the lease. The lease's thread notices, and asks for a new one."""
        if self._lease is not None:
            _shut_down(self._lease)
        self._drop_slots()

    def _drop_slots(self) -> None:
        """Slots in use are closed when they are given back, because their epoch is over."""
        self._epoch += 1
        self._lease = None
        for slot in (*self._free, *self._late):
            slot.close()
        self._free.clear()
        self._late.clear()

    def _begin(self) -> socket.socket:
        """Get a lease and its slots; waits until the bundle is loaded. Raises as DeviceClient does."""
        lease = self._connect([], None)
        slots: list[TakenSlot] = []
        try:
            # Opened now, so that no request waits for it.
            slots.extend(self._open_slot(self._epoch + 1) for _ in range(self._limit))
        except BaseException:
            for slot in slots:
                slot.close()
            lease.close()
            raise
        with self._lock:
            self._epoch += 1
            self._lease = lease
            self._free.extend(slots)
        if self._stop.is_set():  # close() may have run before this lease existed
            _shut_down(lease)
        return lease

    def _keep(self, lease: socket.socket) -> None:
        """The lease's thread: renews the lease while the bundle is in use here."""
        current: socket.socket | None = lease
        while current is not None:
            with suppress(OSError):
                current.recv(1)
            with self._lock:
                self._drop_slots()
            current.close()
            if self._stop.is_set():
                return
            log.warning("%s; bundle %s waits for it", AWAY, self._name)
            current = self._wait_for_lease()
            if current is not None:
                log.info("the device process is back, bundle %s is there", self._name)

    def _wait_for_lease(self) -> socket.socket | None:
        pause_s = _RETRY_S
        while not self._stop.wait(pause_s):
            try:
                return self._begin()
            except DependencyUnavailable:
                pause_s = _RETRY_S
            except EngineError as error:
                log.error("the device process refuses bundle %s, which is in use here: %s", self._name, error)
                pause_s = _REFUSED_RETRY_S
        return None

    def _open_slot(self, epoch: int) -> TakenSlot:
        file = allocate(self._shape)
        try:
            memory = SlotMemory(self._shape, file)
            return TakenSlot(self.give_back, self._connect([file], _HANDSHAKE_S), memory, epoch)
        finally:
            os.close(file)  # both sides have it mapped by now

    def _connect(self, files: list[int], timeout_s: float | None) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            connection.settimeout(timeout_s)
            connection.connect(str(self._path))
            socket.send_fds(connection, [self._handshake], files)
            reply = connection.recv(HANDSHAKE_BYTES)
        except BaseException as error:
            connection.close()
            if isinstance(error, OSError):
                raise DependencyUnavailable(AWAY) from None
            raise
        if reply == WELCOME:
            connection.settimeout(None)
            return connection
        connection.close()
        if not reply:
            raise DependencyUnavailable(AWAY)
        raise BundleError(reply.decode(errors="replace"))


def _shut_down(connection: socket.socket) -> None:
    """End a connection that another thread may be reading from: closing it would not wake that one."""
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
