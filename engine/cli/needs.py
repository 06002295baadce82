"""What a command needs beyond the plain installation, checked before it starts."""

import functools
import importlib.util
from collections.abc import Callable, Collection
from typing import Final, ParamSpec, TypeVar

from engine.errors import ConfigError

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")

# The import names that the commands use of each extra of pyproject.toml.
EXTRAS: Final[dict[str, tuple[str, ...]]] = {
    "cpu": ("faiss", "onnxruntime"),
    "train": ("implicit", "onnx", "scipy", "threadpoolctl", "torch"),
    "analysis": ("duckdb", "jinja2", "scipy"),
}


def needs(*extras: str) -> Callable[[Callable[_Arguments, _Result]], Callable[_Arguments, _Result]]:
    """Make a command say at once which extras it lacks, rather than in the middle of its work."""

    def decorate(command: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
        @functools.wraps(command)
        def checked(*arguments: _Arguments.args, **options: _Arguments.kwargs) -> _Result:
            check_extras(extras)
            return command(*arguments, **options)

        checked.extras = extras  # type: ignore[attr-defined]  # what the tests hold against the imports
        return checked

    return decorate


def check_extras(extras: Collection[str]) -> None:
    """Raises ConfigError with the packages that are not there and what installs them. Imports none of them."""
    lacking = {extra: [name for name in EXTRAS[extra] if not _is_there(name)] for extra in extras}
    wanted = [extra for extra, names in lacking.items() if names]
    if wanted:
        names = dict.fromkeys(name for names in lacking.values() for name in names)
        raise ConfigError(
            f"this command needs {', '.join(names)}, not installed here: "
            f"pip install 'personalization-engine[{','.join(wanted)}]', or '.[{','.join(wanted)}]' in a checkout"
            + ("; on a GPU, gpu instead of cpu" if "cpu" in wanted else "")
        )


def extra_of(module: str) -> str | None:
    """The extra that brings a module; None where no extra does."""
    name = module.split(".")[0]
    return next((extra for extra, names in EXTRAS.items() if name in names), None)


def _is_there(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ModuleNotFoundError, ValueError):
        return False
