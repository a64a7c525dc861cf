"""The class of detectors, and functions that several detectors share."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import resources
from typing import Any, TypeAlias

Span: TypeAlias = tuple[int, int]
"""Start and end of a value in a string."""


@dataclass(frozen=True)
class Detector:
    """Finds and masks the values of a type.

    Attributes:
        type: the type under which values are counted, such as ``email``.
        trigger: RE2 pattern over raw JSON text; it fires at least where ``find`` finds a value.
        find: (string, its key or "") → spans of the values in the string, from left to right.
        mask: value → the part of it that may be shown; it never shows the length of the value.
        replacement: text that replaces the value in every mode; None if the mode decides.
    """

    type: str
    trigger: str
    find: Callable[[str, str], Iterator[Span]]
    mask: Callable[[str], str]
    replacement: str | None = None


DIGIT = re.compile(r"[0-9]")

EDGE = r"(?:^|[^0-9A-Za-z]|\\[bfnrt]|\\u[0-9A-Fa-f]{4})"
"""RE2: text that may stand before a word in raw JSON. The letter of an escape such as ``\n`` is no part of the word."""

NUMBER_EDGE = r"(?:^\.?|[^0-9A-Za-z.]|[^0-9]\.|\\[bfnrt]|\\u[0-9A-Fa-f]{4}\.?)"
"""RE2: text that may stand before a number, if the number is not the fraction of another number."""


_CONTEXT_LENGTH = 32
"""Characters before a value in which a rule looks for a word such as ``phone``."""


def text_before(text: str, start: int, key: str) -> str:
    """The text before a value.

    Near the beginning of the string, the key comes first: ``("call 5", 5, "phone")`` gives ``phone: call ``.
    """
    return (
        text[start - _CONTEXT_LENGTH : start]
        if start >= _CONTEXT_LENGTH
        else f"{key}: {text[:start]}"
    )


PUNCTUATION = r"[\t\n !-/:-@\[-`{-~]"
"""Signs that may stand between a name and its value.

Other whitespace is left out: its JSON escape has digits, which would look like the beginning of the value.
"""


def merged(spans: Iterable[Span]) -> Iterator[Span]:
    """Sort spans from left to right, and join spans that overlap."""
    joined: list[Span] = []
    for start, end in sorted(spans):
        if joined and start < joined[-1][1]:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((start, end))
    return iter(joined)


def matches(
    pattern: re.Pattern[str], valid: Callable[[re.Match[str]], Any] = bool
) -> Callable[[str, str], Iterator[Span]]:
    """A ``find`` for the valid matches of a pattern: the span of its last matching group, or of the match."""

    def find(text: str, _key: str) -> Iterator[Span]:
        return (
            match.span(match.lastindex or 0) for match in pattern.finditer(text) if valid(match)
        )

    return find


def rows(table: str) -> list[list[str]]:
    """The lines of a table beside this module, split at tabs. Lines that begin with ``#`` are left out."""
    text = resources.files(__package__).joinpath(table).read_text(encoding="utf-8")
    return [line.split("\t") for line in text.splitlines() if line and not line.startswith("#")]


def digits_of(value: str) -> str:
    """The digits of a value: ``4111-22`` gives ``411122``."""
    return "".join(filter(str.isdigit, value))
