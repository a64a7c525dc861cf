"""Measurements of one hour: what every rule sees of every group. Pure, and computed in one scan for each grouping."""

import contextlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from obs_assets.alerts.rules import GRAVE_LEVELS, AlertRule, condition, field_sql, paths_of, with_fields
from obs_assets.events import Frame, one_of

Group: TypeAlias = tuple[str | None, ...]
Evaluation: TypeAlias = Mapping[str, "Measured"]
"""Of one hour: `AlertRule.definition` → what the rule measured."""

GAMMA = 1.02
"""Durations are counted in buckets that grow by this factor, so that a quantile is within 1 %: the sketch of
https://www.vldb.org/pvldb/vol12/p2195-masson.pdf, which can be added up over hours."""

LONGEST_GROUP = 200
"""Characters of a group's value that are kept."""

CHUNK_GROUPS = 10_000
"""Groups held at a time, beside those that are kept."""

_LOG_GAMMA = math.log(GAMMA)


@dataclass(frozen=True)
class Measurement:
    """A group's matching events, in a form that adds up over hours.

    Attributes:
        events: how many.
        weight: how many they stand for.
        errors: of the weight, those with an error or a grave level.
        cost_usd: their cost.
        durations: bucket → events, for p95.
        peak: the worst window within the hour, if the rule has windows.
        peak_minute: where it begins.
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
        return Measurement(
            self.events + other.events,
            self.weight + other.weight,
            self.errors + other.errors,
            self.cost_usd + other.cost_usd,
            buckets,
            other.peak if self.peak is None else self.peak,
            other.peak_minute if self.peak is None else self.peak_minute,
        )


@dataclass(frozen=True)
class Measured:
    """What one rule measured in one hour.

    Attributes:
        groups: those with matching events.
        left_out: groups beyond the rule's ``max_groups``.
    """

    groups: Mapping[Group, Measurement] = field(default_factory=dict)
    left_out: int = 0


def evaluate(frame: Frame, rules: Sequence[AlertRule]) -> Evaluation:
    """Measure an hour.

    Args:
        frame: promoted columns, ``event_time``, ``weight`` and ``event``. The text is read only for patterns and for
            fields without a column.
        rules: those that forward, and disabled ones, are left out.

    Returns:
        One entry for each definition; a rule that matched nothing has no groups.
    """
    watching = [rule for rule in rules if rule.measures and rule.enabled]
    if not watching:
        return {}
    paths = paths_of(watching)
    base = with_fields(frame, paths)
    found: dict[str, Measured] = {}
    scans: dict[tuple[tuple[str, ...], int | None], list[AlertRule]] = {}
    for rule in watching:
        scans.setdefault((rule.by, rule.window_minutes), []).append(rule)
    for (by, minutes), together in scans.items():
        most = [_MostEvents(rule, number) for number, rule in enumerate(together)]
        # DuckDB lets nothing else run while a result is open: it is closed whatever happens.
        with contextlib.closing(_scan(base, by, minutes, together, paths).to_arrow_reader(CHUNK_GROUPS)) as reader:
            for batch in reader:
                for one in most:
                    one.add(batch)
        found |= {one.rule.definition: one.measured() for one in most}
    return found


def _scan(
    base: Frame, by: tuple[str, ...], minutes: int | None, rules: Sequence[AlertRule], paths: Sequence[str]
) -> Frame:
    """Groups × (aggregates of each rule). A condition that several rules share is computed once for each row."""
    conditions = list(dict.fromkeys(condition(rule, paths) for rule in rules))
    keys = [f"left(({field_sql(name, paths)})::VARCHAR, {LONGEST_GROUP}) AS k{i}" for i, name in enumerate(by)]
    labelled = base.project(
        ", ".join(
            [
                *keys,
                *(f"({text}) AS c{i}" for i, text in enumerate(conditions)),
                *_inputs(rules),
                *([f"(epoch(event_time)::BIGINT // 60 % 60) // {minutes} AS bucket"] if minutes else []),
            ]
        )
    )
    aggregates = [
        text
        for number, rule in enumerate(rules)
        for text in _aggregates(number, rule, f"c{conditions.index(condition(rule, paths))}", exact=bool(minutes))
    ]
    names = [f"k{i}" for i in range(len(by))]
    table = labelled.aggregate(", ".join([*names, *(["bucket"] if minutes else []), *aggregates]))
    if minutes:
        worst = [text for number, rule in enumerate(rules) for text in _worst(number, rule, minutes)]
        table = table.aggregate(", ".join([*names, *worst]))
    return table


def _inputs(rules: Sequence[AlertRule]) -> Iterator[str]:
    measures = {rule.measure for rule in rules}
    if measures & {"weighted_count", "rate_per_minute", "error_ratio"}:
        yield "weight::DECIMAL(28, 9) AS weight"  # sums of decimals are the same in every order of rows
    if "error_ratio" in measures:
        yield f"(error IS NOT NULL OR {one_of('event_level', GRAVE_LEVELS)}) AS bad"
    if "cost_usd" in measures:
        yield "cost_usd"
    if "p95_duration_ms" in measures:
        yield "duration_ms"
        yield f"CASE WHEN duration_ms > 0 THEN ceil(ln(duration_ms) / {_LOG_GAMMA!r})::INT ELSE -1 END AS sketch"


def _aggregates(number: int, rule: AlertRule, matched: str, *, exact: bool) -> Iterator[str]:
    yield f"count(*) FILTER ({matched}) AS n{number}"
    match rule.measure:
        case "weighted_count" | "rate_per_minute":
            yield f"sum(weight) FILTER ({matched}) AS w{number}"
        case "error_ratio":
            yield f"sum(weight) FILTER ({matched}) AS w{number}"
            yield f"sum(weight) FILTER ({matched} AND bad) AS e{number}"
        case "cost_usd":
            yield f"sum(cost_usd) FILTER ({matched}) AS u{number}"
        case "p95_duration_ms" if exact:
            yield f"quantile_disc(duration_ms, 0.95) FILTER ({matched}) AS p{number}"
        case "p95_duration_ms":
            yield f"histogram(sketch) FILTER ({matched} AND duration_ms IS NOT NULL) AS d{number}"


def _worst(number: int, rule: AlertRule, minutes: int) -> Iterator[str]:
    """The worst of a group's windows; one without an event counts as 0 where that means something."""
    value = {
        "count": f"n{number}",
        "weighted_count": f"w{number}",
        "rate_per_minute": f"w{number} / {minutes}",
        "error_ratio": f"coalesce(e{number}, 0) / w{number}",
        "cost_usd": f"coalesce(u{number}, 0)",
        "p95_duration_ms": f"p{number}",
    }[rule.measure]
    enough = (
        f"n{number} > 0 AND n{number} >= {rule.at_least if rule.measure in {'error_ratio', 'p95_duration_ms'} else 1}"
    )
    judged = f"CASE WHEN {enough} THEN ({value})::DOUBLE END"
    yield f"sum(n{number})::BIGINT AS n{number}"
    pick = "min" if rule.judges_silence else "max"
    yield f"{pick}({judged}) AS peak{number}"
    yield f"arg_{pick}(bucket * {minutes}, {judged}) AS at{number}"
    yield f"count(*) FILTER (n{number} > 0) AS b{number}"


class _MostEvents:
    """One rule's columns of a scan, of the groups with most events: the others are counted, not held."""

    def __init__(self, rule: AlertRule, number: int) -> None:
        self.rule = rule
        self._events = f"n{number}"
        self._number = str(number)
        self._keys = [f"k{i}" for i in range(len(rule.by))]
        self._held: list[pa.Table] = []
        self._rows = self._matched = 0

    def add(self, batch: pa.RecordBatch) -> None:
        columns = [*self._keys, *(name for name in batch.schema.names if self._is_mine(name))]
        mine = pa.table(batch).select(columns).filter(pc.greater(batch[self._events], 0))
        self._matched += mine.num_rows
        self._rows += mine.num_rows
        self._held.append(mine)
        if self._rows > 2 * max(self.rule.max_groups, CHUNK_GROUPS):
            self._cut()

    def measured(self) -> Measured:
        self._cut()
        (table,) = self._held or [None]
        rows = table.to_pylist() if table is not None else []
        groups = {
            tuple(row[key] for key in self._keys): _measurement(
                {name.removesuffix(self._number): value for name, value in row.items() if name not in self._keys},
                self.rule,
            )
            for row in rows
        }
        return Measured(groups, self._matched - len(groups))

    def _is_mine(self, name: str) -> bool:
        return name not in self._keys and name.rstrip("0123456789") + self._number == name

    def _cut(self) -> None:
        if not self._held:
            return
        table = pa.concat_tables(self._held)
        if table.num_rows > self.rule.max_groups:
            order = [(self._events, "descending"), *((key, "ascending") for key in self._keys)]
            table = table.sort_by(order).slice(0, self.rule.max_groups).combine_chunks()
        self._held, self._rows = [table], table.num_rows


def _measurement(row: Mapping[str, Any], rule: AlertRule) -> Measurement:
    peak, minute = row.get("peak"), row.get("at")
    if (
        rule.window_minutes
        and rule.judges_silence
        and row["b"] < 60 // rule.window_minutes
        and rule.measure in _COUNTED
    ):
        peak, minute = 0.0, None
    return Measurement(
        row["n"],
        float(row.get("w") or 0),
        float(row.get("e") or 0),
        float(row.get("u") or 0),
        dict(row.get("d") or {}),
        None if peak is None else float(peak),
        minute,
    )


_COUNTED = frozenset({"count", "weighted_count", "rate_per_minute", "cost_usd"})


def p95(durations: Mapping[int, int]) -> float | None:
    """The smallest duration, within 1 %, that 95 % do not exceed; None without any."""
    rank = math.ceil(0.95 * sum(durations.values()))
    for bucket in sorted(durations):
        rank -= durations[bucket]
        if rank <= 0:
            return 0.0 if bucket < 0 else 2 * GAMMA**bucket / (GAMMA + 1)
    return None


def value_of(measurement: Measurement, rule: AlertRule, hours: int) -> float | None:
    """What the rule measures of a group's events in ``hours`` hours; None where there is nothing to be said."""
    if rule.window_minutes:
        return measurement.peak if measurement.events or rule.measure not in _COUNTED else 0.0
    if rule.measure == "p95_duration_ms":
        return p95(measurement.durations)
    if rule.measure == "error_ratio":
        return measurement.errors / measurement.weight if measurement.weight else None
    return {
        "count": float(measurement.events),
        "weighted_count": measurement.weight,
        "rate_per_minute": measurement.weight / (60 * hours),
        "cost_usd": measurement.cost_usd,
    }[rule.measure]


def to_json(evaluation: Evaluation) -> str:
    """An evaluation as it is stored; the same text for the same evaluation."""
    document = {
        definition: {
            "left_out": measured.left_out,
            "groups": [
                [list(group), _packed(measured.groups[group])] for group in sorted(measured.groups, key=group_key)
            ],
        }
        for definition, measured in evaluation.items()
    }
    return json.dumps(document, sort_keys=True, separators=(",", ":"))


def from_json(text: str) -> dict[str, Measured]:
    """Read what `to_json` wrote."""
    return {
        definition: Measured(
            {tuple(group): _unpacked(packed) for group, packed in stored["groups"]},
            stored["left_out"],
        )
        for definition, stored in json.loads(text).items()
    }


def group_key(group: Group) -> tuple[tuple[bool, str], ...]:
    """Orders groups, missing values last."""
    return tuple((value is None, value or "") for value in group)


def _packed(m: Measurement) -> list[Any]:
    return [m.events, m.weight, m.errors, m.cost_usd, sorted(m.durations.items()), m.peak, m.peak_minute]


def _unpacked(packed: list[Any]) -> Measurement:
    events, weight, errors, cost_usd, durations, peak, minute = packed
    return Measurement(events, weight, errors, cost_usd, dict(map(tuple, durations)), peak, minute)
