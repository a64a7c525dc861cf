# ruff: noqa: E501 - patterns read best in one line
"""Phone numbers."""

import re
from collections.abc import Iterator

from obs_assets.transforms.detectors.base import (
    EDGE,
    PUNCTUATION,
    Detector,
    Span,
    digits_of,
    merged,
    text_before,
)
from obs_assets.transforms.detectors.masks import mask_phone

_EXTENSION = r"(?:[ ,;]{0,2}(?i:x|ext\.?|extension) ?[0-9]{1,6}(?![0-9]))?"
_LABEL = "(?i:office|fax|mobile|home|work|cell)(?![0-9A-Za-z])"
_LABELLED = re.compile(rf"(?<![\w.+:/-])[0-9]{{10,11}}(?=[ -]{_LABEL})")
_INTERNATIONAL = re.compile(
    rf"(?<![\w+])\+[1-9](?:[ ().\-/]{{0,2}}[0-9]){{7,14}}(?![0-9]){_EXTENSION}"
)
"""A plus and 8 to 15 digits (ITU-T E.164)."""

_NORTH_AMERICAN = re.compile(
    r"(?:(?:\([2-9][0-9]{2}\) ?|(?<![\w.+-])(?<!\" )(?:(?:00)?1[ .-])?[2-9][0-9]{2}[ .-])[2-9][0-9]{2}"
    r"|(?<![\w.+-])(?:00)?1(?:[ .-][0-9]{3}[ .-]| ?\([0-9]{3}\) ?)[0-9]{3})[ .-][0-9]{4}"
    rf"{_EXTENSION}(?!\w|[.-](?!{_LABEL})\w)"
)
"""A number of the North American Numbering Plan.

Area code and exchange begin with 2 to 9. After the country code 1 they may begin with any digit, since invented numbers
do. Ten digits without separators are an id. In ``"GET / HTTP/1.1" 207 386 1186``, the numbers are status and sizes.
"""

_UNDER_NAME = re.compile(r"(?<![\w.+-])\+?\(?[0-9](?:[ ().\-/]{0,2}[0-9]){6,14}(?!\w)")
_PHONE_NAME = (
    r"(?i:phone|mobile|msisdn|whatsapp|cell|fax|telef[oó]n[oe]?|telefone|telefoon|t[eé]l[eé]phone|puhelin|telefax|handy|m[oó]vil"
    r"|celular|cellulare|telem[oó]vel|mobil|gsm|kom[oó]rk[ai]|mobitel|telefonszám|telefonas|tālrunis|тел(?:ефон)?|моб(?:ильный)?"
    r"|τηλ(?:έφωνο)?|κινητό|电话|電話|手机|手機|携帯|전화|휴대폰|هاتف|جوال|موبایل|تلفن|טלפון|נייד|โทร(?:ศัพท์)?|điện thoại|फ़ोन|फोन|मोबाइल)"
)
_PHONE_BEFORE = re.compile(
    rf"(?:{_PHONE_NAME}|(?<![0-9A-Za-z])(?i:tel|cep))(?:[-_. ]?(?i:number|num|no|nr|numarası))?{PUNCTUATION}{{0,4}}(?:is )?\Z"
)
_PHONE_NAME_LENGTH = 24
"""Characters before a number in which a name such as ``phone`` is searched for."""

_NO_PHONE = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}.*|1(?:[0-9]{9}|[0-9]{11,14})|(?:0|[1-9][0-9]{0,2})(?:\.(?:0|[1-9][0-9]{0,2})){3}"
)
"""Not a phone number: a date, an epoch time in seconds or smaller units, an IP address, as under ``phone_at``."""

_NATIONAL = re.compile(
    r"(?<![\w.+:/-])(?<![0-9A-Za-z][0-9][ ])(?:"
    r"\(0[0-9]{1,4}\)[ -]?[0-9]{2,8}(?:[ -][0-9]{2,5}){0,3}"  # (020) 7946 0958
    r"|\([1-9][0-9]\) ?9?[0-9]{4}-[0-9]{4}"  # (11) 91234-5678
    r"|00[1-9][0-9]{0,2}(?P<way>[ .-])[0-9]{1,5}(?:(?P=way)[0-9]{2,8}){1,5}"  # 0044 20 7946 0958
    r"|0[1-9][0-9]{0,3}(?P<sign>[ .-])(?:[0-9]{6,8}|[0-9]{2,4}(?:(?P=sign)[0-9]{2,4}){1,4})"  # 01 23 45 67 89
    r")(?![\w:/]|[ .-][0-9])"
)
"""A number with a trunk or international prefix, and blanks, dots or dashes between its groups."""

_CONTEXT = (
    r"(?i:call(?:ed|ing|s|back)?|dial(?:ed|led)?|reach(?:ed)?|contact(?:ed)?|ring|rang|text(?:ed)?|sms|phoned?|tel"
    r"|telephone|mobile|cell|fax|whatsapp|hotline|(?:my|his|her|our|their|the|phone|new) number|number is|registered"
    r"|answer(?:ing|ed)?|messages? to|llam(?:ar?|e|ame|ado|adas?)|appel(?:er|ez|é)|joindre|anruf(?:en)?|ruf|erreichbar|erreiche"
    r"|chiam(?:are|ami|ate|a)|ligar|ligue|ligou|zadzwo[nń]|dzwoni[lłć]?|bel(?:len|t)?|ring(?:a|e|er)?|soita|ara(?:yın|dı|ma)?"
    r"|зв[оа]ни(?:те|ть|л)?|позвонит[еь]|набрал|cep|拨打|致电|打电话|に電話|전화|اتصل|التصل)"
)
_CONTEXT_BEFORE = re.compile(
    rf"(?<![0-9A-Za-z_]){_CONTEXT}(?![0-9A-Za-z_])[^0-9\n\"{{}}<>]{{0,40}}\Z"
)
_SPOKEN_PHONE = re.compile(
    r"(?<![\w.+:/-])(?:[0-9] ?)?\(?[0-9]{1,6}\)?(?:[ .-]{0,2}[0-9]{2,8}|/[0-9]{2,8})(?:[ .-][0-9]{2,5}){0,4}(?![\w:/]|[ .-][0-9])"
)
_SPOKEN_DIGITS = re.compile(
    r"(?<![\w.+:/-])(?:0[1-9][0-9]{8,9}|[2-9][0-9]{2}[2-9][0-9]{6})(?![\w:/]|[.-][0-9])"
)
_ASKED_DIGITS = re.compile(r"(?<![\w.+:/-])[0-9]{7,13}(?![\w:/]|[.-][0-9])")
_UNBROKEN = re.compile("[0-9]{7}")
"""Seven digits in a row. A string without them has none of the three forms that are written without blanks."""
_ASKED_BEFORE = re.compile(
    r"(?<![0-9A-Za-z_])(?i:call|reach|contact|phone|text|ring) "
    r"(?i:(?:me|us|him|her|them|back)(?: (?:at|on|to))?|at|on)(?: (?i:my|his|her|our) [a-z]{1,12})?:? \Z"
)
"""``call me at``: the digits that follow are a phone number."""
_ID_WORD = re.compile(
    r"(?i)(?:(?<![a-z])(?:ids?|order|ticket|version|build|port|line|row|error|code|invoice|ref|case)|#)[\"':=# ]{0,3}\Z"
)
_MIN_NATIONAL, _MAX_NATIONAL, _MIN_SPOKEN, _MAX_SPOKEN = 9, 15, 7, 13
"""Digits of a number with a prefix (`_NATIONAL`), and of a number after a word such as ``call``."""

_SPOKEN_LENGTH = 64
"""Characters before a number in which a word such as ``call`` is searched for."""

_PHONE_TRIGGER = (
    r"(?:^|[^0-9A-Za-z.+:/-]|\\[bfnrt])(?:\(0[0-9]{1,4}\)[ -]?[0-9]{2}|\([1-9][0-9]\) ?9?[0-9]{4}-"
    r"|00[1-9][0-9]{0,2}[ .-][0-9]{1,5}[ .-][0-9]{2}|0[1-9][0-9]{0,3}[ .-](?:[0-9]{6}|[0-9]{2,4}[ .-][0-9]{2}))"
    rf'|{EDGE}{_CONTEXT}[^0-9A-Za-z"][^0-9"{{}}<>]*[0-9](?:[ ().\-/\\]*[0-9]){{6}}|'
    r"\+[1-9](?:[ ().\-/\\]*[0-9]){7}"
    r"|[2-9][0-9]{2}(?:\) ?|[ .-])[2-9][0-9]{2}[ .-][0-9]{4}"
    r"|1(?:[ .-][0-9]{3}[ .-]| ?\([0-9]{3}\) ?)[0-9]{3}[ .-][0-9]{4}"
    r"|[0-9]{10}[ -](?i:office|fax|mobile|home|work|cell)"
    rf"|(?:{_PHONE_NAME}|{EDGE}(?i:tel))[^0-9]*[0-9](?:[ ().\-/\\]*[0-9]){{6}}"
)


def _find_phones(text: str, key: str) -> Iterator[Span]:
    """Phone numbers: international, national and North American forms anywhere; other forms only near a word.

    Such a word is, for example, ``phone`` just before the number or as its key, or ``call`` before it.
    """
    spans = [match.span() for match in _NORTH_AMERICAN.finditer(text)]
    if "+" in text:
        spans += [match.span() for match in _INTERNATIONAL.finditer(text)]
    for match in _NATIONAL.finditer(text):
        if _MIN_NATIONAL <= len(
            digits_of(match[0])
        ) <= _MAX_NATIONAL and not _NO_PHONE.fullmatch(match[0]):
            spans.append(match.span())
    spans += [match.span() for match in _SPOKEN_PHONE.finditer(text) if _is_spoken(match)]
    if _UNBROKEN.search(text):
        spans += [match.span() for match in _LABELLED.finditer(text)]
        spans += [match.span() for match in _SPOKEN_DIGITS.finditer(text) if _is_spoken(match)]
        for match in _ASKED_DIGITS.finditer(text):
            if _ASKED_BEFORE.search(
                text, max(0, match.start() - _SPOKEN_LENGTH), match.start()
            ):
                spans.append(match.span())
    for match in _UNDER_NAME.finditer(text):
        before = text_before(text, match.start(), key)[-_PHONE_NAME_LENGTH:]
        if _PHONE_BEFORE.search(before) and not _NO_PHONE.fullmatch(match[0]):
            spans.append(match.span())
    return merged(spans)


def _is_spoken(match: re.Match[str]) -> bool:
    """Whether a number is a phone number by the words before it: a word such as ``call``, and no word of an id."""
    before = match.string[max(0, match.start() - _SPOKEN_LENGTH) : match.start()]
    is_long_enough = _MIN_SPOKEN <= len(digits_of(match[0])) <= _MAX_SPOKEN
    if match[0].isdigit() and not _SPOKEN_DIGITS.fullmatch(match[0]):
        return False
    if not is_long_enough or _NO_PHONE.fullmatch(match[0]) or _ID_WORD.search(before):
        return False
    return _CONTEXT_BEFORE.search(before) is not None


PHONE = Detector("phone", _PHONE_TRIGGER, _find_phones, mask_phone)
