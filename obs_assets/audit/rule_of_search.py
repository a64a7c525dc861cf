"""An alert rule with the meaning of a search, and the alerts that it would have sent."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any

import yaml
from pydantic import ValidationError

from obs_assets.alerts.backtest import RuleOutcome, Simulation
from obs_assets.alerts.rules import AlertRule, matching
from obs_assets.audit.hour_states import hours_of
from obs_assets.errors import ConfigurationError
from obs_assets.events import ALIASES, PROMOTED, Frame
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.hours import Hour
from obs_assets.search.duckdb import matching_rows
from obs_assets.search.language import And, Compare, Exists, Not, Or, Query, Text, fields_of
from obs_assets.search.questions import Span
from obs_assets.search.rows import SEARCHED_KEYS, Column, Paths, place_of
from obs_assets.storage.engine import connect

FRAME = "redacted_events"
"""The frame in which rules are tried: webhooks take it by default."""

_PLAIN = re.compile(r"[A-Za-z0-9 _.:@/-]+")
"""Texts that JSON writes in one way only."""

_TEXT_KEYS = sorted({*SEARCHED_KEYS, *(name.rpartition(".")[2] for name in ALIASES["error"])})
"""Keys whose text a word of a search is looked for in."""

COMPARED_ROWS = 20_000
"""Events of an hour for which search and rule are compared: more would take the time of a search."""


def conditions_of(query: Query) -> list[str]:
    """The query without its words as conditions of ``where``, which must all hold.

    Raises:
        ConfigurationError: a rule cannot say what the query says; the message names the term.
    """
    return [_condition(term) for term in _terms(query) if not isinstance(term, Text)]


def pattern_of(query: Query) -> str | None:
    """The word or phrase of the query as a pattern of ``text``; None if it has none.

    The pattern finds the text in a message or an error, wherever these stand in the event.

    Raises:
        ConfigurationError: there are several, or its JSON text can be written in several ways.
    """
    texts = [term.text for term in _terms(query) if isinstance(term, Text)]
    if not texts:
        return None
    if len(texts) > 1:
        raise ConfigurationError(
            f'a rule has one word or one phrase: write "{" ".join(texts)}" in quotes, or leave '
            "words out of the search"
        )
    if not _PLAIN.fullmatch(texts[0]):
        raise ConfigurationError(
            f"a rule finds words of ASCII letters, digits, blanks and _.:@/-, and {texts[0]!r} has "
            "other signs: search for a part of it"
        )
    keys = "|".join(map(re.escape, _TEXT_KEYS))
    return rf'"({keys})" *: *"([^"\\]|\\.)*{re.escape(texts[0])}'


def _terms(query: Query) -> Sequence[Query]:
    return query.terms if isinstance(query, And) else (query,)


def rule_of(query: Query, above: float) -> AlertRule:
    """The rule that fires for an hour in which more events match than ``above``.

    Raises:
        ConfigurationError: a rule cannot say what the query says.
    """
    where, pattern = conditions_of(query), pattern_of(query)
    text = () if pattern is None else (pattern,)
    try:
        return AlertRule(name="from_search", where=tuple(where), text=text, above=above)
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise ConfigurationError(f"this search makes no rule: {reason}") from None


def rule_text(rule: AlertRule) -> str:
    """The rule as YAML for a webhook's ``rules`` in a pipeline file, or for `obs backtest --rules`."""
    options: dict[str, Any] = {"name": rule.name}
    conditions = {"where": rule.where, "text": rule.text}
    options |= {name: list(values) for name, values in conditions.items() if values}
    options["above"] = rule.above
    return yaml.safe_dump({"rules": [options]}, sort_keys=False, allow_unicode=True, width=100)


def _condition(term: Query) -> str:
    match term:
        case Compare(field, "=", value):
            return f"{_name(field)} == {_written(value)}"
        case Compare(field, operator, value):
            return f"{_name(field)} {operator} {value}"
        case Exists(field):
            return f"{_name(field)} exists"
        case Not(Exists(field)):
            return f"{_name(field)} missing"
        case Not(Compare(field, "=", value)):
            return f"{_name(field)} != {_written(value)}"
        case Or(terms):
            return _one_of(terms)
    raise ConfigurationError(
        "a rule has equality, numbers, presence, lists of values and one phrase: leave beginnings "
        "and groups out of the search, or write a rule with `text` (docs/alerts.md)"
    )


def _one_of(terms: Sequence[Query]) -> str:
    """``level:(error OR fatal)`` as a list of values of the field."""
    compared = [term for term in terms if isinstance(term, Compare) and term.operator == "="]
    fields = {term.field for term in compared}
    values = [term.value for term in compared]
    is_plain = all(_written(value) == value and "," not in value for value in values)
    if len(compared) < len(terms) or len(fields) > 1 or not is_plain:
        raise ConfigurationError(
            "OR in a rule joins values of one field, without commas: make two rules"
        )
    return f"{_name(compared[0].field)} in {', '.join(values)}"


def _name(field: str) -> str:
    """The field as a rule names it.

    Raises:
        ConfigurationError: the column is one of the table's own, which rules do not see.
    """
    place = place_of(field)
    if not isinstance(place, Column):
        return field
    if place.name not in PROMOTED:
        raise ConfigurationError(
            f"a rule cannot compare {place.name}: leave it out of the search"
        )
    return place.name


def _written(value: str) -> str:
    """A value as ``where`` reads it: quotes keep blanks and quotes at its ends."""
    if value != value.strip() or value[:1] in {'"', "'"} or not value:
        return f'"{value}"'
    return value


@dataclass(frozen=True)
class Tried:
    """The rule over past hours.

    Attributes:
        rule: the rule: an alert for each hour in which more events match than `above`.
        outcome: the alerts that it would have sent.
        hours: hours that were tried.
        left: hours of the range that are not built here, or that the time did not allow.
    """

    rule: AlertRule
    outcome: RuleOutcome
    hours: int
    left: int


def try_rule(
    hourly: HourlyPipeline,
    query: Query,
    span: Span,
    *,
    above: float = 0.0,
    deadline_s: float = 10.0,
) -> Tried:
    """The rule of a search over hours that are built in this data folder. Nothing is sent.

    Args:
        hourly: the pipeline.
        query: the search.
        span: its range; hours that it cuts are tried whole.
        above: number of events of an hour above which the alert fires; every redacted event counts.
        deadline_s: seconds after which no further hour is tried.

    Raises:
        ConfigurationError: a rule cannot say what the query says, or its rule matches other
            events of these hours, or the range is too long.
    """
    ends_at = monotonic() + deadline_s
    hours = hours_of(span)
    rule = rule_of(query, above)
    simulation = Simulation([rule])
    tried = 0
    for hour in hours:
        if monotonic() > ends_at:
            break
        if not hourly.store.frame_path(FRAME, hour).exists():
            continue
        with connect(hourly.store.temp_dir, threads=1) as connection:
            frame = hourly.store.read_frame(connection, FRAME, hour)
            refuse_other_events(frame, query, rule, hour)
            simulation.take(hour, frame)
        tried += 1
    (outcome,) = simulation.outcomes("webhook")
    return Tried(rule, outcome, tried, len(hours) - tried)


def refuse_other_events(frame: Frame, query: Query, rule: AlertRule, hour: Hour) -> None:
    """Raise if search and rule match different events of an hour.

    They do where a field is a list: a search looks at each element, a rule at the text of the list.
    They do where a phrase stands in a message inside another object: a search looks at the event's own.
    The first `COMPARED_ROWS` events decide.

    Args:
        frame: the events of the hour.
        query: the search.
        rule: the rule that was made of it.
        hour: named in the message.

    Raises:
        ConfigurationError: they match different events.
    """
    paths = [field for field in fields_of(query) if isinstance(place_of(field), Paths)]
    # A column is never a list, and both compare columns in the same way.
    if not paths and not rule.text:
        return
    # The same rows for both: an hour's frame has a fixed order.
    compared = frame.limit(COMPARED_ROWS)
    found = {row["row_uid"] for row in matching_rows(compared, query)}
    matched = {uid for (uid,) in matching(compared, rule).project("row_uid").fetchall()}
    if found != matched and rule.text:
        raise ConfigurationError(
            f"a rule would match other events than this search in the hour {hour.key}: in some of "
            "them the phrase stands in a message or error inside another object"
        )
    if found != matched:
        raise ConfigurationError(
            f"a rule would match other events than this search in the hour {hour.key}: in one of "
            f"them {' or '.join(paths)} is a list, of which a search looks at each element and a "
            "rule at the whole text"
        )
