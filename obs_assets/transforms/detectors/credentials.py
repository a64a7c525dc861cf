"""Credentials that are recognized by the text around them: headers, private keys, addresses."""

import base64
import binascii
import re
from collections.abc import Iterator

from obs_assets.transforms.detectors.base import DIGIT, Detector, Span, matches
from obs_assets.transforms.detectors.masks import mask_all, mask_start
from obs_assets.transforms.detectors.randomness import is_hex, is_random
from obs_assets.transforms.detectors.values import is_no_value

_HEADER = re.compile(
    r"(?i)(?<![0-9A-Z])(?:bearer {1,4}([0-9A-Z._~+/=-]{8,})|basic {1,4}([0-9A-Z_+/=-]{6,}))"
)
_HEADER_TRIGGER = r"(?i:bearer|basic) {1,4}[0-9A-Za-z._~+/=\\-]{6}"
_LONG_CREDENTIAL = 24
"""Characters from which a bearer token needs no digit, and a part of a webhook's path may be hexadecimal."""


def _is_credential(match: re.Match[str]) -> bool:
    """Whether the text after ``Bearer`` or ``Basic`` is a credential and not prose.

    Basic credentials are base64 of ``user:password`` (RFC 7617). Bearer tokens have no fixed form; but prose has no
    digits.
    """
    if match[1]:
        return len(match[1]) >= _LONG_CREDENTIAL or DIGIT.search(match[1]) is not None
    encoded = match[2].rstrip("=")
    try:
        return b":" in base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_")
    except binascii.Error:
        return False


_BEGIN = re.compile(
    r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----|Private-Lines: [0-9]{1,4}(?=[\s\\])"
)
_END = re.compile(
    r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----|Private-MAC: [0-9a-f]{40,64}"
)
_PRIVATE_KEY_TRIGGER = r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY|Private-Lines: [0-9]"


def _find_private_keys(text: str, _key: str) -> Iterator[Span]:
    """Private keys in PEM (RFC 7468) and of PuTTY. A block without its last line ends at the end of the string."""
    position = 0
    while begin := _BEGIN.search(text, position):
        end = _END.search(text, begin.end())
        position = end.end() if end else len(text)
        yield begin.start(), position


_USER_AND_PASSWORD = re.compile(r"""://[^\s/?#:@"'\[]{0,256}:([^\s/?#"']{1,512})@""")
_AWKWARD_PASSWORD = re.compile(
    r"""://[^\s/?#:@"'\[]{0,256}:(?![0-9]{1,5}[/?#])([^\s"'<>@]{1,128})@(?=[\w.-]{1,255}(?::[0-9]|[/?#\s]|\Z))"""
)
"""A password with signs that should be percent-encoded: ``amqp://svc:kelp/4#7@mq-1:5672``."""

_USER = re.compile(r"""://([^\s/?#:@"'\[]{16,512})(?::x-oauth-basic|:)?@""")
_HOOK = re.compile(r"""://[^\s"'<>]{0,120}hook[^\s"'<>?#]{0,400}""")
_SEGMENT = re.compile(r"[^/]{16,}")
_URL_TRIGGER = r':\\*/\\*/[^\s"]*(?:@|hook)'


def _find_in_addresses(text: str, _key: str) -> Iterator[Span]:
    """Passwords and tokens before the host of a URL (RFC 3986 section 3.2.1), and secret parts of a webhook's path."""
    if "@" in text:
        found = {match.start(): match for match in _AWKWARD_PASSWORD.finditer(text)}
        found |= {match.start(): match for match in _USER_AND_PASSWORD.finditer(text)}
        yield from (match.span(1) for match in found.values() if not _is_placeholder(match[1]))
        yield from (
            match.span(1)
            for match in _USER.finditer(text)
            if is_random(match[1]) and DIGIT.search(match[1])
        )
    if "hook" in text:
        for hook in _HOOK.finditer(text):
            inner = hook[0].find("hook")
            for segment in _SEGMENT.finditer(hook[0], inner):
                value = segment[0]
                if is_random(value) or (len(value) >= _LONG_CREDENTIAL and is_hex(value)):
                    yield hook.start() + segment.start(), hook.start() + segment.end()


def _is_placeholder(value: str) -> bool:
    return value.startswith(("$", "{", "%", "<")) and is_no_value(value)


PRIVATE_KEY = Detector("api_key", _PRIVATE_KEY_TRIGGER, _find_private_keys, mask_all)
URL_USER = Detector("api_key", _URL_TRIGGER, _find_in_addresses, mask_all)
HEADER = Detector("api_key", _HEADER_TRIGGER, matches(_HEADER, _is_credential), mask_start)
