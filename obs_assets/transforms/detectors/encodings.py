"""What may hide a value: percent encoding, escapes, entities, wide letters, base64."""

import base64
import binascii
import html
import re
from collections.abc import Iterator

from obs_assets.transforms.detectors.base import Span

BASE64 = r"(?:[A-Za-f][C-HS-Xi-ny-z0-3][ABEFIJMNQRUVYZcdghklopstwx014589][0-9A-Za-z+/_-]){3}"
"""RE2: base64 or base64url of ASCII text. Its high bits and control characters leave one group of four letters in ten
possible for random ones: trace ids and digests rarely have three such groups in a row."""

ENCODED = (
    r"%[2-7][0-9A-Fa-f]|\\u00[2-7][0-9A-Fa-f]"  # percent encoding, JSON escapes
    r"|&(?:#[0-9xX]|[A-Za-z]{2,8};)"  # HTML entities
    r"|[0-9)](?:[\x{a0}\x{2000}-\x{2015}\x{202f}\x{205f}\x{2212}\x{3000}\x{fe58}\x{fe63}]|\\+u(?:00[aA]0|20|2212|3000|[fF][eE]))"
    r"|[\x{ad}\x{200b}-\x{200d}\x{2060}\x{feff}\x{ff01}-\x{ff5e}\x{660}-\x{669}\x{6f0}-\x{6f9}\x{966}-\x{96f}]"
    r"|\\u(?:00[aA][dD]|200[b-dB-D]|2060|[fF][eE][fF][fF]|[fF]{2}[0-5]|06[6fF][0-9]|096)"
    rf"|{BASE64}"
)
"""RE2: something that may hide any other trigger: an encoding, wide digits, blanks and dashes of Unicode."""

_FOLDED = {
    **dict.fromkeys([0xA0, *range(0x2000, 0x200B), 0x202F, 0x205F, 0x3000], " "),
    **dict.fromkeys([*range(0x2010, 0x2016), 0x2212, 0xFE58, 0xFE63], "-"),
    **dict.fromkeys([0xAD, *range(0x200B, 0x200E), 0x2060, 0xFEFF], ""),
    **{code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)},
    **{zero + digit: str(digit) for zero in (0x660, 0x6F0, 0x966) for digit in range(10)},
}
"""Blanks, dashes, wide letters and other digits to what rules look for; characters without width to nothing."""

_HIDDEN = re.compile(
    r"%(?P<percent>[2-7][0-9A-Fa-f])|\\u00(?P<escape>[2-7][0-9A-Fa-f])|(?P<entity>&(?:#[0-9]{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z]{2,8});)"
    f"|(?P<folded>[{''.join(map(chr, _FOLDED))}])"
)
_MAX_ENCODINGS = 5


def reveal(text: str) -> tuple[str, list[int]] | None:
    """What a string says if its encodings are undone, and where in the string each character of that begins.

    Percent encoding, JSON escapes, HTML entities, one in the other up to five times; wide digits and letters, blanks,
    dashes and characters without width of Unicode. The offsets have one more item, the string's length. None if
    nothing is encoded.
    """
    revealed, offsets = text, list(range(len(text) + 1))
    for _ in range(_MAX_ENCODINGS):
        pieces: list[str] = []
        starts: list[int] = []
        copied = 0
        for match in _HIDDEN.finditer(revealed):
            start, end = match.span()
            plain = _revealed(match)
            pieces += [revealed[copied:start], plain]
            starts += offsets[copied:start] + [offsets[start]] * len(plain)
            copied = end
        following = "".join([*pieces, revealed[copied:]])
        if following == revealed:
            break
        revealed, offsets = following, starts + offsets[copied:]
    return (revealed, offsets) if revealed != text else None


def _revealed(match: re.Match[str]) -> str:
    if match["entity"]:
        return html.unescape(match["entity"])
    if match["folded"]:
        return _FOLDED[ord(match["folded"])]
    return chr(int(match["percent"] or match["escape"], 16))


_BASE64_RUN = re.compile(r"(?<![0-9A-Za-z+/_-])[0-9A-Za-z+/_-]{12,}={0,2}")
_BASE64_PART = re.compile(r"[0-9A-Za-z+]{12,}={0,2}|[0-9A-Za-z_-]{12,}={0,2}")


def find_base64(text: str) -> Iterator[tuple[Span, str]]:
    """The runs of base64 or base64url (RFC 4648) in a string that decode to printable text, and that text."""
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
"""Half a character, valid as an escape in JSON; RE2 takes whole ones only."""
