"""Encodings that may hide a value: percent encoding, escapes, entities, wide letters, base64."""

import base64
import binascii
import html
import re
from collections.abc import Iterator
from typing import NamedTuple

from obs_assets.transforms.detectors.base import Span
from obs_assets.transforms.detectors.lists import LISTS

BASE64 = r"(?:[A-Za-f][C-HS-Xi-ny-z0-3][ABEFIJMNQRUVYZcdghklopstwx014589][0-9A-Za-z+/_-]){3}"
"""RE2: base64 or base64url of ASCII text.

ASCII text has no high bits and few control characters. Only a tenth of random groups of four letters decode to such
text, so trace ids and digests rarely have three such groups in a row.
"""

HEX = r"(?:^|[^0-9A-Za-z])(?:0x)?(?:[2-7][0-9A-Fa-f]){12}"
"""RE2: hexadecimal digits of ASCII text. Of random digits, 1 group of twelve in 130,000 matches."""

ENCODED = (
    r"%[2-7][0-9A-Fa-f]|%0[9aAdD]|\\u00[2-7][0-9A-Fa-f]"  # percent encoding, JSON escapes
    r"|(?:\\u001[bB]|\\x1[bB]|\\033|\\e)\[|\\\\+[nrt][0-9A-Za-z+(:]"  # colours of a terminal, escapes as text
    r"|\\\\+x[2-7][0-9A-Fa-f]|\\u0000"  # escapes of nginx and C, UTF-16 that was read as bytes
    r"|[0-9A-Za-z]=(?:40|3[dD])"  # quoted-printable
    r"|&(?:#[0-9xX]|[A-Za-z]{2,8};)"  # HTML entities
    r"|[0-9)](?:[\x{a0}\x{2000}-\x{2015}\x{202f}\x{205f}\x{2212}\x{3000}\x{fe58}\x{fe63}]|\\+u(?:00[aA]0|20|2212|3000|[fF][eE]))"
    r"|[\x{ad}\x{200b}-\x{200d}\x{2060}\x{feff}\x{ff01}-\x{ff5e}\x{660}-\x{669}\x{6f0}-\x{6f9}\x{966}-\x{96f}]"
    r"|\\u(?:00[aA][dD]|200[b-dB-D]|2060|[fF][eE][fF][fF]|[fF]{2}[0-5]|06[6fF][0-9]|096)"
    rf"|{BASE64}|{HEX}|{LISTS}"
)
"""RE2: text that may hide any other trigger: an encoding, wide digits, or blanks and dashes of Unicode."""

_FOLDED = {
    **dict.fromkeys([0xA0, *range(0x2000, 0x200B), 0x202F, 0x205F, 0x3000], " "),
    **dict.fromkeys([*range(0x2010, 0x2016), 0x2212, 0xFE58, 0xFE63], "-"),
    **dict.fromkeys([0, 0xAD, *range(0x200B, 0x200E), 0x2060, 0xFEFF], ""),
    **{code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)},
    **{zero + digit: str(digit) for zero in (0x660, 0x6F0, 0x966) for digit in range(10)},
}
"""Code point → the plain blank, dash, letter or digit that rules look for; "" for characters without width."""

_HIDDEN = re.compile(
    r"%(?P<percent>[2-7][0-9A-Fa-f]|0[9aAdD])|\\{1,4}x(?P<byte>[2-7][0-9A-Fa-f])|\\u00(?P<escape>[2-7][0-9A-Fa-f])|\\{1,4}(?P<blank>[nrt])(?=[0-9A-Za-z+(:])"
    r"|(?P<colour>(?:\x1b|\\{1,4}(?:u001[bB]|x1[bB]|033|e))(?:\[[0-9;:?]{0,32}[A-Za-z]|\][^\x07\x1b]{0,200}(?:\x07|\x1b\\)?)?)"
    r"|(?<=[0-9A-Za-z])=(?P<printable>40|3[dD])(?=[0-9A-Za-z])"
    r"|(?P<entity>&(?:#[0-9]{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z]{2,8});)"
    f"|(?P<folded>[{''.join(map(chr, _FOLDED))}])"
)
_MAX_ENCODINGS = 5
"""Layers of encodings that are undone."""


class Revealed(NamedTuple):
    """The plain text of a string, with its encodings undone.

    Attributes:
        text: the plain text.
        starts: for each character of the plain text, the index in the string at which it begins.
        ends: for each character of the plain text, the index in the string at which it ends.
    """

    text: str
    starts: list[int]
    ends: list[int]

    def span(self, start: int, end: int) -> Span:
        """The span in the string of a span in the plain text."""
        return self.starts[start], self.ends[end - 1]


def reveal(text: str) -> Revealed | None:
    """Undo the encodings of a string: ``u%40example.com`` gives ``u@example.com``. None if nothing is encoded.

    - Percent encoding, JSON escapes, HTML entities and quoted-printable are decoded, up to five layers deep.
    - Colours of a terminal and characters without width are left out.
    - Escapes of line ends, wide digits, and blanks and dashes of Unicode become their plain forms.
    """
    if _HIDDEN.search(text) is None:
        return None
    revealed = Revealed(text, list(range(len(text))), list(range(1, len(text) + 1)))
    for _ in range(_MAX_ENCODINGS):
        pieces: list[str] = []
        starts: list[int] = []
        ends: list[int] = []
        copied = 0
        for match in _HIDDEN.finditer(revealed.text):
            begin, end = match.span()
            plain = _revealed(match)
            pieces += [revealed.text[copied:begin], plain]
            starts += revealed.starts[copied:begin] + [revealed.starts[begin]] * len(plain)
            ends += revealed.ends[copied:begin] + [revealed.ends[end - 1]] * len(plain)
            copied = end
        if not copied:
            break
        following = "".join([*pieces, revealed.text[copied:]])
        if following == revealed.text:
            break
        revealed = Revealed(
            following, starts + revealed.starts[copied:], ends + revealed.ends[copied:]
        )
    return revealed if revealed.text != text else None


def _revealed(match: re.Match[str]) -> str:
    """The plain text of a match of `_HIDDEN`: ``%40`` gives ``@``."""
    if match["entity"]:
        return html.unescape(match["entity"])
    if match["folded"]:
        return _FOLDED[ord(match["folded"])]
    if match["blank"]:
        return "\n" if match["blank"] == "n" else "\t"
    if match["colour"]:
        return ""
    digits = match["percent"] or match["byte"] or match["escape"] or match["printable"]
    return chr(int(digits, 16))


_HEX_RUN = re.compile(r"(?<![0-9A-Za-z])(?:0x)?((?:[2-7][0-9A-Fa-f]){12,})(?![0-9A-Za-z])")


def find_hex(text: str) -> Iterator[tuple[Span, str]]:
    """Spans of hexadecimal digits that decode to printable ASCII, each with the decoded text."""
    for run in _HEX_RUN.finditer(text):
        plain = bytes.fromhex(run[1]).decode("ascii")
        if plain.isprintable():
            yield run.span(1), plain


_BASE64_RUN = re.compile(r"(?<![0-9A-Za-z+/_-])[0-9A-Za-z+/_-]{12,}={0,2}")
_BASE64_PART = re.compile(r"[0-9A-Za-z+]{12,}={0,2}|[0-9A-Za-z_-]{12,}={0,2}")


def find_base64(text: str) -> Iterator[tuple[Span, str]]:
    """Spans of base64 or base64url (RFC 4648) that decode to printable text, each with the decoded text."""
    for run in _BASE64_RUN.finditer(text):
        whole = _decoded(run[0])
        if whole is not None:
            yield run.span(), whole
            continue
        for part in _BASE64_PART.finditer(
            text, *run.span()
        ):  # a part of a path or of a longer word
            if part.span() != run.span() and (inner := _decoded(part[0])) is not None:
                yield part.span(), inner


def _decoded(run: str) -> str | None:
    """The text of base64 or base64url; None if it is not printable UTF-8."""
    encoded = run.rstrip("=")
    try:
        text = base64.b64decode(
            encoded.replace("-", "+").replace("_", "/") + "=" * (-len(encoded) % 4)
        ).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
    return (
        text
        if text.replace("\n", "").replace("\r", "").replace("\t", "").isprintable()
        else None
    )


SURROGATE = re.compile(r"[\ud800-\udfff]")
"""Surrogates, which are halves of a character. JSON allows them as escapes, but RE2 accepts only whole characters."""
