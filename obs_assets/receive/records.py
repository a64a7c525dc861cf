"""JSON objects in the body of a request: their positions, and the reasons why landing would refuse them."""

import codecs
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from obs_assets.events import MAX_NESTING
from obs_assets.receive.bodies import RefusedError
from obs_assets.sources.json_text import NotFiniteError, decode_at, is_too_deep

_SEPARATORS = " \t\r\n,\x1e\0"


@dataclass(frozen=True)
class Found:
    """A record of a body.

    Attributes:
        text: its JSON text on a single line; empty if it is refused.
        value: its value, numbers as floats; None if it is refused.
        reason: reason of the refusal, as dead letters name it; empty if it is accepted.
    """

    text: str
    value: Any = None
    reason: str = ""


def decoded(body: bytes) -> str:
    """The text of a body.

    Raises:
        RefusedError: it is not UTF-8.
    """
    try:
        return body.removeprefix(codecs.BOM_UTF8).decode()
    except UnicodeDecodeError:
        raise RefusedError(400, "the body is not UTF-8") from None


def objects(text: str) -> Iterator[Found]:
    """The JSON objects of a text: one, a list of objects, or objects behind each other.

    A record that is not JSON reaches to the end of its line.
    """
    position = _skip(text, 0)
    is_list = text.startswith("[", position)
    if is_list:
        position = _skip(text, position + 1)
    while position < len(text):
        if is_list and text[position] == "]":
            position = _skip(text, position + 1)
            continue
        found, end = object_at(text, position)
        yield found
        position = _skip(text, end)


def object_at(text: str, position: int, deepest: int = MAX_NESTING) -> tuple[Found, int]:
    """The record at a position, and the position after it.

    Args:
        text: the text of a body.
        position: position of the first sign of the record.
        deepest: levels of objects and lists that it may have.
    """
    try:
        value, end = decode_at(text, position)
    except NotFiniteError:
        return Found("", reason="number_not_finite"), _line_end(text, position)
    except ValueError:
        return Found("", reason="not_json"), _line_end(text, position)
    except RecursionError:
        return Found("", reason="too_deep"), _line_end(text, position)
    if not isinstance(value, dict):
        return Found("", reason="not_an_object"), end
    raw = on_one_line(text[position:end])
    if is_too_deep(raw.encode("utf-8", "surrogatepass"), deepest):
        return Found("", reason="too_deep"), end
    return Found(raw, value), end


def on_one_line(text: str) -> str:
    """JSON text without line ends: JSON allows them between values only."""
    return text.replace("\r", " ").replace("\n", " ")


def _skip(text: str, position: int) -> int:
    while position < len(text) and text[position] in _SEPARATORS:
        position += 1
    return position


def _line_end(text: str, position: int) -> int:
    end = text.find("\n", position)
    return len(text) if end < 0 else end


def first_fault(found: list[Found]) -> tuple[int, str] | None:
    """Number and reason of the first record that is refused; None if all are accepted."""
    for number, record in zip(itertools.count(), found, strict=False):
        if record.reason:
            return number, record.reason
    return None
