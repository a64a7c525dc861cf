"""The one table of severities: words, and numbers on the scales that loggers use.

`obs_assets.events` writes each event's level by it; filter, sample and alerts ask the groups below. A level that is not
here stays as the event has it, in lower case.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

WORDS: Mapping[str, tuple[str, ...]] = {
    "info": ("information", "informational", "inf", "log", "config"),
    "warning": ("warn", "wrn", "caution"),
    "error": ("err", "severe", "fault"),
    "debug": ("dbg", "fine"),
    "trace": ("trc", "verbose", "vrb", "finer", "finest", "silly"),
    "success": (),
    "notice": (),
    "critical": ("crit", "dpanic"),
    "alert": (),
    "fatal": ("ftl", "panic"),
    "emergency": ("emerg",),
}
"""Level → other words for it, in lower case: syslog, java.util.logging, Serilog, zap, PostgreSQL, winston."""

LEVELS = tuple(WORDS)
"""All levels that events are given."""

STATUSES = (*LEVELS, "warn")
"""Values of ``status`` that are a level as well."""

GRAVE = ("error", "critical", "alert", "fatal", "emergency")
"""Levels of errors."""

NOTEWORTHY = ("warning", *GRAVE)
"""Levels of which no event is without value."""

SUCCESSES = ("info", "success")
"""Levels of events that went well."""

LOW = ("debug", "trace")
"""Levels of events of little value."""

_OTEL = ("trace", "debug", "info", "warning", "error", "fatal")


@dataclass(frozen=True)
class Scale:
    """Numbers that are levels: ``step`` numbers from ``first`` on are the first of ``levels``, and so on.

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
        is_on_it = self.first <= number <= self.last
        return self.levels[(number - self.first) // self.step] if is_on_it else None


SYSLOG = Scale(
    0, 1, ("emergency", "alert", "critical", "error", "warning", "notice", "info", "debug")
)
"""RFC 5424, 6.2.1; also GELF and journald."""

PINO = Scale(10, 10, _OTEL)
"""pino and bunyan, levels of one's own between theirs."""

MONOLOG = Scale(
    100,
    50,
    (
        *("debug", "debug", "info", "notice", "warning", "warning", "error", "error"),
        *("critical", "alert", "emergency", "emergency"),
    ),
)
"""100 is debug, 200 info, 250 notice, 300 warning, 400 error, 500 critical, 550 alert, 600 emergency."""

GCP = Scale(
    100, 100, ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")
)
"""Google Cloud's LogSeverity; 0 is DEFAULT, which says nothing."""

OPENTELEMETRY = Scale(1, 4, _OTEL)
PYTHON = Scale(10, 10, ("debug", "info", "warning", "error", "critical"))

LETTERS: Mapping[str, str] = {
    "F": "fatal",
    "E": "error",
    "W": "warning",
    "I": "info",
    "D": "debug",
}
"""MongoDB's field ``s``, with a digit behind D, see `_LETTER`."""

_LETTER = "[FEWI]|D[1-5]?"

SCALES: Mapping[str, tuple[Scale, ...]] = {
    "level": (SYSLOG, PINO, MONOLOG),
    "severity": (SYSLOG, GCP),
    "PRIORITY": (SYSLOG,),
    "severityNumber": (OPENTELEMETRY,),
    "severity_number": (OPENTELEMETRY,),
    "levelno": (PYTHON,),
}
"""Field → how its numbers are read. A number on no scale of its field is no level."""

NUMBERS_ONLY = ("severityNumber", "severity_number", "levelno")
"""Fields that have no words: what is no number there, a list for example, is no level."""

_KNOWN: dict[str, str] = {}
"""Every word → its level."""

for _level, _others in WORDS.items():
    _KNOWN.update(dict.fromkeys((_level, *_others), _level))


def level_of(text: str, field: str = "level") -> str | None:
    """The level that a text is in a field: `word_sql` and `level_sql` for one value, in Python.

    >>> level_of("WARN"), level_of("ERROR+4"), level_of("50"), level_of("3", "PRIORITY"), level_of("E", "s")
    ('warning', 'error', 'error', 'error', 'error')
    """
    word = text.strip(" ").lower()
    if field == "s":
        return LETTERS[text[0]] if re.fullmatch(_LETTER, text) else None
    if re.fullmatch("[0-9]+", word) and field in SCALES:
        found = (scale.level(int(word)) for scale in SCALES[field])
        return next(filter(None, found), None)
    if field in NUMBERS_ONLY:
        return None
    return _KNOWN.get(re.sub(r"[+-]?[0-9]+$", "", word)) or word or None


def word_sql(field: str, name: str) -> str:
    """SQL for the word that a field says, for `level_sql`; NULL if it says none.

    Args:
        field: SQL expression of the field, VARCHAR.
        name: of the field, which says what its numbers mean.
    """
    if name == "s":
        letter = f"list_position({list(LETTERS)}, {field}[1])"
        return f"CASE WHEN regexp_full_match({field}, '{_LETTER}') THEN {list(LETTERS.values())}[{letter}] END"
    said = f"nullif(trim({field}), '')"
    if name not in SCALES:
        return said
    word = "NULL" if name in NUMBERS_ONLY else said
    number = f"try_cast({field} AS INTEGER)"
    steps = [
        f"WHEN {number} BETWEEN {scale.first} AND {scale.last} "
        f"THEN {list(scale.levels)}[({number} - {scale.first}) // {scale.step} + 1]"
        for scale in SCALES[name]
    ]
    return f"CASE WHEN regexp_full_match({field}, ' *[0-9]+ *') THEN CASE {' '.join(steps)} END ELSE {word} END"


def level_sql(word: str) -> str:
    """SQL for the level that a word is, an SQL expression without blanks around it."""
    # slog writes ERROR+4, OpenTelemetry ERROR2, PostgreSQL DEBUG1
    plain = f"regexp_replace(lower({word}), '[+-]?[0-9]+$', '')"
    return f"coalesce({list(_KNOWN.values())}[list_position({list(_KNOWN)}, {plain})], lower({word}))"
