"""What an hour looks like: fields, levels by minute, cost."""

import json
from collections.abc import Iterator
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from obs_assets.hourly import profile
from obs_assets.hourly.profile import EVENTS_LOOKED_AT, by_minute, cost_of, fields_of
from obs_assets_tests.frames import frame_of

ALL = "''"
"""What tells hours apart where there is one."""

_NAMES = {str: "string", bool: "boolean", int: "number", float: "number", type(None): "null"}


def paths(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """The slow, obvious way; a list is told by its first item alone, and an object without keys is ``any``."""
    if isinstance(value, dict):
        yield path, "object" if value else "any"
        for key, inner in value.items():
            yield from paths(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        yield path, "array"
        yield from paths(value[0], f"{path}[]") if value else [(f"{path}[]", "null")]
    else:
        yield path, _NAMES[type(value)]


keys = st.sampled_from(["a", "b", "name", "ключ"])
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
)
values = st.recursive(
    scalars | st.text(max_size=3),
    lambda inner: st.dictionaries(keys, inner, max_size=3) | st.lists(inner, max_size=1),
    max_leaves=8,
)


@pytest.mark.slow
@settings(deadline=None)
@given(st.lists(st.dictionaries(keys, values, min_size=1, max_size=4), min_size=1, max_size=6))
def test_fields_are_what_a_walk_finds(events: list[dict[str, Any]]) -> None:
    """Each path of each event with each of its types, whatever the events are."""
    expected: dict[str, set[str]] = {}
    for event in events:
        for path, type_ in paths(event):
            expected.setdefault(path, set()).add(type_)
    expected.pop("")
    with duckdb.connect() as connection:
        found = fields_of(frame_of(connection, events), len(events), ALL)[""]
    assert {path: set(types.split("|")) for path, types in found.items()} == expected


def test_keys_that_are_data_are_one_field() -> None:
    """Identifiers, numbers, masked keys, and all keys of an object that has very many."""
    events: list[dict[str, Any]] = [
        {
            "by_user": {
                f"name{letter}{other}": 1 for letter in "abcdefghijklm" for other in "abcdefgh"
            }
        },
        {
            "runs": {"run-17": {"ok": True}, "run-18": {"ok": False}},
            "a.b": 1,
            "_redaction": {"rules": ["email"]},
        },
        {"seen": {"5f0c1d2e-aaaa-4bbb-8ccc-0123456789ab": 1, "a***@example.com": 2, "": 3}},
    ]
    with duckdb.connect() as connection:
        found = fields_of(frame_of(connection, events), len(events), ALL)[""]
    assert found == {
        '"a.b"': "number",
        "by_user": "object",
        "by_user.*": "number",
        "runs": "object",
        "runs.run-*": "object",
        "runs.run-*.ok": "boolean",
        "seen": "object",
        "seen.*": "number",
        'seen.""': "number",
    }


def test_a_large_hour_is_looked_at_in_part() -> None:
    """The part is chosen by row_uid, so that it is the same at every build, and finds what is not rare."""
    rare = {f"rare_{letter}" for letter in "ghijklmnopqrstuvwxyz"}
    events: list[dict[str, Any]] = [{"common": number} for number in range(1000)]
    events += [{name: 1} for name in sorted(rare)]
    with duckdb.connect() as connection:
        frame = frame_of(connection, events)
        in_part = fields_of(frame, 10 * EVENTS_LOOKED_AT, ALL)[""]
        assert in_part == fields_of(frame, 10 * EVENTS_LOOKED_AT, ALL)[""]
        assert "common" in in_part
        assert rare - in_part.keys()
        assert fields_of(frame, EVENTS_LOOKED_AT, ALL)[""].keys() == {"common", *rare}


def test_a_hundred_events_show_a_field() -> None:
    """However large the hour, and however deep the field: one of ten events is looked at."""
    events = [
        {"data": {"n": n, **({"rare": 1} if n % 100 == 7 else {})}} for n in range(10_000)
    ]
    with duckdb.connect() as connection:
        frame = frame_of(connection, events)
        assert "data.rare" in fields_of(frame, 400 * EVENTS_LOOKED_AT, ALL)[""]


def test_levels_by_minute_and_cost() -> None:
    """Each event is in the minute in which it happened; what has no level is not hidden; a sample is weighed."""
    events = [
        {"timestamp": "2025-12-04T10:00:59.9Z", "level": "error", "cost_usd": 0.1},
        {"timestamp": "2025-12-04T10:59:00Z", "level": "error", "cost_usd": 0.2},
        {"timestamp": "2025-12-04T10:59:59Z"},
    ]
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        frame = frame_of(connection, events, weight=10.0)
        levels, cost = by_minute(frame, ALL)[""], cost_of(frame, ALL)[""]
        without = cost_of(frame.project("* EXCLUDE (weight)"), ALL)[""]
        nothing = by_minute(frame.filter("false"), ALL), cost_of(frame.filter("false"), ALL)
    assert list(levels) == ["error", "no level"]
    assert levels["error"].split(" ") == ["1", *["0"] * 58, "1"]
    assert levels["no level"].split(" ") == [*["0"] * 59, "1"]
    assert cost == {"events with a cost": 2, "USD": 3.0}
    assert without == {"events with a cost": 2, "USD": 0.3}
    assert nothing == ({}, {})


def test_many_levels_are_few_lines() -> None:
    """Those with the most events have a line, the others one together."""
    events = [{"level": f"level-{n:02}"} for n in range(20) for _ in range(40 - n)]
    with duckdb.connect() as connection:
        levels = by_minute(frame_of(connection, events), ALL)[""]
    assert len(levels) == profile.LEVELS + 1
    assert list(levels)[-1] == profile.OTHER_LEVELS
    assert sum(int(n) for line in levels.values() for n in line.split()) == len(events)
    assert json.dumps(levels)
