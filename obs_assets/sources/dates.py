"""Dates as programs print them, beside ISO 8601 and numbers: a table of patterns, and SQL that reads them.

A row is a form that names year, month and day without doubt: `25.11.2026` and `11/25/2026` are not in the table. The
zone is an offset, GMT or UTC; a form without a zone is in UTC. Names of other zones are ambiguous.
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Form:
    """A form of a date.

    Attributes:
        pattern: pattern of the whole text, for RE2 and Python.
        rewritten: the parts of the pattern, in the order of ISO 8601 or as ``25 Nov 2026 09:00:00 +0000``.
    """

    pattern: str
    rewritten: str


_MONTH = r"([A-Z][a-z]{2})[a-z]*"
_CLOCK = r"(\d\d?:\d\d:\d\d(?:\.\d{1,6})?)\d*"
_ZONE = r"(GMT|UTC|Z|[+-](?:0\d|1[0-4]):?[0-5]\d)"
_COMMENT = r"(?: \([^()]*\))?"
_WEEKDAY = "(?:[A-Z][a-z]+,? )?"
_YEAR_FIRST = r"(\d{4})[-/.](\d\d?)[-/.](\d\d?)[ T_:@-]+"
_CLOCKS_IN_DIGITS = tuple(rf"(\d\d?){sign}(\d\d){sign}(\d\d)" for sign in (":", "-", r"\."))
"""A time of day with the same sign between its parts: in ``09:30-06`` the last part is an offset."""
_REST_OF_SECOND = r"[.,:](\d{1,6})\d*"

IN_DIGITS = (
    # ISO 8601 without separators: 20261125T090000Z
    Form(
        r"(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)([.,]\d+)?(Z|[+-]\d\d:?\d\d)?",
        r"\1-\2-\3T\4:\5:\6\7\8",
    ),
    # Logs of Go and nginx: 2026/11/25 09:00:00.123456
    Form(
        r"(\d{4})/(\d\d)/(\d\d)[ T](\d\d:\d\d:\d\d)([.,]\d+)?(?: ?(Z|[+-]\d\d:?\d\d))?",
        r"\1-\2-\3T\4\5\6",
    ),
)
"""Forms with a number for the month; rewritten they are ISO 8601."""

YEAR_FIRST = tuple(
    Form(rf"{_YEAR_FIRST}{clock}{rest}(?: ?{_ZONE})?", rf"\1-\2-\3 \4:\5:\6{rewritten}")
    for clock in _CLOCKS_IN_DIGITS
    for rest, rewritten in (
        (_REST_OF_SECOND, r".\7 \8"),  # 2026-11-25-09-00-00:123, 2026.11.25_09:00:00,123
        ("", r" \7"),  # 2026/11/25-9:00:00 +0100
        (" ?([AP]M)", r" \7 \8"),  # 2026-11-25 9:00:00 AM
    )
)
"""Other forms with year, month and day in this order; rewritten they are ``2026-11-25 9:00:00 AM +0000``."""

WITH_MONTH = (
    # Web servers: [25/Nov/2026:09:00:00 +0000]
    Form(rf"\[?(\d\d)/{_MONTH}/(\d{{4}})[: ]{_CLOCK}(?: {_ZONE})?\]?", r"\1 \2 \3 \4 \5"),
    # Mail and HTTP: Wed, 25 Nov 2026 09:00:00 +0000 (UTC); BIND, Oracle: 25-Nov-2026 09:00:00.123
    Form(
        rf"(?:[A-Z][a-z]+, ?)?(\d\d?)[ -]{_MONTH}[ -](\d{{4}}) {_CLOCK}(?: ?{_ZONE})?{_COMMENT}",
        r"\1 \2 \3 \4 \5",
    ),
    # Cisco: 2026 Nov 25 09:00:00.123 UTC
    Form(rf"(\d{{4}})[ -]{_MONTH}[ -]+(\d\d?) {_CLOCK}(?: {_ZONE})?", r"\3 \2 \1 \4 \5"),
    # syslog with a year: Nov 25 2026 09:00:00 UTC
    Form(rf"{_WEEKDAY}{_MONTH} +(\d\d?),? (\d{{4}}) {_CLOCK} {_ZONE}", r"\2 \1 \3 \4 \5"),
    # HTTP's older form: Wednesday, 25-Nov-26 09:00:00 GMT
    Form(rf"[A-Z][a-z]+, (\d\d)-{_MONTH}-(\d\d) {_CLOCK} {_ZONE}", r"\1 \2 20\3 \4 \5"),
    # C, date, Ruby: Wed Nov 25 09:00:00 UTC 2026
    Form(
        rf"[A-Z][a-z]{{2}} {_MONTH} +(\d\d?) {_CLOCK} (?:{_ZONE} )?(\d{{4}})", r"\2 \1 \5 \3 \4"
    ),
    # JavaScript: Wed Nov 25 2026 10:00:00 GMT+0100 (Central European Standard Time)
    Form(
        rf"[A-Z][a-z]{{2}} {_MONTH} (\d\d) (\d{{4}}) {_CLOCK} GMT([+-]\d{{4}}){_COMMENT}",
        r"\2 \1 \3 \4 \5",
    ),
    # Java, Gson, Kibana, CEF: Nov 25, 2026, 9:00:00 AM; Nov 25, 2026 @ 09:00:00.000
    Form(
        rf"{_WEEKDAY}{_MONTH} +(\d\d?),? (\d{{4}})(?:,| @| at)? {_CLOCK}"
        r"(?:[ \x{202f}]([AP]M))?(?: (?:GMT|UTC|Z))?",
        r"\2 \1 \3 \4 \5 ",
    ),
)
"""Forms with a name for the month; rewritten they are ``25 Nov 2026 09:00:00 +0000``."""

WITHOUT_ZONE = (
    r"\d{8}T\d{6}(?:[.,]\d+)?",
    r"\d{4}/\d\d/\d\d[ T]\d\d:\d\d:\d\d(?:[.,]\d+)?",
    r"[A-Z][a-z]{2} [A-Z][a-z]{2} +\d\d? \d\d?:\d\d:\d\d(?:\.\d+)? \d{4}",
    r"(?:[A-Z][a-z]+,? )?[A-Z][a-z]+ +\d\d?,? \d{4}.*(?:[AP]M|\d\d)",
    rf"{_YEAR_FIRST}(?:{'|'.join(_CLOCKS_IN_DIGITS)})(?:[.,:]\d+)?(?: ?[AP]M)?",
    r"(?:[A-Z][a-z]+, ?)?\[?\d\d?[/ -][A-Z][a-z]+[/ -]\d{4}[: ]\d\d?:\d\d:\d\d(?:\.\d+)?\]?",
    r"\d{4}[ -][A-Z][a-z]+[ -]+\d\d? \d\d?:\d\d:\d\d(?:\.\d+)?",
)
"""Patterns of those texts that have no zone."""

_CLOCKS = ("%H:%M:%S", "%H:%M:%S.%f", "%I:%M:%S %p", "%I:%M:%S.%f %p")
_FORMATS = tuple(f"%d %b %Y {clock} %z" for clock in _CLOCKS)
"""DuckDB's formats of the rewritten texts with the name of a month."""
_FORMATS_OF_YEAR_FIRST = tuple(f"%Y-%m-%d {clock} %z" for clock in _CLOCKS)


def in_digits(text: str) -> str:
    """SQL: the text in ISO 8601; NULL if it has none of the forms `IN_DIGITS`."""
    return _rewritten(text, IN_DIGITS)


def printed(text: str) -> str:
    """SQL: the moment of a text with the name of a month, or with the year first; NULL if it cannot be read."""
    with_month, year_first = (
        # Without a zone: UTC
        f"regexp_replace({_rewritten(text, forms)}, ' +(GMT|UTC|Z)?$', ' +0000')"
        for forms in (WITH_MONTH, YEAR_FIRST)
    )
    return (
        f"coalesce(try_strptime({with_month}, {list(_FORMATS)}), "
        f"try_strptime({year_first}, {list(_FORMATS_OF_YEAR_FIRST)}))"
    )


def is_printed(text: str) -> bool:
    """Whether a text has a form of the tables.

    >>> is_printed("Nov 25, 2026 9:00:02 AM"), is_printed("11/25/2026 9:00:02 AM")
    (True, False)
    """
    return any(pattern.fullmatch(text) for pattern in _PATTERNS)


def _rewritten(text: str, forms: tuple[Form, ...]) -> str:
    branches = [
        f"WHEN regexp_full_match({text}, '{form.pattern}') "
        f"THEN regexp_replace({text}, '^(?:{form.pattern})$', '{form.rewritten}')"
        for form in forms
    ]
    return f"CASE {' '.join(branches)} END"


# Python writes a character by its number in another way than RE2.
_PATTERNS = tuple(
    re.compile(form.pattern.replace(r"\x{202f}", "\u202f"))
    for form in (*IN_DIGITS, *YEAR_FIRST, *WITH_MONTH)
)
