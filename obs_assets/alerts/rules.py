"""Alert rules. A rule forwards the events that it matches, or fires on a measure of them."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from obs_assets.alerts.templates import Summary
from obs_assets.config import Block
from obs_assets.events import PROMOTED, Frame, one_of, quote
from obs_assets.patterns import Pattern
from obs_assets.severities import GRAVE, level_of

Measure = Literal[
    "count", "weighted_count", "rate_per_minute", "error_ratio", "cost_usd", "p95_duration_ms"
]
Severity = Literal["critical", "error", "warning", "info"]

ADDITIVE = frozenset({"count", "weighted_count", "rate_per_minute", "cost_usd"})
"""Measures that are 0 without an event and only grow while an hour fills."""


_ALIASES = {
    "id": "event_id",
    "type": "event_type",
    "level": "event_level",
    "source": "source_name",
    "master": "master_type",
    "worker": "worker_type",
    "duration": "duration_ms",
    "cost": "cost_usd",
}
"""Name of a field in an event → its column."""

_COMPARISON = re.compile(
    r"\s*(?P<field>[A-Za-z_][\w-]*(?:\.[\w-]+)*)\s*(?P<op>==|!=|>=|<=|>|<|=~|\bin\b|\bexists\b|\bmissing\b)\s*(?P<value>.*?)\s*"
)
_FIELD = re.compile(r"[A-Za-z_][\w-]*(?:\.[\w-]+)*")
_NUMBER = re.compile(r"-?\d+(\.\d+)?")


@dataclass(frozen=True)
class Comparison:
    """A condition of ``where``: ``data.status == failed``, ``duration_ms > 1000``, ``error exists``."""

    field: str
    op: str
    value: str

    @classmethod
    def parse(cls, text: str) -> "Comparison":
        """Parse the text of a condition.


        Raises:
            ValueError: the text does not have the form of a condition.
        """
        found = _COMPARISON.fullmatch(text)
        # `exists` and `missing` take no value, every other operator needs a value.
        if not found or bool(found["value"]) == (found["op"] in {"exists", "missing"}):
            raise ValueError(
                f"cannot read {text!r}; write FIELD OP VALUE, "
                "OP one of == != > >= < <= =~ in exists missing"
            )
        value = found["value"]
        is_quoted = len(value) > 1 and value[0] in "\"'" and value[0] == value[-1]
        if is_quoted:
            value = value[1:-1]
        comparison = cls(
            _ALIASES.get(found["field"], found["field"]),
            found["op"],
            value,
        )
        if comparison.op in {">", ">=", "<", "<="} and not _NUMBER.fullmatch(value):
            raise ValueError(f"{text!r} compares by size: its value must be a number")
        return comparison

    def sql(self, field: str) -> str:
        """SQL that is true or false, never NULL.

        Args:
            field: SQL expression of the field: a VARCHAR, or a numeric column.
        """
        number = f"try_cast({field} AS DOUBLE)"
        values = [self._level(value.strip()) for value in self.value.split(",")]
        match self.op:
            case "exists":
                return f"({field} IS NOT NULL)"
            case "missing":
                return f"({field} IS NULL)"
            case ">" | ">=" | "<" | "<=":
                return f"coalesce({number} {self.op} {self.value}, false)"
            case "=~":
                return f"coalesce(regexp_matches({field}::VARCHAR, {quote(self.value)}, 'i'), false)"
            case "in":
                return one_of(f"{field}::VARCHAR", values)
        equal = f"coalesce({field}::VARCHAR = {quote(self._level(self.value))}, false)"
        # `1.0` and `1` are the same number, but different texts.
        if _NUMBER.fullmatch(self.value):
            equal = f"({equal} OR coalesce({number} = {self.value}, false))"
        if self.op == "!=":
            equal = f"(NOT {equal})"
        return equal

    def _level(self, value: str) -> str:
        # Levels in frames are normalized: `WARN` in a rule means `warning`.
        if self.field == "event_level":
            return _as_in_frames(value)
        return value


def _as_in_frames(level: str) -> str:
    return level_of(level) or ""


def _comparison(text: str) -> str:
    comparison = Comparison.parse(text)
    if comparison.op == "=~":
        from pydantic import TypeAdapter

        TypeAdapter(Pattern).validate_python(comparison.value)
    return text


def _field(name: str) -> str:
    if not _FIELD.fullmatch(name):
        raise ValueError(
            f"{name!r} is not a field; write a column, or a path such as data.status"
        )
    return _ALIASES.get(name, name)


Where = Annotated[str, AfterValidator(_comparison)]
FieldName = Annotated[str, AfterValidator(_field)]


class AlertRule(Block, frozen=True):
    """A condition on events.

    A rule without ``above``, ``below`` and ``absent_hours`` forwards each event that it matches, once, in batches. A
    rule with one of them measures the matching events of an hour, group by group; its alert fires and resolves. An
    event matches when it passes ``levels``, ``types``, ``where`` and ``text``.

    Attributes:
        name: name of the rule, part of the identity of its alerts: a renamed rule is a new rule.
        levels: levels that match, in lower case (``warn`` is ``warning``); an empty list matches
            every event, also an event without a level. Default: error, critical, alert, fatal and
            emergency; every level when the rule has ``where``, ``text`` or a threshold.
        types: event types that match, compared exactly; an empty list matches every type.
        where: conditions on fields, of which all must hold: ``data.status == failed``,
            ``duration_ms > 1000``, ``worker_type in a, b``, ``error =~ time.?out``, ``trace_id
            exists``.
        text: patterns in RE2 syntax, of which one must be found in the JSON text of the event;
            upper and lower case are equal.
        measure: measure of the matching events. ``error_ratio``: share of events that are errors.
            ``count`` counts rows; other counts use weights. ``p95_duration_ms`` is exact within 1
            %.
        above: fire when the measure is above this value, in the unit of ``measure``.
        below: fire when the measure is below this value, in the unit of ``measure``.
        absent_hours: fire when no event matched for this many closed hours; with ``by``, for each
            group that had events in the day before.
        by: fields whose values make groups; each group has an alert of its own.
        window_minutes: measure windows of this length inside the hour and use the worst.
        window_hours: number of hours that are measured together, the newest included.
        against_hours: compare with the mean of this many earlier hours: ``above: 3`` fires at
            three times that mean.
        at_least: smallest number of matching events for which ratios, percentiles and changes are
            judged.
        for_hours: number of consecutive hours in which the condition must hold before the alert
            fires.
        resolve_below: resolve only below this value; by default when the condition no longer
            holds.
        resolve_above: resolve only above this value; by default when the condition no longer
            holds.
        resolve_for_hours: number of consecutive calm hours before the alert resolves.
        cooldown_hours: silence of a group's alert after its message.
        grouping: ``rule``: one message for all groups of an hour; ``group``: a message for each
            group.
        severity: severity in messages, in PagerDuty's words.
        labels: names and values that messages repeat.
        summary: text of the message, a Jinja template in a sandbox.
        max_groups: largest number of groups of an hour: those with most events; the others are
            counted.
    """

    name: str = "errors"
    levels: tuple[str, ...] = GRAVE
    types: tuple[str, ...] = Field((), examples=[["task_failed"]])
    where: tuple[Where, ...] = Field((), examples=[["data.status == failed"]])
    text: tuple[Pattern, ...] = Field((), examples=[["out of memory"]])
    measure: Measure = "count"
    above: float | None = Field(
        None, allow_inf_nan=False, examples=[100], json_schema_extra={"unit": "measure"}
    )
    below: float | None = Field(
        None, allow_inf_nan=False, examples=[5], json_schema_extra={"unit": "measure"}
    )
    absent_hours: int | None = Field(None, ge=1, le=168, examples=[2])
    by: tuple[FieldName, ...] = Field((), examples=[["worker_type"]])
    window_minutes: Literal[1, 2, 3, 4, 5, 6, 10, 12, 15, 20, 30] | None = Field(
        None, examples=[5]
    )
    window_hours: int = Field(1, ge=1, le=168)
    against_hours: int | None = Field(None, ge=1, le=168, examples=[24])
    at_least: int = Field(
        1,
        ge=1,
        json_schema_extra={"unit": "events"},
    )
    for_hours: int = Field(1, ge=1, le=168)
    resolve_below: float | None = Field(
        None, allow_inf_nan=False, examples=[50], json_schema_extra={"unit": "measure"}
    )
    resolve_above: float | None = Field(
        None, allow_inf_nan=False, examples=[10], json_schema_extra={"unit": "measure"}
    )
    resolve_for_hours: int = Field(1, ge=1, le=168)
    cooldown_hours: int = Field(4, ge=0, le=720)
    grouping: Literal["rule", "group"] = "rule"
    severity: Severity = "error"
    labels: Mapping[str, str] = Field({}, examples=[{"team": "platform"}])
    summary: Summary | None = Field(
        None, examples=["{{ rule }}: {{ value }} in {{ group.worker_type }}"]
    )
    max_groups: int = Field(
        1000,
        ge=1,
        le=100_000,
        json_schema_extra={"unit": "groups"},
    )

    @model_validator(mode="before")
    @classmethod
    def _levels_unless_said(cls, values: Any) -> Any:
        if not isinstance(values, Mapping) or "levels" in values:
            return values
        narrowing = ("where", "text", "above", "below", "absent_hours")
        if any(values.get(name) is not None for name in narrowing):
            # Such a rule says itself which events it means, so the default levels would surprise.
            return {**values, "levels": ()}
        return values

    @field_validator("levels")
    @classmethod
    def _levels_as_in_frames(cls, levels: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(_as_in_frames, levels))

    @model_validator(mode="after")
    def _fits_together(self) -> "AlertRule":
        conditions = [
            name
            for name in ("above", "below", "absent_hours")
            if getattr(self, name) is not None
        ]
        if len(conditions) > 1:
            raise ValueError(f"{' and '.join(conditions)} exclude each other: make two rules")
        if not conditions and (useless := _MEASURING & self.model_fields_set):
            raise ValueError(
                f"{sorted(useless)[0]} has no meaning without above, below or absent_hours"
            )
        has_other_hours = self.window_hours > 1 or self.against_hours
        if self.window_minutes and (has_other_hours or self.absent_hours):
            raise ValueError(
                "window_minutes goes with one hour: "
                "leave out window_hours, against_hours and absent_hours"
            )
        if self.absent_hours and (has_other_hours or self.measure != "count"):
            raise ValueError(
                "absent_hours has its own window and measure: "
                "leave out window_hours, against_hours and measure"
            )
        self._check_resolve_thresholds()
        return self

    def _check_resolve_thresholds(self) -> None:
        """Raise if an alert could resolve in an hour in which its condition holds."""
        below, above = self.resolve_below, self.resolve_above
        if below is not None and (self.above is None or below > self.above):
            raise ValueError("resolve_below goes with above, and is not greater")
        if above is not None and (self.below is None or above < self.below):
            raise ValueError("resolve_above goes with below, and is not smaller")

    @property
    def measures(self) -> bool:
        """True for a rule that compares a measured value with a limit; false for a rule that forwards its events."""
        return not (self.above is None and self.below is None and self.absent_hours is None)

    @property
    def window(self) -> int:
        """Number of hours that are judged together."""
        return self.absent_hours or self.window_hours

    @property
    def looks_back(self) -> int:
        """Number of earlier hours that the judgement of an hour needs."""
        compared = self.window - 1 + (self.against_hours or 0)
        if not (self.judges_silence and self.by):
            return max(compared, self.window)
        # The groups of the day before are known from its hours.
        return max(compared, self.window + KNOWN_HOURS)

    @property
    def judges_silence(self) -> bool:
        """Whether the rule fires on too few events, so that only closed hours can be judged."""
        return self.above is None

    @property
    def definition(self) -> str:
        """A hash of the options that decide when the rule fires; a new definition starts without history."""
        options = self.model_dump(mode="json", exclude=set(_MESSAGE_OPTIONS))
        text = json.dumps(options, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


KNOWN_HOURS = 24
"""Hours for which an absence rule with groups remembers a group that had events."""

_MESSAGE_OPTIONS = (
    "cooldown_hours",
    "grouping",
    "severity",
    "labels",
    "summary",
    "enabled",
)
"""Options that change messages, not the state of an alert: a change of them keeps the history."""

_MEASURING = frozenset(
    {
        "measure",
        "by",
        "window_minutes",
        "window_hours",
        "against_hours",
        "at_least",
        "for_hours",
        "max_groups",
        "resolve_below",
        "resolve_above",
        "resolve_for_hours",
        "cooldown_hours",
        "grouping",
        "summary",
    }
)
"""Options without a meaning for a rule that forwards events."""


def paths_of(rules: Sequence[AlertRule]) -> list[str]:
    """The fields that rules read from the event's text, since no column holds them."""
    named: set[str] = set()
    for rule in rules:
        named.update(rule.by)
        named.update(Comparison.parse(text).field for text in rule.where)
    return sorted(named.difference(PROMOTED))


def with_fields(frame: Frame, paths: Sequence[str]) -> Frame:
    """The frame with ``fields``, the list of the values of ``paths``; each event is parsed once."""
    if not paths:
        return frame.project("*, NULL AS fields")
    listed = ", ".join(quote(_json_path(path)) for path in paths)
    return frame.project(f"*, json_extract_string(event, [{listed}]) AS fields")


def field_sql(name: str, paths: Sequence[str]) -> str:
    """SQL of a field in a frame that `with_fields` made."""
    if name in PROMOTED:
        return name
    # Lists of DuckDB begin at 1.
    number = list(paths).index(name) + 1
    return f"fields[{number}]"


def _json_path(field: str) -> str:
    return "$" + "".join(f'."{part}"' for part in field.split("."))


def condition(rule: AlertRule, paths: Sequence[str]) -> str:
    """SQL that says whether the rule matches: true or false, never NULL."""
    if not rule.enabled:
        return "false"
    columns = {"event_level": rule.levels, "event_type": rule.types}
    parts = [one_of(column, values) for column, values in columns.items() if values]
    for text in rule.where:
        comparison = Comparison.parse(text)
        parts.append(comparison.sql(field_sql(comparison.field, paths)))
    if rule.text:
        any_of = "|".join(f"(?:{pattern})" for pattern in rule.text)
        parts.append(f"regexp_matches(event, {quote(any_of)}, 'i')")
    return " AND ".join(parts) or "true"


def matching(frame: Frame, rule: AlertRule) -> Frame:
    """The rows that a rule matches, all columns, in the frame's order.

    Args:
        frame: with the promoted columns, see `obs_assets.events.PROMOTED`.
        rule: a disabled rule matches nothing.
    """
    paths = paths_of([rule])
    matched = with_fields(frame, paths).filter(condition(rule, paths))
    return matched.project("* EXCLUDE (fields)")


def with_rule(frame: Frame, rules: Sequence[AlertRule]) -> Frame:
    """Every row, in order, with the name of the first rule that forwards it in ``rule`` (VARCHAR, NULL for none).

    An event that two rules of a destination match is sent once. Rules that measure forward no event.
    """
    forwarding = [rule for rule in rules if not rule.measures]
    paths = paths_of(forwarding)
    cases = " ".join(
        f"WHEN {condition(rule, paths)} THEN {quote(rule.name)}" for rule in forwarding
    )
    name = "NULL::VARCHAR"
    if cases:
        name = f"CASE {cases} END"
    named = f"{name} AS rule"
    # Without a path no event is parsed, which is nearly the whole cost.
    if not paths:
        return frame.project(f"*, {named}")
    return with_fields(frame, paths).project(f"* EXCLUDE (fields), {named}")
