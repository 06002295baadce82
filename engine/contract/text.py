"""Texts: ids, names and attributes."""

from typing import Final

from engine.errors import InvalidRequest

# Line ends and tabs, which a description may hold.
_BLANKS: Final = str.maketrans("\n\r\t", "   ")
CONTROL: Final = "must not hold control characters"
# The same two rules as regular expressions, for whole columns: Unicode category Cc, and Cc without line ends and tabs.
CONTROL_PATTERN: Final = r"\p{Cc}"
CONTROL_BUT_LINES_PATTERN: Final = r"[\x00-\x08\x0B\x0C\x0E-\x1F\x7F-\x{9F}]"


def text_fault(value: str, max_bytes: int, *, lines: bool = False) -> str | None:
    """What is wrong with an id or attribute that is not empty; None when nothing is.

    lines: line ends and tabs are allowed.
    """
    if byte_length(value) > max_bytes:
        return f"must be at most {max_bytes} bytes of UTF-8, got {byte_length(value)}"
    if lines:
        value = value.translate(_BLANKS)
    # isprintable is the fast path: it is false for every control character, and for some harmless ones too.
    if not value.isprintable() and any(_is_control(character) for character in value):
        return CONTROL
    return None


def byte_length(value: str) -> int:
    """Length in bytes of UTF-8, which is what the limits count."""
    return len(value) if value.isascii() else len(value.encode())


def checked_text(field: str, value: str, max_bytes: int, *, required: bool = False, lines: bool = False) -> str:
    """The value itself; InvalidRequest where it is too long, holds control characters, or is absent but required."""
    if not value:
        if required:
            raise InvalidRequest(field, "must not be empty")
        return value
    fault = text_fault(value, max_bytes, lines=lines)
    if fault is not None:
        raise InvalidRequest(field, fault)
    return value


def _is_control(character: str) -> bool:
    """Whether this is Unicode category Cc: C0, DEL or C1."""
    return character < " " or "\x7f" <= character <= "\x9f"
