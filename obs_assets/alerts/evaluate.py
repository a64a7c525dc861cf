"""Measurements of an hour: for every rule, the matching events of every group.

Pure. Rules with the same groups and windows share one scan of the frame.
"""

import contextlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from obs_assets.alerts.rules import AlertRule, condition, field_sql, paths_of, with_fields
from obs_assets.events import Frame, one_of
from obs_assets.severities import GRAVE

Group: TypeAlias = tuple[str | None, ...]
Evaluation: TypeAlias = Mapping[str, "Measured"]
"""`AlertRule.definition` → the rule's measurements of an hour."""

GAMMA = 1.02
"""Factor between the buckets in which durations are counted: a quantile is exact within 1 %.

This is the sketch of https://www.vldb.org/pvldb/vol12/p2195-masson.pdf; sketches of hours can be added.
"""

MAX_GROUP_CHARACTERS = 200
"""Characters of a group's value that are kept."""

GROUPS_PER_BATCH = 10_000
"""Groups that are read from a scan at a time."""

_LOG_GAMMA = math.log(GAMMA)


@dataclass(frozen=True)
class Measurement:
    """The matching events of a group, in a form that can be added over hours.

    Attributes:
        events: number of rows.
        weight: number of events that the rows stand for.
        errors: the part of the weight that has an error or a grave level.
        cost_usd: sum of costs in USD.
        durations: bucket → number of rows, for the 95th percentile.
        peak: value of the worst window in the hour, if the rule has windows.
        peak_minute: minute of the hour at which that window begins.
    """

    events: int = 0
    weight: float = 0.0
    errors: float = 0.0
    cost_usd: float = 0.0
    durations: Mapping[int, int] = field(default_factory=dict)
    peak: float | None = None
    peak_minute: int | None = None

    def __add__(self, other: "Measurement") -> "Measurement":
        buckets = dict(self.durations)
        for bucket, n in other.durations.items():
            buckets[bucket] = buckets.get(bucket, 0) + n
        # A rule with windows judges a single hour: at most one of the two has a peak.
        with_peak = other if self.peak is None else self
        return Measurement(
            events=self.events + other.events,
            weight=self.weight + other.weight,
            errors=self.errors + other.errors,
            cost_usd=self.cost_usd + other.cost_usd,
            durations=buckets,
            peak=with_peak.peak,
            peak_minute=with_peak.peak_minute,
        )


@dataclass(frozen=True)
class Measured:
    """A rule's measurements of an hour.

    Attributes:
        groups: the groups with matching events.
        left_out: number of groups beyond the rule's ``max_groups``.
    """

    groups: Mapping[Group, Measurement] = field(default_factory=dict)
    left_out: int = 0


def evaluate(frame: Frame, rules: Sequence[AlertRule]) -> Evaluation:
    """Measure an hour.

    Args:
        frame: promoted columns, ``event_time``, ``weight`` and ``event``. The text is read only for patterns and for
            fields without a column.
        rules: rules that forward, and disabled rules, are left out.

    Returns:
        An entry for each definition; a rule without matching events has no groups.
    """
    watching = [rule for rule in rules if rule.measures and rule.enabled]
    if not watching:
        return {}
    paths = paths_of(watching)
    base = with_fields(frame, paths)
    found: dict[str, Measured] = {}
    # A scan costs more than its aggregates: rules with the same groups and windows share it.
    scans: dict[tuple[tuple[str, ...], int | None], list[AlertRule]] = {}
    for rule in watching:
        key = (rule.by, rule.window_minutes)
        scans.setdefault(key, []).append(rule)
    for (by, minutes), together in scans.items():
        tops = [_TopGroups(rule, number) for number, rule in enumerate(together)]
        scan = _scan(base, by, minutes, together, paths)
        # While a result of DuckDB is open, the connection runs no other query.
        with contextlib.closing(scan.to_arrow_reader(GROUPS_PER_BATCH)) as reader:
            for batch in reader:
                for top in tops:
                    top.add(batch)
        for top in tops:
            found[top.rule.definition] = top.measured()
    return found


def _scan(
    base: Frame,
    by: tuple[str, ...],
    minutes: int | None,
    rules: Sequence[AlertRule],
    paths: Sequence[str],
) -> Frame:
    """A row for each group, with the aggregates of each rule.

    Columns: ``k0``, ``k1``, … the group's values; then the aggregates, whose names end with the rule's
    number. A condition that several rules share is computed once for each row.
    """
    conditions = list(dict.fromkeys(condition(rule, paths) for rule in rules))
    columns: list[str] = []
    for number, name in enumerate(by):
        # Cut in the engine: a long value must not be copied for each event.
        text = f"({field_sql(name, paths)})::VARCHAR"
        columns.append(f"left({text}, {MAX_GROUP_CHARACTERS}) AS k{number}")
    columns += [f"({text}) AS c{number}" for number, text in enumerate(conditions)]
    columns += _inputs(rules)
    keys = [f"k{number}" for number in range(len(by))]
    windows: list[str] = []
    if minutes:
        # Windows begin at the full hour: 60 is a multiple of every allowed length.
        columns.append(f"(epoch(event_time)::BIGINT // 60 % 60) // {minutes} AS bucket")
        windows = ["bucket"]
    aggregates: list[str] = []
    for number, rule in enumerate(rules):
        matched = f"c{conditions.index(condition(rule, paths))}"
        aggregates += _aggregates(number, rule, matched, exact=bool(minutes))
    grouped = ", ".join([*keys, *windows, *aggregates])
    table = base.project(", ".join(columns)).aggregate(grouped)
    if not minutes:
        return table
    # A second aggregation picks the worst window of each group.
    worst: list[str] = []
    for number, rule in enumerate(rules):
        worst += _worst_window(number, rule, minutes)
    return table.aggregate(", ".join([*keys, *worst]))


def _inputs(rules: Sequence[AlertRule]) -> Iterator[str]:
    measures = {rule.measure for rule in rules}
    if measures & {"weighted_count", "rate_per_minute", "error_ratio"}:
        # Sums of decimals are the same in every order of the rows, sums of floats are not.
        yield "weight::DECIMAL(28, 9) AS weight"
    if "error_ratio" in measures:
        yield f"(error IS NOT NULL OR {one_of('event_level', GRAVE)}) AS bad"
    if "cost_usd" in measures:
        yield "cost_usd"
    if "p95_duration_ms" in measures:
        yield "duration_ms"
        # A duration of 0 has no logarithm; its bucket is -1.
        bucket = f"ceil(ln(duration_ms) / {_LOG_GAMMA!r})::INT"
        yield f"CASE WHEN duration_ms > 0 THEN {bucket} ELSE -1 END AS sketch"


def _aggregates(
    number: int,
    rule: AlertRule,
    matched: str,
    *,
    exact: bool,
) -> Iterator[str]:
    yield f"count(*) FILTER ({matched}) AS n{number}"
    match rule.measure:
        case "weighted_count" | "rate_per_minute":
            yield f"sum(weight) FILTER ({matched}) AS w{number}"
        case "error_ratio":
            yield f"sum(weight) FILTER ({matched}) AS w{number}"
            yield f"sum(weight) FILTER ({matched} AND bad) AS e{number}"
        case "cost_usd":
            yield f"sum(cost_usd) FILTER ({matched}) AS u{number}"
        # A window is judged by itself, so its exact percentile is enough; hours add up sketches.
        case "p95_duration_ms" if exact:
            yield f"quantile_disc(duration_ms, 0.95) FILTER ({matched}) AS p{number}"
        case "p95_duration_ms":
            yield f"histogram(sketch) FILTER ({matched} AND duration_ms IS NOT NULL) AS d{number}"


def _worst_window(
    number: int,
    rule: AlertRule,
    minutes: int,
) -> Iterator[str]:
    """Aggregates of the worst window of a group. A window without an event is added in `_measurement`."""
    value = {
        "count": f"n{number}",
        "weighted_count": f"w{number}",
        "rate_per_minute": f"w{number} / {minutes}",
        "error_ratio": f"coalesce(e{number}, 0) / w{number}",
        "cost_usd": f"coalesce(u{number}, 0)",
        "p95_duration_ms": f"p{number}",
    }[rule.measure]
    # A ratio of a few events says little; a count means the same for any number of events.
    fewest = 1
    if rule.measure in {"error_ratio", "p95_duration_ms"}:
        fewest = rule.at_least
    enough = f"n{number} > 0 AND n{number} >= {fewest}"
    judged = f"CASE WHEN {enough} THEN ({value})::DOUBLE END"
    yield f"sum(n{number})::BIGINT AS n{number}"
    pick = "min" if rule.judges_silence else "max"
    yield f"{pick}({judged}) AS peak{number}"
    yield f"arg_{pick}(bucket * {minutes}, {judged}) AS at{number}"
    yield f"count(*) FILTER (n{number} > 0) AS b{number}"


class _TopGroups:
    """A rule's columns of a scan: keeps the groups with most events and counts the others."""

    def __init__(self, rule: AlertRule, number: int) -> None:
        self.rule = rule
        self._events = f"n{number}"
        self._number = str(number)
        self._keys = [f"k{i}" for i in range(len(rule.by))]
        self._held: list[pa.Table] = []
        self._rows = self._matched = 0

    def add(self, batch: pa.RecordBatch) -> None:
        of_rule = filter(self._is_of_rule, batch.schema.names)
        has_events = pc.greater(batch[self._events], 0)
        mine = pa.table(batch).select([*self._keys, *of_rule]).filter(has_events)
        self._matched += mine.num_rows
        self._rows += mine.num_rows
        self._held.append(mine)
        # Cut seldom, because a cut sorts; twice the limit is at most in memory.
        if self._rows > 2 * max(self.rule.max_groups, GROUPS_PER_BATCH):
            self._cut()

    def measured(self) -> Measured:
        self._cut()
        groups: dict[Group, Measurement] = {}
        for table in self._held:
            for row in table.to_pylist():
                group = tuple(row.pop(key) for key in self._keys)
                values = {}
                for name, value in row.items():
                    values[name.removesuffix(self._number)] = value
                groups[group] = _measurement(values, self.rule)
        return Measured(groups, self._matched - len(groups))

    def _is_of_rule(self, name: str) -> bool:
        return name not in self._keys and name.rstrip("0123456789") + self._number == name

    def _cut(self) -> None:
        if not self._held:
            return
        table = pa.concat_tables(self._held)
        if table.num_rows > self.rule.max_groups:
            # Then by the values of the group, so that each evaluation keeps the same groups.
            by_keys = [(key, "ascending") for key in self._keys]
            ordered = table.sort_by([(self._events, "descending"), *by_keys])
            # A slice alone would keep the memory of all groups.
            table = ordered.slice(0, self.rule.max_groups).combine_chunks()
        self._held = [table]
        self._rows = table.num_rows


def _measurement(row: Mapping[str, Any], rule: AlertRule) -> Measurement:
    """A measurement from a row of `_scan`, its columns without the rule's number."""
    peak, minute = row.get("peak"), row.get("at")
    if rule.window_minutes and rule.judges_silence and rule.measure in _COUNTED:
        windows = 60 // rule.window_minutes
        # A window without an event has no row, and is the worst for a rule that judges silence.
        if row["b"] < windows:
            peak, minute = 0.0, None
    if peak is not None:
        peak = float(peak)
    return Measurement(
        events=row["n"],
        weight=float(row.get("w") or 0),
        errors=float(row.get("e") or 0),
        cost_usd=float(row.get("u") or 0),
        durations=dict(row.get("d") or {}),
        peak=peak,
        peak_minute=minute,
    )


_COUNTED = frozenset({"count", "weighted_count", "rate_per_minute", "cost_usd"})
"""Measures that are 0 in a window without an event."""


def p95(durations: Mapping[int, int]) -> float | None:
    """The 95th percentile of durations in milliseconds, within 1 %; None without a duration.

    Args:
        durations: bucket → number of durations; bucket -1 holds durations of 0.
    """
    rank = math.ceil(0.95 * sum(durations.values()))
    for bucket in sorted(durations):
        rank -= durations[bucket]
        if rank <= 0:
            if bucket < 0:
                return 0.0
            # The middle of the bucket, so that the error is the same on both sides.
            return 2 * GAMMA**bucket / (GAMMA + 1)
    return None


def value_of(
    measurement: Measurement,
    rule: AlertRule,
    hours: int,
) -> float | None:
    """The rule's measure of a group's events in ``hours`` hours; None if it is not defined, as a ratio of no events."""
    if rule.window_minutes:
        is_zero = not measurement.events and rule.measure in _COUNTED
        return 0.0 if is_zero else measurement.peak
    if rule.measure == "p95_duration_ms":
        return p95(measurement.durations)
    if rule.measure == "error_ratio":
        if not measurement.weight:
            return None
        return measurement.errors / measurement.weight
    return {
        "count": float(measurement.events),
        "weighted_count": measurement.weight,
        "rate_per_minute": measurement.weight / (60 * hours),
        "cost_usd": measurement.cost_usd,
    }[rule.measure]


def to_json(evaluation: Evaluation) -> str:
    """An evaluation as it is stored; equal evaluations give equal text."""
    document: dict[str, Any] = {}
    for definition, measured in evaluation.items():
        groups = []
        for group in sorted(measured.groups, key=group_key):
            groups.append([list(group), _packed(measured.groups[group])])
        document[definition] = {"left_out": measured.left_out, "groups": groups}
    return json.dumps(document, sort_keys=True, separators=(",", ":"))


def from_json(text: str) -> dict[str, Measured]:
    """Read what `to_json` wrote."""
    evaluation: dict[str, Measured] = {}
    for definition, stored in json.loads(text).items():
        groups = {tuple(group): _unpacked(packed) for group, packed in stored["groups"]}
        evaluation[definition] = Measured(groups, stored["left_out"])
    return evaluation


def group_key(group: Group) -> tuple[tuple[bool, str], ...]:
    """Sort key of groups; missing values come last."""
    return tuple((value is None, value or "") for value in group)


def _packed(measurement: Measurement) -> list[Any]:
    return [
        measurement.events,
        measurement.weight,
        measurement.errors,
        measurement.cost_usd,
        sorted(measurement.durations.items()),
        measurement.peak,
        measurement.peak_minute,
    ]


def _unpacked(packed: list[Any]) -> Measurement:
    events, weight, errors, cost_usd, durations, peak, minute = packed
    return Measurement(
        events,
        weight,
        errors,
        cost_usd,
        dict(map(tuple, durations)),
        peak,
        minute,
    )
