"""What the threads of this process have used: processor time, and time that they waited for a processor."""

import ctypes
import os
import threading
import time
from collections.abc import Mapping
from typing import Final, NamedTuple

_BUFFER_BYTES: Final = 96
# How often threads that have come or gone are looked for.
_REFRESH_S: Final = 1.0
_NS: Final = 1e-9


class Usage(NamedTuple):
    """Of one thread, in seconds: on a processor, and ready but without one."""

    ran: float
    waited: float


class Sample(NamedTuple):
    """All threads that can hold the interpreter, by native id, in the kernel's words; they are read when somebody asks.

    at: a time.monotonic() instant.
    """

    at: float
    threads: Mapping[int, bytes]


class ThreadUsage:
    """Reads the kernel's figures of each thread; empty ones on systems without /proc/self/task. For one thread.

    Cost: 1 to 2 µs a thread and sample. The interpreter is not let go of meanwhile: getting it back is what would take
    long when it matters.
    """

    def __init__(self) -> None:
        self.names: dict[int, str] = {}
        self._files: dict[int, int] = {}
        self._looked_at = float("-inf")
        self._buffer = ctypes.create_string_buffer(_BUFFER_BYTES)
        self._address = ctypes.addressof(self._buffer)
        libc = ctypes.PyDLL(None)
        self._pread = libc.pread
        self._pread.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_long)
        self._pread.restype = ctypes.c_ssize_t

    def sample(self) -> Sample:
        now = time.monotonic()
        if now - self._looked_at > _REFRESH_S:
            self._look_for_threads()
            self._looked_at = now
        found: dict[int, bytes] = {}
        gone: list[int] = []
        pread, address, string_at = self._pread, self._address, ctypes.string_at
        for thread, file in self._files.items():
            length = pread(file, address, _BUFFER_BYTES, 0)
            if length > 0:
                found[thread] = string_at(address, length)
            else:
                gone.append(thread)
        for thread in gone:
            self._forget(thread)
        return Sample(now, found)

    def close(self) -> None:
        for thread in list(self._files):
            self._forget(thread)

    def _look_for_threads(self) -> None:
        current = {thread.native_id: thread.name for thread in threading.enumerate() if thread.native_id is not None}
        for gone in self._files.keys() - current.keys():
            self._forget(gone)
        for thread, name in current.items():
            self.names[thread] = name
            if thread not in self._files:
                try:
                    self._files[thread] = os.open(f"/proc/self/task/{thread}/schedstat", os.O_RDONLY)
                except OSError:
                    continue

    def _forget(self, thread: int) -> None:
        os.close(self._files.pop(thread))
        self.names.pop(thread, None)


def used_between(before: Sample, after: Sample) -> dict[int, Usage]:
    """What each thread used in between; one that came meanwhile counts from its start."""
    used: dict[int, Usage] = {}
    for thread, line in after.threads.items():
        ran, waited = _read(line)
        ran_before, waited_before = _read(before.threads.get(thread, b"0 0"))
        used[thread] = Usage(ran - ran_before, waited - waited_before)
    return used


def _read(line: bytes) -> Usage:
    """Of a line of schedstat: nanoseconds that a thread ran, nanoseconds that it waited, and more."""
    ran, waited, *_ = line.split()
    return Usage(int(ran) * _NS, int(waited) * _NS)
