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


_MONTH = r"([A-Z][a-z]{2})"
_CLOCK = r"(\d\d?:\d\d:\d\d(?:\.\d{1,6})?)\d*"
_ZONE = r"(GMT|UTC|Z|[+-]\d\d:?\d\d)"
_COMMENT = r"(?: \([^()]*\))?"

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

WITH_MONTH = (
    # Web servers: [25/Nov/2026:09:00:00 +0000]
    Form(rf"\[?(\d\d)/{_MONTH}/(\d{{4}}):{_CLOCK} {_ZONE}\]?", r"\1 \2 \3 \4 \5"),
    # Mail and HTTP: Wed, 25 Nov 2026 09:00:00 +0000 (UTC)
    Form(
        rf"(?:[A-Z][a-z]+, ?)?(\d\d?)[ -]{_MONTH}[ -](\d{{4}}) {_CLOCK} ?{_ZONE}{_COMMENT}",
        r"\1 \2 \3 \4 \5",
    ),
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
        rf"{_MONTH} (\d\d?),? (\d{{4}})(?:,| @| at)? {_CLOCK}(?:[ \x{{202f}}]([AP]M))?",
        r"\2 \1 \3 \4 \5 ",
    ),
)
"""Forms with a name for the month; rewritten they are ``25 Nov 2026 09:00:00 +0000``."""

WITHOUT_ZONE = (
    r"\d{8}T\d{6}(?:[.,]\d+)?",
    r"\d{4}/\d\d/\d\d[ T]\d\d:\d\d:\d\d(?:[.,]\d+)?",
    r"[A-Z][a-z]{2} [A-Z][a-z]{2} +\d\d? \d\d?:\d\d:\d\d(?:\.\d+)? \d{4}",
    r"[A-Z][a-z]{2} \d\d?,? \d{4}.*",
)
"""Patterns of those texts that have no zone."""

_FORMATS = tuple(
    f"%d %b %Y {clock} %z"
    for clock in ("%H:%M:%S", "%H:%M:%S.%f", "%I:%M:%S %p", "%I:%M:%S.%f %p")
)
"""DuckDB's formats of the rewritten texts with the name of a month."""


def in_digits(text: str) -> str:
    """SQL: the text in ISO 8601; NULL if it has none of the forms `IN_DIGITS`."""
    return _rewritten(text, IN_DIGITS)


def with_month(text: str) -> str:
    """SQL: the moment of a text with the name of a month; NULL if it cannot be read."""
    # Without a zone: UTC
    zoned = f"regexp_replace({_rewritten(text, WITH_MONTH)}, ' +(GMT|UTC|Z)?$', ' +0000')"
    return f"try_strptime({zoned}, {list(_FORMATS)})"


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
    for form in (*IN_DIGITS, *WITH_MONTH)
)
