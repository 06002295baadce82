"""Every error that the engine raises on purpose.

    EngineError
    ├── InvalidRequest          the caller's fault: a field and a reason
    ├── DeadlineExceeded        the caller has stopped waiting
    ├── Overloaded              past the concurrency limit; try another replica
    ├── DependencyUnavailable   Redis or another service is out of reach
    │   └── PositionLost        a store is not where its writer left it
    ├── ConfigError             start-up only: settings that cannot work
    │   └── RulesError          a file of business rules that cannot work: file, line and reason
    ├── DataError               a table, file or directory that cannot be used as it is
    ├── BundleError             a bundle that does not verify
    ├── RecordError             stored bytes that are truncated, damaged or of another version
    ├── SnapshotNeeded          a stream of changes does not go on where its reader left it
    ├── LogMismatch             the event log is not the one that the stored positions are of
    │   └── LogShorter          it ends before a stored position
    ├── AnotherTries            another worker is opening a bundle that none has served by yet
    └── PoisonMessage           a message of the event stream that no attempt will ever process

What a call can raise is the client's, too (engine_client.errors). This module knows no transport: one table in
engine_client.status maps those to gRPC status codes, and the command line prints all of them as one line and exits
with 2. Anything else is a bug, and is shown to callers as such.
"""

from engine_client.errors import DeadlineExceeded as DeadlineExceeded
from engine_client.errors import DependencyUnavailable as DependencyUnavailable
from engine_client.errors import EngineError as EngineError
from engine_client.errors import InvalidRequest as InvalidRequest
from engine_client.errors import Overloaded as Overloaded


def described(error: BaseException) -> str:
    """What an error of any kind says; its type where it says nothing, as a timeout or a cancellation does."""
    return str(error).strip() or type(error).__name__


class PositionLost(DependencyUnavailable):
    """A sink's store is not where the sink left it; ask for positions again and go on from there."""


class ConfigError(EngineError):
    """Settings that cannot work; raised at start-up, never inside a request."""


class RulesError(ConfigError):
    """A file of business rules that cannot work. At start-up it stops the server; later the old rules go on.

    path: the file as it was named. line: 1-based, 0 where the file as a whole is meant. reason: one sentence.
    """

    def __init__(self, path: object, line: int, reason: str) -> None:
        super().__init__(f"{path}:{line}: {reason}" if line else f"{path}: {reason}")
        self.path = str(path)
        self.line = line
        self.reason = reason


class DataError(EngineError):
    """An input table or file that cannot be used; the text names the file, column and row where known."""


class BundleError(EngineError):
    """A bundle that does not verify; the text names the file and what is wrong with it."""


class RecordError(EngineError, ValueError):
    """Stored bytes that are not what they should be."""


class SnapshotNeeded(EngineError):
    """The source of changes does not go on where its reader left it: read the whole state again."""


class LogMismatch(EngineError):
    """The log is not the one that the stored positions are of, and reading on would lose or repeat events."""


class LogShorter(LogMismatch):
    """The log ends before a stored position."""


class AnotherTries(EngineError):
    """Another worker is opening that bundle, which nobody has served by yet."""


class PoisonMessage(EngineError):
    """A message of the event stream that cannot be understood or breaks the API's rules; the text says why."""
