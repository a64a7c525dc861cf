"""Texts as lists of bytes or letters, as Node and Python print them: ``[112,97,115,115]``, ``["p","a","s","s"]``."""

import json
import re
from collections.abc import Iterator

from obs_assets.transforms.detectors.base import Span

_ASCII_BYTE = "(?:9|1[03]|3[2-9]|[4-9][0-9]|1[01][0-9]|12[0-6])"
_LETTER = r"(?:\"(?:[^\"\\]|\\[^u]|\\u[0-9A-Fa-f]{4})\"|'[^'\\]')"
_PAIR = "[2-7][0-9A-Fa-f]"

LISTS = (
    rf"\[\s?(?:{_ASCII_BYTE}\s?,\s?){{7}}{_ASCII_BYTE}"
    r"|\[\s?(?:(?:\\{0,15}\"[^\"\\]\\{0,15}\"|'[^'\"]')\s?,\s?){7}"
    rf"|<Buffer(?: {_PAIR}){{8}}"
)
"""RE2: the beginning of such a list: eight bytes of ASCII text or seven letters."""


def _list_of(element: str, times: str) -> str:
    """A pattern for a list. An atomic group keeps it linear, as in `obs_assets.transforms.redact.walk`."""
    return rf"\[\s{{0,8}}(?>(?>(?:{element}\s{{0,8}},\s{{0,8}}){{1,500}})*){element}\s{{0,8}}\]{times}"


LIST = re.compile(
    rf"(?=\[\s{{0,8}}(?:{_ASCII_BYTE}\s{{0,8}},|[\"'])){_list_of('[0-9]{1,3}(?![0-9.])', '')}"
    rf"|{_list_of(_LETTER, '')}"
)
"""A list of numbers of at most three digits, or of letters in quotes."""

_BUFFER = re.compile(r"<Buffer((?: [0-9A-Fa-f]{2}){8,60})")
_ELEMENT = re.compile(rf"[0-9]{{1,3}}|{_LETTER}")
_FEWEST = 8
"""Elements of a list that may be a text."""


def text_of(literal: str) -> str | None:
    """The text that a list stands for: ``[104,105,…]`` gives ``hi…``; None if it stands for no text.

    Args:
        literal: a match of `LIST`.
    """
    elements = _ELEMENT.findall(literal)
    if len(elements) < _FEWEST:
        return None
    if not elements[0].isdigit():
        return "".join(_letter(element) for element in elements)
    try:
        text = bytes(map(int, elements)).decode()
    except ValueError:  # a number above 255, or no UTF-8
        return None
    return text if _is_printable(text) else None


def _letter(literal: str) -> str:
    return str(json.loads(literal)) if literal[0] == '"' else literal[1:-1]


def _is_printable(text: str) -> bool:
    return text.replace("\n", "").replace("\r", "").replace("\t", "").isprintable()


def list_of(text: str, like: str) -> str:
    """A list of the same kind that stands for another text: bytes as bytes, letters as a list of one string.

    Args:
        text: the new text.
        like: the list that is replaced, a match of `LIST`.
    """
    if '"' in like:
        return json.dumps([text])
    return json.dumps(list(text.encode("utf-8", "surrogatepass")), separators=(",", ":"))


def find_lists(text: str) -> Iterator[tuple[Span, str]]:
    """Spans of such lists in a string, each with the text that it stands for."""
    if "[" in text:
        for match in LIST.finditer(text):
            if plain := text_of(match[0]):
                yield match.span(), plain
    if "<Buffer" in text:
        for match in _BUFFER.finditer(text):
            plain = bytes.fromhex(match[1]).decode("latin-1")
            yield match.span(1), plain
