"""The text of a JSON value: its end, its faults, and the changes needed to store it.

Texts are changed as texts, so that numbers keep their digits and strings keep their spelling.
"""

import json
import math
import re
from collections.abc import Iterator
from typing import Any

_ESCAPE = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(\\u[dD][89a-fA-F][0-9a-fA-F]{2})|(\\u0000)|\\.",
    re.DOTALL,
)
_STRING_OR_SPACE = re.compile(r'("[^"\\]*+(?:\\.[^"\\]*+)*+")|\s+')
# A string may end where the bytes end: the next byte is not known yet
_STRING_OR_BRACKET = re.compile(rb'"[^"\\\n]*+(?:\\.[^"\\\n]*+)*+(?:"|\\?\Z)|([{\[])|([}\]])')


def decode(text: str) -> tuple[int, str | None]:
    """Position where the value at the start of the text ends, and the fault of its numbers, if any."""
    try:
        return _DECODER.raw_decode(text)[1], None
    except NotFiniteError:
        return _LENIENT_DECODER.raw_decode(text)[1], "number_not_finite"


def decode_at(text: str, position: int) -> tuple[Any, int]:
    """The value at a position, and the position after it. Numbers become floats.

    Raises:
        NotFiniteError: a number that JSON or a double cannot hold.
        ValueError: the text there is not JSON.
    """
    return _DECODER.raw_decode(text, position)


def are_values(text: str, separators: str) -> bool:
    """Whether a text holds only separators and JSON values other than objects.

    >>> are_values('"a", 5', " ,"), are_values("2031-05-05 up", " ,")
    (True, False)
    """
    position = 0
    while position < len(text):
        if text[position] in separators:
            position += 1
            continue
        try:
            value, position = _DECODER.raw_decode(text, position)
        except (ValueError, RecursionError):
            return False
        if isinstance(value, dict) or text[position : position + 1] not in {"", *separators}:
            return False
    return True


def is_too_deep(raw: bytes, most: int) -> bool:
    return (
        raw.count(b"{") + raw.count(b"[") > most
        and max(depth for _, depth in brackets(raw, 0, len(raw))) > most
    )


def brackets(data: bytes | bytearray, begin: int, end: int) -> Iterator[tuple[int, int]]:
    """For each bracket outside strings: the position after it, and the number of brackets that are open then."""
    depth = 0
    for match in _STRING_OR_BRACKET.finditer(data, begin, end):
        if match.lastindex:
            depth += 1 if match.lastindex == 1 else -1
            yield match.end(), depth


def open_object(data: bytes | bytearray, begin: int, end: int) -> int:
    """Position of the outermost object that a text leaves open; -1 if there is none.

    >>> open_object(b'INFO [x] {"a": [', 0, 16)
    9
    """
    opened: list[int] = []
    for match in _STRING_OR_BRACKET.finditer(data, begin, end):
        if match.lastindex == 1:
            opened.append(match.start())
        elif match.lastindex and opened:
            opened.pop()
    return next((position for position in opened if data[position] == ord("{")), -1)


def cleaned(
    source: str, unfold: tuple[str, ...], max_nesting: int
) -> tuple[str, tuple[str, ...]]:
    """The same JSON on a single line, with the same digits and escapes, and the names of the changes.

    Half a surrogate pair and ``\\u0000`` become ``\\ufffd``, since no database accepts them. Of equal keys, the last
    value is kept at the place of the first key, as `json`, orjson and ``jsonb`` do. Only then strings are written anew.
    """
    remarks = []
    if "\\u" in source:
        kinds = set()

        def replaced(match: re.Match[str]) -> str:
            if match.lastindex is None:
                return match[0]
            kinds.add(("lone_surrogate", "nul_character")[match.lastindex - 1])
            return "\\ufffd"

        source = _ESCAPE.sub(replaced, source)
        remarks += sorted(kinds)
    if "\n" in source or "\r" in source:
        source = _STRING_OR_SPACE.sub(lambda m: m[1] or "", source)
    if has_duplicates(source):
        source = _written(_LAST_WINS_DECODER.decode(source))
        remarks.append("duplicate_keys")
    unfolded = source
    for field in unfold:
        unfolded = _unfolded(unfolded, field, max_nesting)
    if unfolded != source and not is_too_deep(unfolded.encode(), max_nesting):
        source = unfolded
        remarks.append("unfolded")
    return source, tuple(remarks)


def decode_unique(text: str) -> Any:
    """Decoded value of the text, with numbers as text.

    Raises:
        DuplicateKeyError: an object has a key twice.
        json.JSONDecodeError: the text is not JSON.
    """
    return _UNIQUE_DECODER.decode(text)


def loaded(text: str) -> Any:
    """Decoded value of the text, for `written`. Numbers keep their digits; of equal keys the last value is kept."""
    return _LAST_WINS_DECODER.decode(text)


def written(value: Any) -> str:
    """JSON text of a value from `loaded`, on a single line."""
    return _written(value)


def number(text: str) -> Any:
    """An integer's text in the form of `loaded`'s numbers; another text unchanged."""
    return _Digits(text) if re.fullmatch(r"-?(?:0|[1-9]\d*)", text, re.ASCII) else text


def is_number(value: Any) -> bool:
    """Whether a value from `loaded` is a number."""
    return isinstance(value, _Digits)


def has_duplicates(text: str) -> bool:
    """Whether an object in the text has a key twice."""
    try:
        decode_unique(text)
    except DuplicateKeyError:
        return True
    return False


def _unfolded(source: str, field: str, max_nesting: int) -> str:
    """The event with its strings unfolded: in each field of this name, the JSON document replaces its string."""

    def unfold(match: re.Match[str]) -> str:
        inner = json.loads(match[2]).strip()
        try:
            length, reason = decode(inner)
        except (json.JSONDecodeError, RecursionError):
            return match[0]
        if reason or length < len(inner):
            return match[0]
        return match[1] + cleaned(inner, (), max_nesting)[0]

    name = re.escape(json.dumps(field))
    return re.sub(rf'({name}\s*:\s*)("\s*[\[{{](?:[^"\\]|\\.)*")', unfold, source)


class _Digits(str):
    """A number with its original digits."""

    __slots__ = ()


def _written(value: Any) -> str:
    """JSON text of a decoded value."""
    match value:
        case _Digits():
            return str(value)
        case dict():
            return (
                "{"
                + ",".join(f"{_written(key)}:{_written(item)}" for key, item in value.items())
                + "}"
            )
        case list():
            return "[" + ",".join(map(_written, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


class DuplicateKeyError(ValueError):
    """An object has a key twice."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) != len(pairs):
        raise DuplicateKeyError
    return unique


class NotFiniteError(ValueError):
    """A number that JSON or a double cannot hold."""


def _refuse_constant(_: str) -> Any:
    raise NotFiniteError


# a jsonb column accepts 16,383 digits after the point
_VANISHING = re.compile(r"[eE]-\d{5,}$")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value) or _VANISHING.search(text):
        raise NotFiniteError
    return value


# Python does not convert integers of more than 4,300 digits. As floats they are infinite, and refused here
_DECODER = json.JSONDecoder(
    parse_constant=_refuse_constant, parse_float=_finite, parse_int=_finite
)
_LENIENT_DECODER = json.JSONDecoder(parse_int=float)
_UNIQUE_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_int=str, parse_float=str)
_LAST_WINS_DECODER = json.JSONDecoder(
    parse_int=_Digits, parse_float=_Digits, parse_constant=_refuse_constant
)
