"""What a detector is, and the pieces that several of them are made of."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import resources
from typing import Any, TypeAlias

Span: TypeAlias = tuple[int, int]
"""Start and end of a value in a string."""


@dataclass(frozen=True)
class Detector:
    """How one kind of value is found and masked.

    Attributes:
        type: what it is counted as.
        trigger: RE2 over raw JSON text: fires at least wherever ``find`` finds something.
        find: (string, the key it stands under or "") to the spans of the values in it, left to right.
        mask: a value to what may be shown of it; never its length.
        replacement: what is left in the value's place whatever the mode; None for what the mode says.
    """

    type: str
    trigger: str
    find: Callable[[str, str], Iterator[Span]]
    mask: Callable[[str], str]
    replacement: str | None = None


DIGIT = re.compile(r"[0-9]")

EDGE = r"(?:^|[^0-9A-Za-z]|\\[bfnrt]|\\u[0-9A-Fa-f]{4})"
"""RE2: what may stand before a word in raw JSON; the letters of an escape such as ``\n`` are no part of the word."""

NUMBER_EDGE = r"(?:^\.?|[^0-9A-Za-z.]|[^0-9]\.|\\[bfnrt]|\\u[0-9A-Fa-f]{4}\.?)"
"""RE2: the same before a number that is not the fraction of another one."""


_CONTEXT_LENGTH = 32


def text_before(text: str, start: int, key: str) -> str:
    """What a value follows; the key stands in front of the string's own beginning."""
    return (
        text[start - _CONTEXT_LENGTH : start]
        if start >= _CONTEXT_LENGTH
        else f"{key}: {text[:start]}"
    )


PUNCTUATION = r"[\t\n !-/:-@\[-`{-~]"
"""What may stand between a name and its value. No other whitespace: its JSON escape has digits, as a value has."""


def merged(spans: Iterable[Span]) -> Iterator[Span]:
    """Spans from left to right, those that overlap made one."""
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
    """The valid matches of a pattern: of its last matching group where it has groups, else whole."""

    def find(text: str, _key: str) -> Iterator[Span]:
        return (
            match.span(match.lastindex or 0) for match in pattern.finditer(text) if valid(match)
        )

    return find


def rows(table: str) -> list[list[str]]:
    """The lines of a table beside this module, cut at tabs; those that begin with ``#`` are left out."""
    text = resources.files(__package__).joinpath(table).read_text(encoding="utf-8")
    return [line.split("\t") for line in text.splitlines() if line and not line.startswith("#")]


def digits_of(value: str) -> str:
    """The digits in a value."""
    return "".join(filter(str.isdigit, value))
