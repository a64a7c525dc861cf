# ruff: noqa: E501 - patterns read best in one line
"""Numbers of payment cards."""

import re
from collections.abc import Iterator

from obs_assets.transforms.detectors.base import (
    NUMBER_EDGE,
    Detector,
    Span,
    digits_of,
    rows,
    text_before,
)
from obs_assets.transforms.detectors.masks import mask_card

_CARD_TRIGGER = (
    rf"(?:{NUMBER_EDGE}|%B)(?:[2-6][0-9]{{2}}|180|194|060|8[126][0-9]|869|97[09]|986)(?:[ ./_-]*[0-9]){{9,16}}(?:[^0-9A-Za-z]|$)"
    rf"|1[0-9]{{3}}[ -][0-9]{{5}}[ -][0-9]{{6}}|{NUMBER_EDGE}1[0-9]{{14}}(?:[^0-9A-Za-z]|$)"
)
_DIGIT_GROUP = re.compile(r"[0-9]+")
_CARD_SEPARATOR = re.compile(r"[ ./_-]{1,3}")


def _lengths(text: str) -> frozenset[int]:
    """``13,16-18`` as a set: 13, 16, 17, 18."""
    bounds = [part.partition("-")[::2] for part in text.split(",")]
    return frozenset(
        length for first, last in bounds for length in range(int(first), int(last or first) + 1)
    )


def _networks() -> Iterator[tuple[str, frozenset[int]]]:
    """Each prefix of ``cards.txt``, with the lengths of its numbers in digits."""
    for digits, lengths, _ in rows("cards.txt"):
        first, _, last = digits.partition("-")
        for number in range(int(first), int(last or first) + 1):
            yield str(number).zfill(len(first)), _lengths(lengths)


_NETWORKS = dict(_networks())
_LONGEST_PREFIX = max(map(len, _NETWORKS))

_PRINTED = frozenset(
    (
        (4, 4, 4, 4),
        (4, 4, 4, 4, 1),
        (4, 4, 4, 4, 2),
        (4, 4, 4, 4, 3),
        (4, 6, 5),
        (4, 6, 4),
        (6, 13),
        (4, 4, 5),
        (4, 4, 4),
        (4, 3, 3, 3),
    )
)
"""Digits in each group of the numbers that issuers print. Other groups are rows of counters."""

_AIR_TRAVEL = (4, 5, 6)
"""Digits in each group of a UATP card, which begins with 1. Without groups, the name of a card must stand before it."""

_BEGINNINGS = frozenset(
    form[:length] for form in (*_PRINTED, _AIR_TRAVEL) for length in range(1, len(form))
)
"""Beginnings of printed groups. After any other groups, the search for a card stops."""

_MIN_CARD_DIGITS, _MAX_CARD_DIGITS = 12, 19
"""Digits of the shortest and the longest card number."""

_SHORT_CARD_DIGITS = 13
"""Up to this number of digits, the words before a number decide: most such numbers are ids."""

_MAX_CARD_GROUPS = 6
"""Groups of digits that are tried as a card."""

_MIN_CARD_GROUP = 3
"""Digits of a group before the number that make the number a part of a row of counters."""

_MIN_DOTTED_GROUPS = 3
"""Groups of a number with dots: two groups with a dot between them are a decimal number."""

_WORD_BEFORE, _WORD_AFTER = (
    re.compile(r"[0-9A-Za-z_]\Z|[0-9]\.\Z|_-\Z"),
    re.compile(r"[0-9A-Za-z]|\.[0-9]"),
)
_STRIPE = "%B"
"""Text before the number on the first track of a magnetic stripe (ISO/IEC 7813)."""

_ID_BEFORE, _ID_AFTER = re.compile(r"[0-9A-Za-z]-\Z"), re.compile(r"-[0-9A-Za-z]")


_ID_BEFORE_CARD = re.compile(
    r"(?i)(?:id|order|request|req|trace|span|ean|gtin|isbn|upc|sku|build|ticket|seq|sequence|offset|bytes|epoch|ts|ms"
    r"|job|run|invoice|tracking|batch|event|record|serial|version|timestamp|time|number of|count|size)"
    r"(?: (?:no|number|num|id))?[\"':=# ]{0,4}\Z"
)
_CARD_BEFORE = re.compile(
    r"(?i)(?:card|visa|maestro|mastercard|pan|cc|payment|paid|pay|charged?|debit|credit)(?![a-z])[^0-9]{0,30}\Z"
)
"""Text before a number of 12 or 13 digits.

Most such numbers are ids and article numbers, and a tenth of them passes Luhn. If such a number fills its string, the
name of a card must stand before it. Among words, the name of an id must not stand before it.
"""
_CARD_WORD_LENGTH = 48
"""Characters before a number in which such a name is searched for."""


_UNDER_ID = re.compile(
    r"(?:(?:\A|[^A-Za-z])(?i:ids?|uuid|guid|trace|span|block|blk|snowflake|seq|sequence|offset|cursor|hash|rev)"
    r"|[a-z](?:Id|ID|Ids|Uuid|Seq|Offset))[\"'\\]{0,9} ?[:=#]{1,2} ?[\"'\\]{0,9}-?\Z"
)
"""Names of ids, as in ``span_id=4539914822810047261``: a tenth of random numbers passes Luhn."""


def _find_cards(text: str, key: str) -> Iterator[Span]:
    """Numbers in the form of an issuer that pass Luhn and stand alone, unbroken or in groups as issuers print them."""
    groups = [match.span() for match in _DIGIT_GROUP.finditer(text)]
    first = 0
    while first < len(groups):
        start, end = groups[first]
        if end - start < _MIN_CARD_DIGITS and (end - start,) not in _BEGINNINGS:
            first += 1
            continue
        last = _last_group_of_card(text, groups, first)
        if last is not None and _is_no_id(text, groups[first][0], groups[last][1], key):
            yield groups[first][0], groups[last][1]
        first = first + 1 if last is None else last + 1


def _is_no_id(text: str, start: int, end: int, key: str) -> bool:
    """Whether a number that passes as a card is not an id, by its length and the words before it."""
    before = text_before(text, start, key)[-_CARD_WORD_LENGTH:]
    if text[start:end].isdigit() and _UNDER_ID.search(before):
        return False
    if text[start:end].isdigit() and not _is_of_network(text[start:end]):
        return _CARD_BEFORE.search(before) is not None
    if len(digits_of(text[start:end])) > _SHORT_CARD_DIGITS:
        return True
    is_alone = end - start == len(text.strip())
    return _CARD_BEFORE.search(before) is not None or not (
        is_alone or _ID_BEFORE_CARD.search(before)
    )


def _last_group_of_card(text: str, groups: list[Span], first: int) -> int | None:
    """Index of the last digit group of the card that begins with group ``first``; None if there is no card.

    The longest card wins.
    """
    number, separator, found = "", "", None
    begin = groups[first][0]
    widths: tuple[int, ...] = ()
    for index in range(first, min(first + _MAX_CARD_GROUPS, len(groups))):
        start, end = groups[index]
        gap = text[groups[index - 1][1] : start] if index > first else ""
        if index > first and not _continues(separator, gap):
            break
        separator = gap
        if index == first + 1 and _is_in_row(text, groups, first, separator):
            break
        widths = (*widths, end - start)
        number += text[start : min(end, start + _MAX_CARD_DIGITS + 1)]
        is_decimal = "." in separator and len(widths) < _MIN_DOTTED_GROUPS
        if (
            not is_decimal
            and _is_card(number, widths)
            and _stands_alone(text, begin, end, hyphenated="-" in separator)
        ):
            found = index
        if widths not in _BEGINNINGS:
            break
    return found


def _is_in_row(text: str, groups: list[Span], first: int, separator: str) -> bool:
    """Whether the same separator and a group of digits stand before: such a row of counters holds no card."""
    if first == 0:
        return False
    start, end = groups[first - 1]
    return end - start >= _MIN_CARD_GROUP and text[end : groups[first][0]] == separator


def _continues(separator: str, gap: str) -> bool:
    """Whether a gap may stand between two groups of a card: all gaps of a card are equal."""
    return separator in ("", gap) and _CARD_SEPARATOR.fullmatch(gap) is not None


def _is_card(number: str, widths: tuple[int, ...]) -> bool:
    """Whether a number in groups of these widths is that of a card, by network, length, groups and Luhn."""
    if len(number) < _MIN_CARD_DIGITS or (
        len(widths) > 1 and widths not in _PRINTED and widths != _AIR_TRAVEL
    ):
        return False
    if number[0] == "1" and widths in (_AIR_TRAVEL, (sum(_AIR_TRAVEL),)):
        return passes_luhn(number)
    return _is_of_network(number) and passes_luhn(number)


def _is_of_network(number: str) -> bool:
    """Whether a number has the first digits and the length of a network in ``cards.txt``."""
    networks = (
        _NETWORKS.get(number[:length], frozenset()) for length in range(1, _LONGEST_PREFIX + 1)
    )
    return any(len(number) in lengths for lengths in networks)


_DOUBLED = str.maketrans("0123456789", "0246813579")
"""Digit → sum of the digits of its double: 7 → 14 → 5."""


def passes_luhn(number: str) -> bool:
    """Whether the check digit is right (ISO/IEC 7812-1 annex B)."""
    doubled = number[-2::-2].translate(_DOUBLED)
    return (sum(map(int, number[-1::-2])) + sum(map(int, doubled))) % 10 == 0


def _stands_alone(text: str, start: int, end: int, *, hyphenated: bool) -> bool:
    """Whether a number is not a part of something longer.

    A longer thing is a word (``blk_4539``), a decimal number (``3.4111``) or, if the number has hyphens, an id with more
    hyphens (``a-4111-1111-…``). The magnetic stripe of a card is no word: ``%B4111…^NAME``.
    """
    before, after = text[max(0, start - 2) : start], text[end : end + 2]
    if before == _STRIPE and after[:1] == "^":
        return True
    if _WORD_BEFORE.search(before) or _WORD_AFTER.match(after):
        return False
    return not (hyphenated and (_ID_BEFORE.search(before) or _ID_AFTER.match(after)))


CREDIT_CARD = Detector("credit_card", _CARD_TRIGGER, _find_cards, mask_card)
