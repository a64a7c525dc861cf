"""Detectors for patterns from the configuration."""

import bisect
import re
from collections.abc import Callable, Iterator
from typing import Any

import re2

from obs_assets.transforms.detectors.base import DIGIT, Detector, Span, digits_of
from obs_assets.transforms.detectors.cards import passes_luhn
from obs_assets.transforms.detectors.encodings import SURROGATE
from obs_assets.transforms.detectors.ibans import find_ibans
from obs_assets.transforms.detectors.masks import ASTERISKS, SHOWN, mask_start, may_be_masked

_ASSERTION = re.compile(
    r"(?P<assertion>\^|\$|\\[AbBz])|\\.|\[\^?\]?(?:\[:\w+:\]|\\.|[^\]\\])*\]|.", re.DOTALL
)


VALIDATORS: dict[str, Callable[[str], bool]] = {
    "luhn": lambda value: bool(digits_of(value)) and passes_luhn(digits_of(value)),
    "iban": lambda value: next(find_ibans(value, ""), None) == (0, len(value)),
    "has_digit": lambda value: DIGIT.search(value) is not None,
    "has_letter_and_digit": lambda value: (
        DIGIT.search(value) is not None and re.search("[A-Za-z]", value) is not None
    ),
}
"""Name of a validator → its test of a match."""


def custom_detector(
    name: str,
    regex: str,
    flags: str,
    is_valid: Callable[[str], bool] = bool,
    replacement: str | None = None,
) -> Detector:
    """A detector for a pattern from the configuration.

    The trigger is the pattern without its assertions (``^``, ``\b``): assertions refer to the string, but a trigger
    sees the whole event. A pattern without assertions matches more, never less. A pattern may match any character, and
    an escape may hide any character, so every backslash in the raw text is a trigger too.

    Args:
        name: the type under which its values are counted.
        regex: pattern in RE2 syntax, so that no text can make it slow; for example ``EMP-[0-9]{6}``.
        flags: any of the letters ``i``, ``m`` and ``s``, as in ``(?i)``.
        is_valid: further test that a match must pass.
        replacement: text that replaces a value in every mode; None if the mode decides.

    Raises:
        ValueError: RE2 does not accept the pattern (it has no lookaround and no backreferences), or the pattern matches
            the empty text or its own replacement.
    """
    pattern = _compile(f"(?{flags}:{regex})" if flags else regex)
    if pattern.search("") is not None:
        raise ValueError(
            f"pattern {name!r} matches the empty text: it would find a value everywhere"
        )
    if replacement is not None and pattern.search(replacement) is not None:
        raise ValueError(
            f"pattern {name!r} matches its own replacement: it would find a value there again"
        )
    trigger = rf"(?s{flags.replace('s', '')}:{_without_assertions(regex)})|\\"

    def find(text: str, _key: str) -> Iterator[Span]:
        left_over = [match.span() for match in _LEFT_OVER.finditer(text)]
        for match in pattern.finditer(SURROGATE.sub("\ufffd", text)):
            start, end = match.span()
            is_new = (
                start < end
                and not _is_left_over(text, start, end, left_over)
                and not may_be_masked(text[start:end])
            )
            if is_new and is_valid(text[start:end]):
                yield start, end

    return Detector(name, trigger, find, mask_start, replacement)


def _without_assertions(regex: str) -> str:
    """Remove the assertions of a pattern. If the rest is no pattern, return the empty pattern, which always fires."""
    bare = _ASSERTION.sub(lambda part: "" if part["assertion"] else part[0], regex)
    try:
        _compile(bare)
    except ValueError:
        return ""
    return "" if r"\Q" in regex else bare


_LEFT_OVER = re.compile(r"\[REDACTED(?::[0-9a-f]{32})?\](?:#[0-9]+)?|\*\*\*#[0-9]+")


def _is_left_over(text: str, start: int, end: int, left_over: list[Span]) -> bool:
    """Whether a match lies in the result of a redaction: in a token, or beside the asterisks of a mask."""
    next_one = bisect.bisect(left_over, start, key=lambda span: span[1])
    in_token = next_one < len(left_over) and left_over[next_one][0] < end
    beside_mask = end - start <= SHOWN and ASTERISKS in (
        text[max(0, start - 3) : start],
        text[end : end + 3],
    )
    return in_token or beside_mask


def _compile(regex: str) -> Any:
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(regex, options)
    except re2.error as error:
        reason = error.args[0].decode() if isinstance(error.args[0], bytes) else str(error)
        raise ValueError(f"RE2 does not take the pattern {regex!r}: {reason}") from None
