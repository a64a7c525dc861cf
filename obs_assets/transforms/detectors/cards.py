"""Numbers of payment cards."""

import re
from collections.abc import Iterator

from obs_assets.transforms.detectors.base import (
    NUMBER_EDGE,
    Detector,
    Span,
    digits_of,
    text_before,
)
from obs_assets.transforms.detectors.masks import mask_card

_CARD_TRIGGER = rf"{NUMBER_EDGE}(?:[2-6][0-9]{{2}}|180|060|869)(?:[ ./_-]{{0,3}}[0-9]){{9,16}}(?:[^0-9A-Za-z]|$)"
_DIGIT_GROUP = re.compile(r"[0-9]++")
_CARD_SEPARATOR = re.compile(r"[ ./_-]{1,3}")
_CARD_ISSUER = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})"  # Visa, of old with 13 digits
    r"|(?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}"  # Mastercard
    r"|3[47]\d{13}"  # American Express
    r"|3(?:0[0-5]|[689]\d)\d{11}"  # Diners Club
    r"|6(?:011|4[4-9]\d|5\d\d)\d{12}(?:\d{3})?"  # Discover
    r"|35\d{14}(?:\d{3})?"  # JCB, and what generators of test numbers take for it
    r"|62\d{14,17}"  # UnionPay
    r"|(?:2131|1800)\d{11}"  # JCB of old
    r"|8699\d{11}"  # Voyager
    r"|220[0-4]\d{12}"  # Mir
    r"|(?:60\d\d|508\d)\d{12}"  # RuPay
    r"|(?:5018|5020|5038|5[678]\d\d|0604|6304|6390|67\d\d)\d{8,15}"  # Maestro
)
"""Issuer identification numbers and lengths, ISO/IEC 7812-1 and the networks' own tables."""

_MIN_CARD_DIGITS, _MAX_CARD_DIGITS = 12, 19
_SHORT_CARD_DIGITS = 13
_MAX_CARD_GROUPS = 6
_MIN_CARD_GROUP = 3
_MIN_DOTTED_GROUPS = 3
"""Two groups with a dot between them are a decimal number."""

_WORD_BEFORE, _WORD_AFTER = (
    re.compile(r"[0-9A-Za-z]\Z|[0-9]\.\Z"),
    re.compile(r"[0-9A-Za-z]|\.[0-9]"),
)
_ID_BEFORE, _ID_AFTER = re.compile(r"[0-9A-Za-z]-\Z"), re.compile(r"-[0-9A-Za-z]")


_ID_BEFORE_CARD = re.compile(
    r"(?i)(?:id|order|request|req|trace|span|ean|gtin|isbn|upc|sku|build|ticket|seq|sequence|offset|bytes|epoch|ts|ms"
    r"|job|run|invoice|tracking|batch|event|record|serial|version|timestamp|time|number of|count|size)"
    r"(?: (?:no|number|num|id))?[\"':=# ]{0,4}\Z"
)
_CARD_BEFORE = re.compile(
    r"(?i)(?:card|visa|maestro|mastercard|pan|cc|payment|paid|pay|charged?|debit|credit)(?![a-z])[^0-9]{0,30}\Z"
)
"""Twelve and thirteen digits are mostly ids and article numbers, one in ten of which passes Luhn: alone in a
string they need the name of a card, among words they must not follow that of an id."""
_CARD_WORD_LENGTH = 48


def _find_cards(text: str, key: str) -> Iterator[Span]:
    """Numbers of an issuer's form that pass Luhn and stand alone, in one group of digits or in several."""
    groups = [match.span() for match in _DIGIT_GROUP.finditer(text)]
    first = 0
    while first < len(groups):
        last = _last_group_of_card(text, groups, first)
        if last is not None and _is_long_or_named(text, groups[first][0], groups[last][1], key):
            yield groups[first][0], groups[last][1]
        first = first + 1 if last is None else last + 1


def _is_long_or_named(text: str, start: int, end: int, key: str) -> bool:
    if len(digits_of(text[start:end])) > _SHORT_CARD_DIGITS:
        return True
    before = text_before(text, start, key)[-_CARD_WORD_LENGTH:]
    is_alone = end - start == len(text.strip())
    return _CARD_BEFORE.search(before) is not None or not (
        is_alone or _ID_BEFORE_CARD.search(before)
    )


def _last_group_of_card(text: str, groups: list[Span], first: int) -> int | None:
    """The last of the digit groups that make a card with the first one, or None; the longest card wins."""
    number, separator, found = "", "", None
    begin = groups[first][0]
    for index in range(first, min(first + _MAX_CARD_GROUPS, len(groups))):
        start, end = groups[index]
        gap = text[groups[index - 1][1] : start] if index > first else ""
        if index > first and (end - start < _MIN_CARD_GROUP or not _continues(separator, gap)):
            break
        separator = gap
        number += text[start : min(end, start + _MAX_CARD_DIGITS + 1)]
        is_decimal = "." in separator and index - first + 1 < _MIN_DOTTED_GROUPS
        if (
            _is_card(number)
            and not is_decimal
            and _stands_alone(text, begin, end, hyphenated="-" in separator)
        ):
            found = index
    return found


def _continues(separator: str, gap: str) -> bool:
    """Whether a gap may stand between two groups of a card: the same one throughout."""
    return separator in ("", gap) and _CARD_SEPARATOR.fullmatch(gap) is not None


def _is_card(number: str) -> bool:
    return (
        len(number) >= _MIN_CARD_DIGITS
        and _CARD_ISSUER.fullmatch(number) is not None
        and passes_luhn(number)
    )


_DOUBLED = str.maketrans("0123456789", "0246813579")
"""Each digit to the sum of the digits of its double."""


def passes_luhn(number: str) -> bool:
    """The check digit of ISO/IEC 7812-1 annex B."""
    doubled = number[-2::-2].translate(_DOUBLED)
    return (sum(map(int, number[-1::-2])) + sum(map(int, doubled))) % 10 == 0


def _stands_alone(text: str, start: int, end: int, *, hyphenated: bool) -> bool:
    """Whether a number is no part of a word, of a decimal or, if it has hyphens itself, of a longer hyphenated id."""
    before, after = text[max(0, start - 2) : start], text[end : end + 2]
    if _WORD_BEFORE.search(before) or _WORD_AFTER.match(after):
        return False
    return not (hyphenated and (_ID_BEFORE.search(before) or _ID_AFTER.match(after)))


CREDIT_CARD = Detector("credit_card", _CARD_TRIGGER, _find_cards, mask_card)
