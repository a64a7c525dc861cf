"""Social security numbers of the USA."""

import re
from collections.abc import Iterator

from obs_assets.transforms.detectors.base import PUNCTUATION, Detector, Span, text_before
from obs_assets.transforms.detectors.masks import mask_all

_SSN = re.compile(
    r"(?<![0-9A-Za-z-])(?!000|666|9)[0-9]{3}([ .-]?)(?!00)[0-9]{2}\1(?!0000)[0-9]{4}(?![0-9A-Za-z]|-[0-9A-Za-z])"
)
"""Area, group and serial as the Social Security Administration assigns them (20 CFR 422.103, randomized since 2011)."""

_SSN_NAME = r"(?i:ssn|social[-_ ]?security)"
_SSN_TRIGGER = rf"[0-9]{{3}}-[0-9]{{2}}-[0-9]{{4}}|{_SSN_NAME}[^0-9]*[0-9]{{3}}[ .]?[0-9]{{2}}[ .]?[0-9]{{4}}"
_SSN_BEFORE = re.compile(
    rf"{_SSN_NAME}(?:[-_ ]?(?i:number|num|no))?(?:{PUNCTUATION}{{0,4}}[A-Za-z]{{1,12}}){{0,3}}{PUNCTUATION}{{0,4}}\Z"
)


def _find_ssns(text: str, key: str) -> Iterator[Span]:
    """Social security numbers: with hyphens anywhere, without hyphens only directly after a name such as ``ssn``.

    Nine digits without hyphens may be many other things.
    """
    for match in _SSN.finditer(text):
        if match[1] == "-" or _SSN_BEFORE.search(text_before(text, match.start(), key)):
            yield match.span()


SSN = Detector("ssn", _SSN_TRIGGER, _find_ssns, mask_all)
