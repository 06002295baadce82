"""One process of a supervisor: its start, the lines that it sends, and its exit reason."""

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from engine.app.heartbeat import Pulse, states

log = logging.getLogger(__name__)

FAILED: Final = "failed"
# Has a process write the stacks of its threads to its log.
STACKS_SIGNAL: Final = signal.SIGUSR2
# How long a process that is killed for its silence has to write them.
_STACKS_S: Final = 0.2
# How long its lines are read after its end.
_EXIT_REASON_S: Final = 1.0


class Child:
    """A process and its state.

    served_since: a time.monotonic() instant; None before it serves. served_s: seconds of service, once it has ended;
    None if it never served. silent: it does not answer, and does not count as serving. dead: it was killed for that.
    how: the exit reason; completes a sentence after "ended".
    """

    def __init__(self, process: asyncio.subprocess.Process, pulse: Pulse) -> None:
        self._process = process
        self.pulse = pulse
        self.served_since: float | None = None
        self.served_s: float | None = None
        self.silent = self.dead = False
        self.how = ""

    @classmethod
    async def start(cls, command: Sequence[str], environment: Mapping[str, str], pulse: Pulse) -> "Child":
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            # Ctrl-C in a terminal reaches the whole group; to a worker the supervisor alone says when to end, once.
            start_new_session=True,
            env=environment,
        )
        return cls(process, pulse)

    @property
    def process_id(self) -> int:
        return self._process.pid

    async def live(
        self, settings: str, heard: Callable[[str], None], told_to_end: asyncio.Event, timeout_s: float
    ) -> None:
        """Send the settings, and read its lines until it ends.

        Args:
            heard: called with every line but the exit reason.
            told_to_end: once set, the process has `timeout_s` seconds to end.
        """
        listening = asyncio.create_task(self._listen(heard))
        try:
            await self._instruct(settings)
            code = await self._end(told_to_end, timeout_s)
            await asyncio.wait((listening,), timeout=_EXIT_REASON_S)
        finally:
            listening.cancel()
            if self._process.returncode is None:
                self._process.kill()
                await self._process.wait()
        self.how = self.how or (f"by {signal.Signals(-code).name}" if code < 0 else f"with exit status {code}")
        self.served_s = None if self.served_since is None else time.monotonic() - self.served_since

    def signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    def give_up(self) -> None:
        """Kill it for its silence. Its stacks go to its log before, unless it is stopped and could not write them."""
        self.dead = True
        self.how = f"by SIGKILL: its event loop did not answer for {self.pulse.silent_s:.1f} s"
        if "T" in states(self.process_id):
            self.signal(signal.SIGKILL)
            return
        self.signal(STACKS_SIGNAL)
        asyncio.get_running_loop().call_later(_STACKS_S, self.signal, signal.SIGKILL)

    async def _instruct(self, settings: str) -> None:
        assert self._process.stdin is not None
        # It may have ended already; the exit status says how.
        with contextlib.suppress(ConnectionError):
            self._process.stdin.write(settings.encode() + b"\n")
            await self._process.stdin.drain()

    async def _listen(self, heard: Callable[[str], None]) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            words = line.decode(errors="replace").strip()
            if words.startswith(FAILED):
                self.how = self.how or f"saying: {words.removeprefix(FAILED).strip()}"
            else:
                self.pulse.beat(words)
                heard(words)

    async def _end(self, told_to_end: asyncio.Event, timeout_s: float) -> int:
        """Wait for its end; once told to stop, for a bounded time."""
        ended = asyncio.ensure_future(self._process.wait())
        stopping = asyncio.ensure_future(told_to_end.wait())
        await asyncio.wait((ended, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        try:
            return await asyncio.wait_for(ended, None if ended.done() else timeout_s)
        except TimeoutError:
            log.error("process %d does not end, and is killed", self.process_id)
            self._process.kill()
            return await self._process.wait()
