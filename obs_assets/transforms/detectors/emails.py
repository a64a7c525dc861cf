"""Email addresses."""

import re
from collections.abc import Iterator

from obs_assets.transforms.detectors.base import Detector, Span
from obs_assets.transforms.detectors.masks import mask_email

_EMAIL = re.compile(r"(?<![\w.+%-])([\w.+%-]++)@((?:[\w-]++\.)+[\w-]++)")
_EMAIL_TRIGGER = r'(?:[0-9A-Za-z_.+%-]|[^\x00-\x7F])@[^\s"@]+\.'
_TOP_LEVEL = re.compile(r"xn--[0-9A-Za-z-]+|[^\W\d_]{2}[^\W_]*")
_MASKED_LOCAL = re.compile(r"[^\s*@]\*\*\*\Z")
_NO_PERSON = re.compile(r"git@.*|.*@[0-9]x\.[a-z]+", re.IGNORECASE)
"""``git@github.com:org/repo`` is how one clones, ``logo@2x.png`` a picture for dense screens."""


def _find_emails(text: str, _key: str) -> Iterator[Span]:
    """Addresses at a dotted domain whose last label has letters (RFC 5321), international ones included (RFC 6531)."""
    for match in _EMAIL.finditer(text):
        start, at = match.start(), match.end(1)
        if at - start == 1 and _MASKED_LOCAL.search(text, max(0, start - 4), start):
            continue
        end = at + 1 + _domain_length(match[2])
        if end > at + 1 and not _NO_PERSON.fullmatch(text, start, end):
            yield start, end


def _domain_length(dotted: str) -> int:
    """Where the domain ends in what follows the ``@``, such as ``example.com_2025-12-04``; 0 if it is none."""
    end = len(dotted)
    while (dot := dotted.rfind(".", 0, end)) > 0:
        if top_level := _TOP_LEVEL.match(dotted, dot + 1, end):
            return top_level.end()
        end = dot
    return 0


EMAIL = Detector("email", _EMAIL_TRIGGER, _find_emails, mask_email)
