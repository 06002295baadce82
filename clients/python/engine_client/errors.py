"""What a call can raise.

EngineError
├── InvalidRequest          a field of the request is wrong: INVALID_ARGUMENT
├── DeadlineExceeded        no answer in time: DEADLINE_EXCEEDED
├── Overloaded              the server is past its limit: RESOURCE_EXHAUSTED
└── DependencyUnavailable   no server, or the server lacks a service that it needs: UNAVAILABLE
"""


class EngineError(Exception):
    """Base of the tree; str() is one sentence for the user who must act on it."""


class InvalidRequest(EngineError):
    """A request field is wrong. `field` is its path in the API message, `reason` what is wrong with it."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


class DeadlineExceeded(EngineError):
    """The caller's deadline passed before an answer was ready."""


class Overloaded(EngineError):
    """The server has as many requests as it answers in time; nothing was started for this one.

    retry_after_s: when the same server is likely to have a place; None where it does not say.
    """

    def __init__(self, sentence: str, retry_after_s: float | None = None) -> None:
        super().__init__(sentence)
        self.retry_after_s = retry_after_s


class DependencyUnavailable(EngineError):
    """A service that the engine depends on cannot be reached, or the engine itself cannot."""
