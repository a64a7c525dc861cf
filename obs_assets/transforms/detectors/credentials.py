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
    r"(?i)(?<![0-9A-Z])(?:(?:bearer|ssws) {1,4}([0-9A-Z._~+/=-]{8,})|basic {1,4}([0-9A-Z_+/=-]{6,}))"
)
_HEADER_TRIGGER = r"(?i:bearer|ssws|basic) {1,4}[0-9A-Za-z._~+/=\\-]{6}"
_LONG_CREDENTIAL = 24
"""Characters from which a bearer token needs no digit, and a part of a webhook's path may be hexadecimal."""


_HEX_IN_PATH = 32
"""Hexadecimal digits of a key in a path. Fewer are an id."""

_PAIR = re.compile(r"[A-Za-z_]{2,40}=[^=]")
"""The next name and its value: ``token_type=Bearer expires_in=3600``."""


def _is_credential(match: re.Match[str]) -> bool:
    """Whether the text after ``Bearer`` or ``Basic`` is a credential, not prose and not another pair.

    Basic credentials are base64 of ``user:password`` (RFC 7617). Bearer tokens have no fixed form; but prose has no
    digits.
    """
    if match[1]:
        if _PAIR.match(match[1]):
            return False
        return len(match[1]) >= _LONG_CREDENTIAL or DIGIT.search(match[1]) is not None
    encoded = match[2].rstrip("=")
    try:
        return b":" in base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_")
    except binascii.Error:
        return False


_BLOCK = r"(?:[A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?|OpenVPN Static key[A-Z0-9 ]{0,9})-----"
_BEGIN = re.compile(rf"-----BEGIN {_BLOCK}|Private-Lines: [0-9]{{1,4}}(?=[\s\\])")
_END = re.compile(rf"-----END {_BLOCK}|Private-MAC: [0-9a-f]{{40,64}}")
_PRIVATE_KEY_TRIGGER = (
    r"-----BEGIN (?:[A-Z0-9 ]*PRIVATE KEY|OpenVPN Static)|Private-Lines: [0-9]"
)


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
_DRIVER_LOGIN = re.compile(
    r"(?<![\w.@/-])[\w.-]{1,64}:(?P<value>[^\s\"'@]{1,128})@(?=(?:tcp6?|unix|udp)\()"
)
"""The login of a driver of Go: ``svc:X@tcp(db-1:3306)/shop``."""

_LOGIN = re.compile(
    r"(?<![\w.@/:-])(?:[\w.-]{1,64}/)?[\w.-]{1,64}:(?P<value>[^\s\"'@:/\[\]]{8,128})@(?=[\w-]{1,64}[.\w]|\[)(?!sha[0-9])"
)
"""A login without a scheme: ``psexec.py shop/kim:X@10.1.1.1``."""

_URL_TRIGGER = (
    r':\\*/\\*/[^\s"]*(?:@|hook)|@(?:tcp6?|unix|udp)\(|[\w.-]:[^\s"@:/\[\]]{8,}@[\w\[]'
)


def _find_in_addresses(text: str, _key: str) -> Iterator[Span]:
    """Passwords and tokens before the host of a URL (RFC 3986 section 3.2.1), and secret parts of a webhook's path."""
    if "@" in text:
        found = {match.start(): match for match in _AWKWARD_PASSWORD.finditer(text)}
        found |= {match.start(): match for match in _USER_AND_PASSWORD.finditer(text)}
        found |= {match.start(): match for match in _DRIVER_LOGIN.finditer(text)}
        yield from (match.span(1) for match in found.values() if not _is_placeholder(match[1]))
        yield from (
            match.span("value")
            for match in _LOGIN.finditer(text)
            if _is_unlike_words(match["value"])
        )
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


def _is_unlike_words(value: str) -> bool:
    return is_random(value) and DIGIT.search(value) is not None and not is_hex(value)


def _is_placeholder(value: str) -> bool:
    return value.startswith(("$", "{", "%", "<")) and is_no_value(value)


_MEMBER_OF_JWK = r"(?:dp|dq|qi|[dkpq])"
_JWK = re.compile(
    rf"(?:\A|[\"'])({_MEMBER_OF_JWK})[\"'\\]{{0,9}}\s{{0,9}}:\s{{0,9}}[\"'\\]{{0,9}}(?P<value>[0-9A-Za-z_-]{{40,}})"
)
_JWK_TRIGGER = (
    rf"[^0-9A-Za-z]{_MEMBER_OF_JWK}[\"'\\]*\s*:\s*[\"'\\]*[0-9A-Za-z_-]{{40}}"
    rf"|^{_MEMBER_OF_JWK}: [0-9A-Za-z_-]{{40}}"
)


def _find_jwk(text: str, key: str) -> Iterator[Span]:
    """Private members of a JSON Web Key (RFC 7518 section 6): long base64url under a name of one or two letters."""
    named = f"{key}: {text}"
    shift = len(key) + len(": ")
    for match in _JWK.finditer(named):
        start, end = match.span("value")
        value = match["value"]
        if start >= shift and not is_hex(value) and is_random(value) and DIGIT.search(value):
            yield start - shift, end - shift


_PHRASE = re.compile(
    r"(?i:mnemonic|(?:seed|recovery|secret|backup)[ _-]?phrase|seed)[^a-z\n]{1,12}"
    r"(?P<value>(?:[a-z]{3,8} ){11,23}[a-z]{3,8})(?![a-z])"
)
_PHRASE_TRIGGER = r"(?i:mnemonic|seed|phrase)[^a-z]+(?:[a-z]{3,8} ){11}[a-z]{3}"


def _find_phrases(text: str, key: str) -> Iterator[Span]:
    """The twelve words or more from which a wallet makes its keys (BIP 39), behind their name."""
    shift = len(key) + len(": ")
    for match in _PHRASE.finditer(f"{key}: {text}"):
        start, end = match.span("value")
        if start >= shift:
            yield start - shift, end - shift


_LINK = re.compile(
    r"/(?:[a-z-]{0,20}(?:reset|confirm|verify|activate|invite|magic|unlock)[a-z-]{0,20}|invitations?|(?P<key>token|api[_-]?key|secret))"
    r"/(?P<value>[0-9A-Za-z_.-]{20,})"
)
_LINK_TRIGGER = (
    r"(?:reset|confirm|verify|activate|invite|magic|unlock|invitation|token|api[_-]?key|secret)"
    r"[a-z-]*\\*/[0-9A-Za-z_.-]{20}"
)


def _is_secret_part(match: re.Match[str]) -> bool:
    """Whether a part of the path of a link gives access by itself: ``/password/reset/`` and a random run."""
    value = match["value"]
    if is_hex(value):
        return match["key"] is not None and len(value) >= _HEX_IN_PATH
    return is_random(value) and DIGIT.search(value) is not None


LINK = Detector("api_key", _LINK_TRIGGER, matches(_LINK, _is_secret_part), mask_start)
JWK = Detector("api_key", _JWK_TRIGGER, _find_jwk, mask_all)
PHRASE = Detector("api_key", _PHRASE_TRIGGER, _find_phrases, mask_all)
PRIVATE_KEY = Detector("api_key", _PRIVATE_KEY_TRIGGER, _find_private_keys, mask_all)
URL_USER = Detector("api_key", _URL_TRIGGER, _find_in_addresses, mask_all)
HEADER = Detector("api_key", _HEADER_TRIGGER, matches(_HEADER, _is_credential), mask_start)
