"""IP addresses."""

import ipaddress
import re
from collections.abc import Iterator

from obs_assets.transforms.detectors.base import (
    NUMBER_EDGE,
    Detector,
    Span,
    merged,
    text_before,
)
from obs_assets.transforms.detectors.masks import mask_start

_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4 = re.compile(
    rf"(?<![0-9A-Za-z~])(?<![0-9]\.)(?:{_OCTET}\.){{3}}{_OCTET}"
    r"(?![0-9A-Za-z]|\.[0-9]|-(?i:alpha|beta|dev|pre|rc|snapshot))"
)
_IPV4_TRIGGER = (
    rf"{NUMBER_EDGE}(?:[0-9]{{1,3}}\.){{3}}[0-9]{{1,3}}(?:[^0-9A-Za-z.]|\.[^0-9]|\.?$)"
)
_VERSION_WORD = re.compile(
    r"(?:(?<![A-Za-z])(?i:version|ver|v|release|rel|build|revision|rev|rv|firmware|section)"
    r"|[a-z](?:Version|Release|Build|Revision))\Z"
)
_VERSION_WORD_LENGTH = 10
"""Characters before four numbers in which a word such as ``version`` is searched for."""

_PRODUCT_BEFORE = re.compile(
    r"(?<![\w.-])(?!(?:Host|Server|Client|Address|IP|Peer|Remote|Node)/)[A-Z][A-Za-z]*/\Z"
)
"""The name of a product, as in ``Chrome/124.0.0.0`` (RFC 9110 section 10.1.5).

``host/10.0.0.1`` is no product: Java prints addresses like this.
"""

_IPV6 = re.compile(r"(?<![\w:.*])[0-9A-Za-z.]{0,16}:[0-9A-Za-z:.]{1,60}(?![\w*])")
_HEX_AND_COLONS = re.compile(r"[0-9A-Fa-f:.]+")
_IPV6_TRIGGER = r"[0-9A-Fa-f]::|::[0-9A-Fa-f]|(?::[0-9A-Fa-f]{1,4}){6}"
_PORT_AFTER_IPV6 = re.compile(r"(?<=[0-9A-Fa-f]):[0-9]{1,5}\Z")
_MIN_COLONS = 2
"""Colons of the shortest IPv6 address, such as ``fe80::1``."""

_PAIRS_OF_HEX = re.compile(r"(?:[0-9A-Fa-f]{2}:){1,30}[0-9A-Fa-f]{2}")


def _find_ips(text: str, key: str) -> Iterator[Span]:
    """IPv6 addresses (RFC 4291) and IPv4 addresses.

    An IPv6 address may end with an IPv4 address. Four numbers that are a version, such as ``version 1.2.3.4``,
    are not an address.
    """
    spans = [match.span() for match in _IPV4.finditer(text) if not _is_version(match, key)]
    if text.count(":") >= _MIN_COLONS:
        spans += [span for match in _IPV6.finditer(text) if (span := _ipv6_span(match))]
    return merged(spans)


def _ipv6_span(match: re.Match[str]) -> Span | None:
    """The span of the address in a run of letters, digits and colons; a word may stand before it: ``tcp:2001:db8::9``.

    Clock times and fingerprints do not parse as addresses. A 64-bit hardware id (``50:06:01:…``) and ``db::add`` of C++
    do parse, so they are left out by other tests.
    """
    run = match[0]
    start = match.start()
    if not _HEX_AND_COLONS.fullmatch(run):
        word, _, run = run.partition(":")
        if not word.rstrip("46").isalpha():
            return None
        start += len(word) + 1
    address = run.rstrip(".")
    if address.endswith(":") and not address.endswith("::"):
        address = address[:-1]
    if (
        address.count(":") < _MIN_COLONS
        or _PAIRS_OF_HEX.fullmatch(address)
        or not any(map(str.isdigit, address))
    ):
        return None
    without_port = _PORT_AFTER_IPV6.sub("", address)  # Java prints /2001:db8:…:1:50010
    for candidate in dict.fromkeys((address, without_port)):
        if _is_ipv6(candidate):
            return start, start + len(candidate)
    return None


def _is_ipv6(address: str) -> bool:
    try:
        ipaddress.IPv6Address(address)
    except ValueError:
        return False
    return True


def _is_version(match: re.Match[str], key: str) -> bool:
    """Whether four numbers are a version: the word ``version`` or a product stands before it, or the key says so."""
    before = text_before(match.string, match.start(), key)
    if _VERSION_WORD.search(before.rstrip("\"' :=#-")[-_VERSION_WORD_LENGTH:]):
        return True
    has_port = match.string[match.end() : match.end() + 1] == ":"
    return before.endswith("/") and _PRODUCT_BEFORE.search(before) is not None and not has_port


IP_ADDRESS = Detector("ip_address", f"{_IPV4_TRIGGER}|{_IPV6_TRIGGER}", _find_ips, mask_start)
