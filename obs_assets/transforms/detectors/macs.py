"""Hardware addresses (MAC)."""

import re
from collections.abc import Iterator

from obs_assets.transforms.detectors.base import (
    PUNCTUATION,
    Detector,
    Span,
    merged,
    text_before,
)
from obs_assets.transforms.detectors.masks import mask_start

_PAIR = "[0-9A-Fa-f]{2}"
_MAC = re.compile(
    rf"(?<![0-9A-Za-z])(?<!\b{_PAIR}[:-])"
    rf"(?:{_PAIR}(?::{_PAIR}){{5}}|{_PAIR}(?:-{_PAIR}){{5}}|[0-9A-Fa-f]{{4}}(?:\.[0-9A-Fa-f]{{4}}){{2}})"
    r"(?![0-9A-Za-z]|[:.-][0-9A-Fa-f])"
)
_MAC_NAME = r"(?i:mac|mac[-_ ]?addr(?:ess)?|hwaddr)"
_BARE_MAC = re.compile(r"(?<![0-9A-Za-z])[0-9A-Fa-f]{12}(?![0-9A-Za-z])")
_MAC_BEFORE = re.compile(rf"(?<![A-Za-z]){_MAC_NAME}{PUNCTUATION}{{1,4}}\Z")
_MAC_TRIGGER = (
    # From the first sign on: a trigger that begins at each hexadecimal digit makes the automaton large
    rf"(?::{_PAIR}){{5}}|(?:-{_PAIR}){{5}}|[0-9A-Fa-f](?:\.[0-9A-Fa-f]{{4}}){{2}}(?:[^0-9A-Za-z]|$)"
    rf"|{_MAC_NAME}[^0-9A-Za-z]{{1,9}}[0-9A-Fa-f]{{12}}"
)
_NOBODY = frozenset(("000000000000", "ffffffffffff"))


def _find_macs(text: str, key: str) -> Iterator[Span]:
    """EUI-48 addresses in three spellings, or without separators after a name such as ``mac``.

    Longer values (fingerprints, EUI-64) and the addresses of all zeros and of broadcast are left out.
    """
    spans = []
    for match in _MAC.finditer(text):
        digits = re.sub("[:.-]", "", match[0]).lower()
        if digits not in _NOBODY and (":" in match[0] or not digits.isdecimal()):
            spans.append(match.span())
    for match in _BARE_MAC.finditer(text):
        if (
            _MAC_BEFORE.search(text_before(text, match.start(), key))
            and match[0].lower() not in _NOBODY
        ):
            spans.append(match.span())
    return merged(spans)


MAC_ADDRESS = Detector("mac_address", _MAC_TRIGGER, _find_macs, mask_start)
