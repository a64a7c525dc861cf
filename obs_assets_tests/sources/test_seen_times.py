"""A time that is seen in an event's first bytes is the one that parsing it finds."""

import json
from datetime import UTC, datetime, timedelta

import duckdb
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from obs_assets.sources import views
from obs_assets.sources.json_text import has_duplicates
from obs_assets.sources.seen_times import seen_times
from obs_assets.sources.times import EVENT_TIME, TIME_PATHS, TIME_REASON, time_text

EARLIEST = datetime(2020, 1, 1, tzinfo=UTC)
LATEST = datetime(2031, 5, 7, 12, tzinfo=UTC)
NOON = "2031-05-06T12:00:00"

_SQL = f"""
SELECT CASE WHEN {TIME_REASON} IS NULL THEN epoch_us(event_time) END FROM (SELECT *, {EVENT_TIME} AS event_time
FROM (SELECT *, {time_text(TIME_PATHS)} AS time_text
FROM (SELECT unnest($lines) AS line, $latest::TIMESTAMPTZ - INTERVAL 24 HOUR AS landed_at,
    $earliest::TIMESTAMPTZ AS first_hour)))
"""


def seen(lines: list[str], field: str = "timestamp", **options: int) -> list[int | None]:
    """The moments that are seen, None for the others; the lines lie in one buffer, as those of a batch do."""
    data = "\n".join(lines).encode()
    ends = np.cumsum([len(line.encode()) + 1 for line in lines]) - 1
    texts = views.of(data, ends - [len(line.encode()) for line in lines], ends)
    moments, is_seen = seen_times(texts, field, EARLIEST, LATEST, **options)
    return [
        int(moment) if found else None for moment, found in zip(moments, is_seen, strict=True)
    ]


def micros(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


digits = st.integers(0, 99).map("{:02d}".format)
clocks = st.tuples(digits | st.just("07"), digits | st.just("59"), digits | st.just("30")).map(
    ":".join
)
days = st.sampled_from(
    [
        "2031-05-06",
        "2031-05-07",
        "2031-05-08",
        "2019-12-31",
        "2030-02-29",
        "1999-01-01",
        "203x-05-06",
    ]
)
fractions = st.just("") | st.integers(0, 10**9 - 1).flatmap(
    lambda number: st.integers(1, 9).map(lambda width: f".{number:09d}"[: 1 + width])
)
written = st.tuples(
    days,
    st.sampled_from("TTT t"),
    clocks,
    fractions,
    st.sampled_from(["Z", "Z", "", "z", "+00:00", "/"]),
)
times = written.map("".join) | st.sampled_from(
    ["2031-05-06T1a:00:00Z", "2031-05-06T12:00:0:Z", "2031-05-06T12;00:00Z"]
)
keys = st.sampled_from(
    ["timestamp"] * 4 + ["\\u0074imestamp", 'x\\",\\"timestamp', "time", "Timestamp", "a"]
)
texts = st.sampled_from(
    ["x", "{", "[", "\\\\", "é" * 9, "z" * 90, ',\\"timestamp\\":\\"2031-05-06T12:00:00Z\\"']
)
strings = (times | texts).map(lambda text: f'"{text}"')
scalars = strings | st.sampled_from(["1", "null", "true", "1.5e3"])
pairs = st.tuples(keys, scalars)


def _object(fields: list[tuple[str, str]], comma: str, colon: str) -> str:
    return "{" + comma.join(f'"{name}"{colon}{value}' for name, value in fields) + "}"


nested = st.lists(pairs, max_size=2).map(lambda fields: _object(fields, ",", ":"))
values = scalars | nested | nested.map(lambda text: f"[{text}]")
events = st.tuples(
    st.lists(st.tuples(keys, values), max_size=4),
    st.sampled_from([",", ", ", " , "]),
    st.sampled_from([":", ": ", " : "]),
).map(lambda parts: _object(*parts))


@pytest.mark.slow
@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(drawn=st.lists(events, min_size=1, max_size=12), rows=st.sampled_from([1, 3, 1 << 15]))
@example(
    drawn=[
        '{"a":{"timestamp":"2031-05-06T11:00:00Z"}}',
        '{"a":1,"timestamp":"2031-05-06T12:00:00Z"}',
    ],
    rows=3,
)
@example(drawn=['{"abcde":{"timestamp":"2031-05-06T11:00:00Z"}}'], rows=3)
@example(
    drawn=[
        '{"a": "12345", "timestamp": "2031-05-06T12:00:00Z"}',
        '{"a":["12345", "timestamp", "1"]}',
    ],
    rows=3,
)
def test_what_is_seen_is_what_parsing_finds(
    connection: duckdb.DuckDBPyConnection,
    drawn: list[str],
    rows: int,
) -> None:
    """Whatever stands in front of the time, in it and around it: the same moment, or it is left to the parser."""
    lines = [line for line in drawn if not has_duplicates(line)]
    assume(lines)
    parameters = {"lines": lines, "latest": LATEST, "earliest": EARLIEST}
    parsed = [moment for (moment,) in connection.execute(_SQL, parameters).fetchall()]
    found = seen(lines, rows_at_once=rows)
    for line, at_once, moment in zip(lines, found, parsed, strict=True):
        assert at_once in {None, moment}, line


USUAL = '{"a": "0123456789abcdef", "timestamp": "2031-05-06T11:34:56.123Z", "b": 1}'
LATER = USUAL[24:-1]
NEARLY = [
    f'{begin:x<23}"{LATER}{end}'
    for begin, end in [('{"a": [{"c": "', "}]}"), ('{"a":{"c":"', "}}"), ('{"":{"c":"', "}}")]
]
NEARLY += ['{"a": "0123456789", "b":{ "timestamp": "2031-05-06T11:34:56.123Z"}}', '{"n": 1}']


def test_what_is_nearly_as_usual_is_not_taken_for_it(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    """Any character may be another one, or a bracket open: only what is read in the same way is seen."""
    drawn = [
        USUAL[:n] + other + USUAL[n + 1 :]
        for n in range(len(USUAL))
        for other in ' !"+,-./0123456789:;@ATZ[]`az{}'
    ]
    lines = [USUAL, *(line for line in [*drawn, *NEARLY] if is_unique_json(line))]
    parameters = {"lines": lines, "latest": LATEST, "earliest": EARLIEST}
    parsed = [moment for (moment,) in connection.execute(_SQL, parameters).fetchall()]
    found = seen(lines)
    assert all(map(is_unique_json, NEARLY))
    assert found[0] == micros(datetime(2031, 5, 6, 11, 34, 56, 123_000, tzinfo=UTC))
    assert sum(moment is not None for moment in found) > 500
    for line, at_once, moment in zip(lines, found, parsed, strict=True):
        assert at_once in {None, moment}, line


def is_unique_json(line: str) -> bool:
    try:
        return not has_duplicates(line)
    except json.JSONDecodeError:
        return False


@pytest.mark.parametrize("form", ["", ".5", ".123", ".123456"])
@pytest.mark.parametrize("compact", [False, True])
def test_usual_events_are_seen(form: str, compact: bool) -> None:
    """What is in front of the time may differ in length, days and times of day too; nothing is left to the parser."""
    separators = (",", ":") if compact else None
    moments = [
        datetime(2031, 5, 5, 23, 59, 58, tzinfo=UTC) + timedelta(milliseconds=371 * n)
        for n in range(40)
    ]
    texts = [moment.strftime("%Y-%m-%dT%H:%M:%S") for moment in moments]
    lines = [
        json.dumps(
            {"type": "x" * (n // 8), "timestamp": f"{text}{form}Z", "n": n},
            separators=separators,
        )
        for n, text in enumerate(texts)
    ]
    fraction = timedelta(seconds=float(form or 0))
    assert seen(lines) == [
        micros(moment.replace(microsecond=0) + fraction) for moment in moments
    ]


def test_parts_of_a_batch_are_seen_alike() -> None:
    """Events that are looked at three at a time are seen as all of them together."""
    lines = [
        f'{{"id":"{n:08d}","timestamp":"2031-05-06T12:00:0{n}Z","text":"and more"}}'
        for n in range(8)
    ]
    together = seen(lines)
    assert None not in together
    assert seen(lines, rows_at_once=3) == together


def test_other_fields_are_seen() -> None:
    """The first field that decides may be any that has a plain name."""
    line = f'{{"@timestamp":"{NOON}Z"}}'
    assert seen([line], "@timestamp") == [micros(datetime(2031, 5, 6, 12, tzinfo=UTC))]
    assert seen([line], "data.at") == seen([line], ":") == [None]


def test_limits_are_kept() -> None:
    """A moment that no hour takes is left, one at the limit is seen."""
    edges = [
        "2020-01-01T00:00:00Z",
        "2019-12-31T23:59:59.999999Z",
        "2031-05-07T12:00:00.000000Z",
        "2031-05-07T12:00:00.000001Z",
    ]
    lines = [f'{{"timestamp":"{edge}"}}' for edge in edges]
    assert seen(lines) == [micros(EARLIEST), None, micros(LATEST), None]
