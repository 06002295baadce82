"""One structured line a request: failures always, successes sampled."""

import logging
import time
from dataclasses import dataclass, field
from typing import Any, Final

import grpc

logger = logging.getLogger("engine.rpc.access")

_LINE: Final = (
    "rpc method=%(method)s code=%(code)s reason=%(reason)s duration_ms=%(duration_ms).2f "
    "request_id=%(request_id)s peer=%(peer)s text=%(text)r"
)
REFUSAL_LINE_PERIOD_S = 1.0
# Whose fault it is decides how loud: a caller's mistake is no reason to wake an operator. The rest is WARNING.
_LEVEL_OF_CODE = {grpc.StatusCode.INVALID_ARGUMENT: logging.INFO, grpc.StatusCode.INTERNAL: logging.ERROR}


@dataclass(slots=True)
class Call:
    """What is known of one call while it runs. started: a time.perf_counter() instant, in seconds."""

    method: str
    context: grpc.aio.ServicerContext[Any, Any]
    request_id: str
    started: float = field(default_factory=time.perf_counter)

    @property
    def elapsed_s(self) -> float:
        return time.perf_counter() - self.started


class AccessLog:
    """Writes the lines; `record.args` is the mapping of fields, for a formatter that writes JSON.

    Args:
        sample_every: of the successes, each n-th is written at INFO; all of them at DEBUG.
    """

    def __init__(self, sample_every: int) -> None:
        self._sample_every = sample_every
        self._successes = 0
        self._unwritten_refusals = 0
        self._next_refusal_line = 0.0

    def success(self, call: Call) -> None:
        self._successes += 1
        sampled = self._successes % self._sample_every == 0
        if sampled or logger.isEnabledFor(logging.DEBUG):
            _write(logging.INFO if sampled else logging.DEBUG, call, grpc.StatusCode.OK)

    def cancelled(self, call: Call) -> None:
        """The caller has gone away, which is nobody's error."""
        if logger.isEnabledFor(logging.DEBUG):
            _write(logging.DEBUG, call, grpc.StatusCode.CANCELLED)

    def failure(self, call: Call, code: grpc.StatusCode, reason: str, error: BaseException) -> None:
        """A failed call; a traceback goes with an internal error only, since the others explain themselves."""
        text = str(error)
        if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
            # A line for each refusal would be one more load on an overloaded machine: they are counted instead.
            now = time.monotonic()
            if now < self._next_refusal_line:
                self._unwritten_refusals += 1
                return
            text = f"{text} ({self._unwritten_refusals} more since the last such line)"
            self._unwritten_refusals = 0
            self._next_refusal_line = now + REFUSAL_LINE_PERIOD_S
        trace = error if code is grpc.StatusCode.INTERNAL else None
        _write(_LEVEL_OF_CODE.get(code, logging.WARNING), call, code, reason, text, trace)


def _write(
    level: int,
    call: Call,
    code: grpc.StatusCode,
    reason: str = "",
    text: str = "",
    trace: BaseException | None = None,
) -> None:
    fields = {
        "method": call.method,
        "code": code.name,
        "reason": reason,
        "duration_ms": call.elapsed_s * 1000,
        "request_id": call.request_id,
        "peer": call.context.peer(),
        "text": text,
    }
    logger.log(level, _LINE, fields, exc_info=trace)
