"""Measurements of an hour, against a slow count of every event."""

import json
import math
from collections.abc import Iterator
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from obs_assets.alerts import AlertRule, matching
from obs_assets.alerts.evaluate import evaluate, from_json, p95, to_json, value_of
from obs_assets_tests.frames import HOUR, frame_of

MEASURES = (
    "count",
    "weighted_count",
    "rate_per_minute",
    "error_ratio",
    "cost_usd",
    "p95_duration_ms",
)
EVENTS = st.lists(
    st.fixed_dictionaries(
        {"type": st.sampled_from(["a", "b"]), "minute": st.integers(0, 59)},
        optional={
            "level": st.sampled_from(["error", "info", "WARN"]),
            "worker": st.sampled_from(["w1", "w2"]),
            "duration_ms": st.integers(0, 10**7),
            "cost": st.integers(0, 1000).map(lambda n: n / 100),
            "data": st.fixed_dictionaries({"status": st.sampled_from(["failed", "ok", 3])}),
        },
    ),
    max_size=40,
)


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        yield connection


def frame(connection: duckdb.DuckDBPyConnection, events: list[dict[str, Any]]) -> Any:
    return frame_of(
        connection,
        [
            {"timestamp": f"{HOUR.start:%Y-%m-%dT%H}:{e.get('minute', 0):02}:00+00:00", **e}
            for e in events
        ],
    )


def slow_value(events: list[dict[str, Any]], measure: str, minutes: int) -> float | None:
    """One group's value, event by event."""
    errors = [e for e in events if e.get("level") == "error"]
    durations = sorted(e["duration_ms"] for e in events if "duration_ms" in e)
    return {
        "count": float(len(events)),
        "weighted_count": float(len(events)),
        "rate_per_minute": len(events) / minutes,
        "error_ratio": len(errors) / len(events) if events else None,
        "cost_usd": round(sum(e.get("cost", 0) for e in events), 6),
        "p95_duration_ms": float(durations[math.ceil(0.95 * len(durations)) - 1])
        if durations
        else None,
    }[measure]


@pytest.mark.slow
@given(events=EVENTS, measure=st.sampled_from(MEASURES), windows=st.sampled_from([None, 5, 20]))
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40
)
def test_measures_are_those_of_a_slow_count(
    connection: duckdb.DuckDBPyConnection,
    events: list[dict[str, Any]],
    measure: str,
    windows: int | None,
) -> None:
    """Every measure of every group, over the hour and in its worst window; p95 over the hour within 1 %."""
    one = AlertRule.model_validate(
        {
            "measure": measure,
            "above": 1,
            "by": ["worker"],
            "types": ["a"],
            "window_minutes": windows,
        }
    )
    found = evaluate(frame(connection, events), [one])[one.definition]
    mine = [event for event in events if event["type"] == "a"]
    assert set(found.groups) == {(event.get("worker"),) for event in mine}
    for group, measurement in found.groups.items():
        members = [event for event in mine if event.get("worker") == group[0]]
        size = windows or 60
        parts = [[e for e in members if e["minute"] // size == n] for n in range(60 // size)]
        values = [
            value
            for part in parts
            if part and (value := slow_value(part, measure, size)) is not None
        ]
        expected = max(values, default=None)
        rel = 0.0101 if measure == "p95_duration_ms" and not windows else 1e-9
        assert value_of(measurement, one, 1) == (
            None if expected is None else pytest.approx(expected, rel=rel)
        )
    assert from_json(to_json({one.definition: found})) == {one.definition: found}


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("data.status == failed", "a"),
        ("data.status != failed", "bcd"),
        ("data.status == 3", "c"),
        ("data.status > 2.5", "c"),
        ("data.status in failed, ok", "ab"),
        ("level == warn", "b"),
        ("duration_ms >= 100", "a"),
        ("cost == 0.5", "b"),
        ("note =~ time.?out", "d"),
        ("data.status missing", "d"),
        ("error exists", "d"),
        ('note == "it\'s a timeout"', "d"),
    ],
)
def test_conditions_on_fields(
    connection: duckdb.DuckDBPyConnection, condition: str, expected: str
) -> None:
    """Columns and paths, text and numbers, by equality, size, list, pattern and presence."""
    events: list[dict[str, Any]] = [
        {"id": "a", "data": {"status": "failed"}, "duration_ms": 100},
        {"id": "b", "data": {"status": "ok"}, "level": "WARN", "cost": 0.5},
        {"id": "c", "data": {"status": 3}},
        {"id": "d", "note": "it's a timeout", "error": "x"},
    ]
    found = matching(
        frame(connection, events), AlertRule.model_validate({"where": [condition]})
    )
    assert "".join(sorted(name for (name,) in found.project("event_id").fetchall())) == expected


def test_groups_beyond_the_bound_are_counted(connection: duckdb.DuckDBPyConnection) -> None:
    """Those with most events are kept, whatever the order of rows."""
    one = AlertRule(above=0, by=("worker_id",), max_groups=2)
    events = [{"worker_id": f"w{n}"} for n in range(5) for _ in range(n + 1)]
    found = evaluate(frame(connection, events), [one])[one.definition]
    assert (set(found.groups), found.left_out) == ({("w4",), ("w3",)}, 3)


def test_few_groups_are_held(connection: duckdb.DuckDBPyConnection) -> None:
    """An hour of 300,000 groups is cut while it is read: the largest, however late they come, and few others."""
    one = AlertRule(above=0, by=("worker_id",), max_groups=3)
    numbers = (
        "SELECT i::VARCHAR AS worker_id "
        "FROM range(300_000) t(i), range(CASE WHEN i % 90_000 = 7 THEN 2 ELSE 1 END)"
    )
    columns = frame(connection, [{}]).project("* EXCLUDE (worker_id)")
    everything = columns.join(connection.sql(numbers), "true")
    memory = pa.proxy_memory_pool(usual := pa.default_memory_pool())
    pa.set_memory_pool(memory)
    try:
        found = evaluate(everything, [one])[one.definition]
    finally:
        pa.set_memory_pool(usual)
    assert set(found.groups) <= {(f"{n}",) for n in (7, 90_007, 180_007, 270_007)}
    assert (len(found.groups), found.left_out) == (3, 299_997)
    assert 0 < (memory.max_memory() or 0) < 8 << 20


def test_p95_of_nothing() -> None:
    """Without a duration there is none; a duration of 0 is 0."""
    assert p95({}) is None
    assert p95({-1: 3}) == 0


@pytest.mark.parametrize(
    "options",
    [
        {"above": 1, "below": 1},
        {"by": ["worker"]},
        {"above": 1, "window_minutes": 7},
        {"above": 1, "window_minutes": 5, "window_hours": 2},
        {"above": 1, "resolve_below": 2},
        {"absent_hours": 2, "measure": "cost_usd"},
        {"where": ["level is error"]},
        {"where": ["cost > much"]},
        {"where": ["note =~ (?<!x)y"]},
        {"text": ["(a)\\1"]},
        {"by": ["a'b"], "above": 1},
        {"above": float("nan")},
        {"above": 1, "summary": "{% for i in range(9) %}{% endfor %}"},
        {"above": 1, "summary": "{{ ''.__class__ }}"[:2] + " 9 * 9 }}"},
        {"above": 1, "summary": "{{ value | center(99999999) }}"},
        {"above": 1, "summary": "{{ secret }}"},
        {"above": 1, "summary": "{{ rule.upper() }}"},
    ],
)
def test_what_cannot_be_meant_is_refused(options: dict[str, Any]) -> None:
    """Conditions that exclude each other, options without a condition, patterns beyond RE2, templates that compute."""
    with pytest.raises(ValidationError):
        AlertRule.model_validate(json.loads(json.dumps(options)))
