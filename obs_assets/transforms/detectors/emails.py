"""Email addresses."""

import re
from collections.abc import Iterator

from obs_assets.transforms.detectors.base import Detector, Span
from obs_assets.transforms.detectors.masks import ASTERISKS, mask_email

_LONGEST_LOCAL = 256
_LOCAL = re.compile(r"(?:[\w.+%=-]|(?<=\w)'(?=\w)){1,256}\Z")
_LOCAL_IN_BRACKETS = re.compile(r"<([^\s<>@\"()\[\],;:\\]{1,256})\Z")
"""RFC 5321 section 4.1.2 allows ``/``, ``=``, ``!`` and other signs; in running text these signs are separators."""

_QUOTED_LOCAL = re.compile(r'"(?:[^"\\\n]|\\.){1,128}"\Z')
_RETURN_PATH = re.compile(r"(?i)(?:SRS[01][=+-].*|.*[+-][\w.+%-]+=[\w-]+(?:\.[\w-]+)+)\Z")
"""VERP and SRS: the address of a list or a forwarder holds the address of a person, with ``=`` instead of ``@``."""

_DOMAIN = re.compile(r"[\w-]{1,63}(?:\.[\w-]{1,63}){1,20}")
_LITERAL = re.compile(r"\[(?:IPv6:)?[0-9A-Fa-f:.]{3,45}\]")
_EMAIL_TRIGGER = r'[^\s@]@(?:[^\s"@]+\.|\[(?i:ipv6:)?[0-9A-Fa-f])'
_TOP_LEVEL = re.compile(r"xn--[0-9A-Za-z-]+|[^\W\d_]{2}[^\W_]*")
_MASKED_LOCAL = re.compile(r"[^\s*@]\*\*\*\Z")
_NO_PERSON = re.compile(r"git@.*|.*@[0-9]x\.[a-z]+", re.IGNORECASE)
"""``git@github.com:org/repo`` is the address of a repository, ``logo@2x.png`` a picture for dense screens."""


def _find_emails(text: str, _key: str) -> Iterator[Span]:
    """E-mail addresses (RFC 5321), also international addresses.

    After the ``@`` stands a dotted domain whose last label has letters, or an address literal such as ``[10.0.0.1]``.
    """
    at, done = text.find("@"), 0
    while at >= 0:
        end = _end_of_domain(text, at + 1)
        start = _start_of_local(text, at, done) if end else None
        if start is not None and end and not _NO_PERSON.fullmatch(text, start, end):
            yield start, end
            done = end
        at = text.find("@", at + 1)


def _start_of_local(text: str, at: int, done: int) -> int | None:
    """Index at which the part before the ``@`` begins; None if there is no such part, or if it is masked."""
    before = text[max(done, at - _LONGEST_LOCAL) : at]
    match = _LOCAL_IN_BRACKETS.search(before)
    if match:
        return None if ASTERISKS in match[1] else at - len(match[1])
    match = _QUOTED_LOCAL.search(before) if before.endswith('"') else _LOCAL.search(before)
    if match is None:
        return None
    local = match[0]
    if local.startswith('"') and ASTERISKS in local:
        return None
    if not local.startswith('"') and "=" in local and not _RETURN_PATH.match(local):
        local = local.rpartition("=")[2]
    start = at - len(local)
    is_mask = (
        len(local) == 1 and _MASKED_LOCAL.search(text, max(0, start - 4), start) is not None
    )
    return None if is_mask or not local else start


def _end_of_domain(text: str, start: int) -> int | None:
    """End of the domain behind an ``@``: in ``example.com_2025-12-04`` after ``com``; None if there is no domain."""
    if literal := _LITERAL.match(text, start):
        return literal.end()
    domain = _DOMAIN.match(text, start)
    if domain is None:
        return None
    dotted, end = domain[0], len(domain[0])
    while (dot := dotted.rfind(".", 0, end)) > 0:
        if top_level := _TOP_LEVEL.match(dotted, dot + 1, end):
            return start + top_level.end()
        end = dot
    return None


EMAIL = Detector("email", _EMAIL_TRIGGER, _find_emails, mask_email)
