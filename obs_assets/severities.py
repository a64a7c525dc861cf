"""The table of severities: words, and numbers on the scales of loggers.

`obs_assets.events` writes the level of each event according to this table; filter, sample and alerts use
the groups of levels below. A level that is not in the table stays as the event has it, in lower case.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

WORDS: Mapping[str, tuple[str, ...]] = {
    "info": ("information", "informational", "inf", "log", "config", "i"),
    "warning": ("warn", "wrn", "caution", "w"),
    "error": ("err", "severe", "fault", "failure", "failed", "exception", "eror", "e"),
    "debug": ("dbg", "dbug", "fine", "d"),
    "trace": ("trc", "verbose", "vrb", "finer", "finest", "silly", "t", "v"),
    "success": (),
    "notice": ("note", "n"),
    "critical": ("crit", "dpanic", "c"),
    "alert": ("a",),
    "fatal": ("ftl", "panic", "assert", "wtf", "f"),
    "emergency": ("emerg",),
}
"""Level → other words for it, in lower case: syslog, java.util.logging, Serilog, zap, PostgreSQL, winston, log15; and
the letters of Android and klog."""

UNSAID = (
    *("", "default", "unspecified", "severity_number_unspecified", "notset"),
    *("null", "none", "undefined", "unknown", "n/a", "-", "true", "false"),
)
"""Words of a field that say that an event has no level: Google Cloud, OpenTelemetry, Python's logging, templates."""

LEVELS = tuple(WORDS)
"""All levels of the table."""

STATUSES = (*LEVELS, "warn")
"""Values of ``status`` that are also a level."""

GRAVE = ("error", "critical", "alert", "fatal", "emergency")
"""Levels of errors."""

NOTEWORTHY = ("warning", *GRAVE)
"""Levels whose events are never of low value."""

ERROR_STATUSES = ("error", "failed", "failure", "fail")
"""Values of ``status``, in lower case, of events that count as errors."""

SUCCESSES = ("info", "success")
"""Levels of events that went well."""

LOW = ("debug", "trace")
"""Levels of events of little value."""

_OTEL = ("trace", "debug", "info", "warning", "error", "fatal")
"""The levels of OpenTelemetry, from the lowest."""


@dataclass(frozen=True)
class Scale:
    """Numbers that stand for levels. The first ``step`` numbers stand for the first level, and so on.

    Attributes:
        first: smallest number on the scale.
        step: how many numbers stand for the same level.
        levels: the levels, in the order of their numbers.

    >>> PINO.level(35)
    'info'
    """

    first: int
    step: int
    levels: tuple[str, ...]

    @property
    def last(self) -> int:
        """The largest number on the scale."""
        return self.first + self.step * len(self.levels) - 1

    def level(self, number: int) -> str | None:
        """The level of a number; None if it is not on the scale."""
        if not self.first <= number <= self.last:
            return None
        return self.levels[(number - self.first) // self.step]


SYSLOG = Scale(
    0, 1, ("emergency", "alert", "critical", "error", "warning", "notice", "info", "debug")
)
"""syslog (RFC 5424, 6.2.1), GELF and journald."""

PINO = Scale(10, 10, _OTEL)
"""pino and bunyan. A user's own level between two of theirs counts as the lower level."""

MONOLOG = Scale(
    100,
    50,
    (
        "debug",
        "debug",
        "info",
        "notice",
        "warning",
        "warning",
        "error",
        "error",
        "critical",
        "alert",
        "emergency",
        "emergency",
    ),
)
"""Monolog: 100 is debug, 200 info, 250 notice, 300 warning, 400 error, 500 critical, 550 alert, 600 emergency."""

GCP = Scale(
    100, 100, ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")
)
"""Google Cloud's LogSeverity. Its 0 is DEFAULT, which is not a level."""

OPENTELEMETRY = Scale(1, 4, _OTEL)
"""OpenTelemetry's SeverityNumber."""

PYTHON = Scale(10, 10, ("debug", "info", "warning", "error", "critical"))
"""Numbers of Python's module logging."""

LOGBACK = Scale(10_000, 10_000, ("debug", "info", "warning", "error", "fatal"))
"""Numbers of Logback and log4j 1. Their TRACE is 5000."""

LETTERS: Mapping[str, str] = {
    "F": "fatal",
    "E": "error",
    "W": "warning",
    "I": "info",
    "D": "debug",
}
"""Letter in MongoDB's field ``s`` → level."""

_LETTER = "[FEWI]|D[1-5]?"
"""Pattern of the text of MongoDB's field ``s``, for example ``D2``."""

SCALES: Mapping[str, tuple[Scale, ...]] = {
    "level": (SYSLOG, PINO, MONOLOG, LOGBACK),
    "severity": (SYSLOG, GCP),
    "PRIORITY": (SYSLOG,),
    "severityNumber": (OPENTELEMETRY,),
    "severity_number": (OPENTELEMETRY,),
    "levelno": (PYTHON,),
}
"""Field → scales of its numbers. The first scale that has the number counts; other numbers are not levels.

A field that is not here has the scales of ``level``.
"""

NUMBERS_ONLY = ("severityNumber", "severity_number", "levelno")
"""Fields of numbers: another value is a level only if it is a word of the table, as in ``SEVERITY_NUMBER_ERROR``."""

WORDS_ONLY = (
    *("priority", "Level", "Severity", "LogLevel", "logLevel", "LEVEL", "L"),
    *("SEVERITY", "LOGLEVEL"),
    *(
        "LOG_LEVEL",
        "LevelName",
        "levelName",
        "levelText",
        "level_text",
        "level_str",
        "levelStr",
    ),
    *("SeverityText", "severityLevel", "SeverityLevel", "severity_level", "severityName"),
    *("severity_name", "SeverityName", "severityLabel", "severity_label", "logSeverity"),
    *("log_severity", "syslog_severity", "error_level", "errorLevel", "log_level_name"),
    *("@severity", "sev", "Sev", "messageType"),
    *("event.level", "event.severity", "attributes.level", "attributes.severity"),
    *("fields.level", "jsonPayload.level", "jsonPayload.severity", "record.level.name"),
    *("labels.level", "labels.severity", "context.level", "metadata.level", "winlog.level"),
    *("logger.level", "log.severity", "log.syslog.severity.name"),
    *("fields.severity", "syslog.severity", "syslog.severity_label"),
)
"""Fields that often hold something other than a level: only a word of the table is a level.

Falco's ``priority`` is one; the ``priority`` of a job or a ticket (``P1``, ``high``, 3) is none. Dots lead into
objects.
"""

_COLOUR = "\x1b\\[[0-9;]*m"
"""Pattern of a terminal's colour, which loggers for the console write around a level."""

_AROUND = "^[^a-z]+|[^a-z]+$"
"""Pattern of digits and signs around a word: ``ERROR+4`` (slog), ``WARN3`` (OpenTelemetry), ``[error]``, ``info:``."""

_PREFIX = "^(?:(?:log|level|loglevel|severity|number|sev|syslog|audit|priority)[^a-z]+)+"
"""Pattern of words before a level: ``SEVERITY_NUMBER_ERROR``, ``LOG_ERR``, ``LogLevel.Warning``, ``AUDIT_FAILURE``."""

_STRUCTURE = r"""^ *(\{|\[["\[{0-9\]])"""
"""Pattern of the beginning of an object or a list, which is no level."""

_NAME = r""" *\{.*?"(?:name|text|label|standardLevel|levelname)" *: *"([^"\\]{1,40})".*"""
"""Pattern of an object with the name of a level: Loguru, log4j, ``{"text": "ERROR", "number": 17}``."""

_KNOWN: dict[str, str] = {}
"""Every word → its level."""

for _level, _others in WORDS.items():
    _KNOWN.update(dict.fromkeys((_level, *_others), _level))


def level_of(text: str, field: str = "level") -> str | None:
    """The level that a text means in a field: `word_sql` and `level_sql` for a single value, in Python.

    >>> level_of("WARN"), level_of("ERROR+4"), level_of("50"), level_of("3", "PRIORITY"), level_of("E", "s")
    ('warning', 'error', 'error', 'error', 'error')
    """
    # Only blanks are cut off, as `trim` of SQL does; Python's `strip()` would cut off tabs too.
    word = text.strip(" ").lower()
    if field == "s":
        is_letter = re.fullmatch(_LETTER, text)
        return LETTERS[text[0]] if is_letter else None
    number = re.fullmatch(r"([0-9]+)(?:\.0+)?", word)
    if number and field not in WORDS_ONLY:
        found = (scale.level(int(number[1])) for scale in _scales(field))
        return next(filter(None, found), None)
    if field in WORDS_ONLY or field in NUMBERS_ONLY:
        return _known_of(word)
    if re.match(_STRUCTURE, word):
        name = re.fullmatch(_NAME, text, re.DOTALL)
        word = name[1].lower() if name else ""
    elif word in UNSAID:
        return None
    return _known_of(word) or word or None


def _known_of(word: str) -> str | None:
    """The level of a word of the table, in lower case; None if the table lacks it."""
    plain = re.sub(_AROUND, "", re.sub(_COLOUR, "", word))
    return _KNOWN.get(word) or _KNOWN.get(plain) or _KNOWN.get(re.sub(_PREFIX, "", plain))


def word_sql(field: str, name: str) -> str:
    """SQL for the word of a field, the input of `level_sql`; NULL if the field has no level.

    Args:
        field: SQL expression of the field, VARCHAR.
        name: name of the field; it decides the meaning of numbers, see `SCALES`. It is none of `WORDS_ONLY`.
    """
    if name == "s":
        is_letter = f"regexp_full_match({field}, '{_LETTER}')"
        position = f"list_position({list(LETTERS)}, {field}[1])"
        return f"CASE WHEN {is_letter} THEN {list(LETTERS.values())}[{position}] END"
    text = f"trim({field})"
    # Not IN: DuckDB 2.0 makes a hash join of it, and a join loses the order of the rows.
    is_said = f"list_position({list(UNSAID)}, lower({text})) IS NULL"
    word = f"""CASE WHEN regexp_matches({field}, '{_STRUCTURE}')
        THEN nullif(regexp_extract({field}, '^{_NAME}$', 1, 's'), '')
        WHEN {is_said} THEN {text} END"""
    if name in NUMBERS_ONLY:
        word = f"CASE WHEN {_known(text)} IS NOT NULL THEN {text} END"
    is_number = f"regexp_full_match({field}, ' *[0-9]+(\\.0+)? *')"
    number = f"try_cast({field} AS INTEGER)"
    steps = [
        f"WHEN {number} BETWEEN {scale.first} AND {scale.last} "
        f"THEN {list(scale.levels)}[({number} - {scale.first}) // {scale.step} + 1]"
        for scale in _scales(name)
    ]
    return f"CASE WHEN {is_number} THEN CASE {' '.join(steps)} END ELSE {word} END"


def known_word_sql(words: str) -> str:
    """SQL for the first word in a list of texts that the table has; NULL if there is none."""
    return f"list_filter({words}, lambda text: {_known('trim(text)')} IS NOT NULL)[1]"


def is_word_sql(word: str) -> str:
    """SQL: whether a word is in the table as it is, in any case of letters."""
    return f"list_position({list(_KNOWN)}, lower({word})) IS NOT NULL"


def level_sql(word: str) -> str:
    """SQL for the level of a word; ``word`` is an SQL expression without blanks around its value."""
    return f"coalesce({_known(word)}, lower({word}))"


def _known(word: str) -> str:
    """SQL: the level of a word of the table; NULL if the table lacks it."""
    plain = f"lower({word})"
    bare = f"regexp_replace({plain}, '{_COLOUR}', '', 'g')"
    inner = f"regexp_replace({bare}, '{_AROUND}', '', 'g')"
    places = [
        f"list_position({list(_KNOWN)}, {one})"
        for one in (plain, inner, f"regexp_replace({inner}, '{_PREFIX}', '')")
    ]
    levels = list(_KNOWN.values())
    return f"coalesce({', '.join(f'{levels}[{place}]' for place in places)})"


def _scales(field: str) -> tuple[Scale, ...]:
    return SCALES.get(field, SCALES["level"])
