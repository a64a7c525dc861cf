"""Histograms, facets and fields count what a slow program counts, and say what they did not read."""

import time
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

from obs_assets.errors import ConfigurationError
from obs_assets.search.facets import Facet, facets, fields_seen
from obs_assets.search.histogram import (
    AUTO_BARS,
    auto_step,
    count,
    histogram,
    starts_of_bars,
)
from obs_assets.search.language import EVERYTHING, Exists, parse
from obs_assets.search.predicate import matches
from obs_assets.search.questions import Span
from obs_assets.search.selection import Selection
from obs_assets.search.statistics import statistics_of
from obs_assets.severities import LEVELS
from obs_assets_tests.search.conftest import HOURS, WHOLE, Stored, StoredRow
from obs_assets_tests.search.test_compilations import INJECTIONS

HOUR = timedelta(hours=1)
START = WHOLE.start

QUERIES = (
    "",
    "level:error",
    "-type:note",
    "master:* OR level:warning",
    "disk",
    "n:5",
    "-worker:w1",
)
FIELDS = (
    "level",
    "event_type",
    "master",
    "worker",
    "tags",
    "n",
    "usage.model",
    "duration",
    "nothing",
)

moments = st.integers(0, 32 * 60).map(lambda minutes: START - HOUR + timedelta(minutes=minutes))
spans = (
    st.tuples(moments, moments)
    .filter(lambda pair: pair[0] < pair[1])
    .map(lambda pair: Span(*pair))
)
several = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def within(stored: Stored, span: Span, query: str) -> list[StoredRow]:
    """The rows of a range that match, by a slow and obvious program."""
    asked = parse(query)
    return [
        row
        for row in stored.rows
        if span.start <= row.timestamp < span.end and row.matches(asked)
    ]


@pytest.mark.slow
@several
@given(
    span=spans,
    query=st.sampled_from(QUERIES),
    by=st.none() | st.sampled_from(FIELDS),
    step_and_tz=st.tuples(
        st.sampled_from((timedelta(minutes=10), HOUR, 3 * HOUR, timedelta(days=1))),
        st.sampled_from(("UTC", "Asia/Kolkata")),
    ),
)
def test_a_histogram_counts_every_row_once(
    stored: Stored,
    span: Span,
    query: str,
    by: str | None,
    step_and_tz: tuple[timedelta, str],
) -> None:
    """In the bar and the group of its value; from statistics, from rows and from both together."""
    selection = Selection(stored.tables, parse(query), span)
    step, tz = step_and_tz
    found = histogram(stored.connection, selection, step=step, by=by, tz=tz)
    assert found.is_complete
    assert [found.bars[0].start, found.bars[-1].end] == [span.start, span.end]
    for bar, later in zip(found.bars, found.bars[1:], strict=False):
        assert bar.end == later.start
    for bar in found.bars:
        rows = within(stored, Span(bar.start, bar.end), query)
        assert bar.rows == len(rows)
        assert bar.events == sum(row.columns["weight"] for row in rows)
        if by:
            assert sum(group.rows for group in bar.groups) == len(rows)
            absent = sum(not row.matches(Exists(by)) for row in rows)
            assert absent == sum(
                group.rows for group in bar.groups if group.value is None and not group.is_other
            )
    whole = count(stored.connection, selection)
    assert (whole.rows, whole.events) == (found.rows, found.events)


def test_groups_have_the_rows_that_a_filter_by_their_value_finds(stored: Stored) -> None:
    """A click on a group adds a filter to the query, and the count must stay the same."""
    for by in ("worker", "n", "usage.model", "level"):
        selection = Selection(stored.tables, EVERYTHING, WHOLE)
        found = histogram(stored.connection, selection, by=by)
        counted: Counter[str] = Counter()
        for bar in found.bars:
            counted.update({group.value: group.rows for group in bar.groups if group.value})
        assert len(counted) >= 1
        for value, rows in counted.items():
            assert rows == len(within(stored, WHOLE, f'{by}:"{value}"')), (by, value)


def test_whole_hours_are_not_counted_from_events(stored: Stored) -> None:
    """A histogram and a facet of the columns of statistics read no event, whatever the range has."""
    tables = replace(stored.tables, events=sql.Identifier("no_such_table"))
    selection = Selection(tables, parse("-level:error"), WHOLE)
    found = histogram(stored.connection, selection, step=HOUR, by="type")
    assert found.rows == len(within(stored, WHOLE, "-level:error"))
    (facet,) = facets(stored.connection, selection, ["master"])
    assert facet.rows_read == found.rows


def test_a_count_whose_time_is_over_says_until_where(stored: Stored) -> None:
    """Bars before that moment are 0, and the answer is not complete."""
    selection = Selection(stored.tables, parse("disk"), WHOLE)
    found = histogram(stored.connection, selection, step=HOUR, deadline_s=0)
    assert (found.is_complete, found.rows, found.searched) == (
        False,
        0,
        Span(WHOLE.end, WHOLE.end),
    )


def test_most_frequent_values_have_bars_of_their_own(stored: Stored) -> None:
    """All other values are counted together, so that no row is lost."""
    for by in ("type", "tags"):
        selection = Selection(stored.tables, EVERYTHING, WHOLE)
        found = histogram(stored.connection, selection, by=by, most_groups=1)
        assert found.rows == len(stored.rows)
        assert any(group.is_other for bar in found.bars for group in bar.groups)
        assert sum(group.rows for bar in found.bars for group in bar.groups) == found.rows


# -- edges -------------------------------------------------------------------------------------------------------------


@given(seconds=st.integers(1, 10**9))
def test_an_automatic_step_gives_few_bars(seconds: int) -> None:
    """From a second to thirty years."""
    span = Span(START, START + timedelta(seconds=seconds))
    step = auto_step(span)
    starts = starts_of_bars(span, step, "Europe/Berlin")
    assert len(starts) <= max(AUTO_BARS, seconds / 28 / 86_400) + 2
    assert starts == sorted(set(starts))


def test_days_begin_at_midnight_of_the_zone() -> None:
    """The day on which summer time ends has 25 hours."""
    start = datetime(2025, 10, 25, 12, tzinfo=UTC)
    span = Span(start, start + timedelta(days=3))
    starts = starts_of_bars(span, timedelta(days=1), "Europe/Berlin")
    local = [edge.astimezone(ZoneInfo("Europe/Berlin")).hour for edge in starts[1:]]
    assert local == [0, 0, 0]
    assert starts[2] - starts[1] == timedelta(hours=25)


def test_weeks_begin_on_mondays() -> None:
    """Also where the range begins within a week."""
    span = Span(START, START + timedelta(days=20))
    starts = starts_of_bars(span, timedelta(days=7), "UTC")
    assert [edge.isoweekday() for edge in starts[1:]] == [1, 1, 1]


@pytest.mark.parametrize(
    ("step", "tz", "message"),
    [
        (timedelta(seconds=1), "UTC", "more than 2,000 bars: choose a longer step"),
        (timedelta(0), "UTC", "choose a longer step"),
        (HOUR, "Mars/Olympus", "is no name of a time zone: write for example Europe/Berlin"),
        (HOUR, "../etc/passwd", "is no name of a time zone"),
    ],
)
def test_mistakes_of_steps_are_explained(step: timedelta, tz: str, message: str) -> None:
    """A step that is too short, and a zone that nobody knows."""
    with pytest.raises(ConfigurationError, match=message):
        starts_of_bars(WHOLE, step, tz)


# -- facets and fields -------------------------------------------------------------------------------------------------


def values_by_hand(stored: Stored, span: Span, query: str, field: str) -> dict[str | None, int]:
    """How many rows a filter by each value finds, for values that the events of `conftest` have."""
    rows = within(stored, span, query)
    written = (
        "info",
        "error",
        "warning",
        "m1",
        "m2",
        "w1",
        "w2",
        "t1",
        "old",
        "new",
        "5",
        "a",
        "b",
        "40",
        "60",
    )
    counted: dict[str | None, int] = {}
    for value in (*written, "task_done", "task_failed", "note"):
        if _can_compare(field, value):
            counted[value] = sum(
                matches(parse(f"{field}:{value}"), row.columns, row.event) for row in rows
            )
    counted[None] = sum(not row.matches(Exists(field)) for row in rows)
    return {value: number for value, number in counted.items() if number}


def _can_compare(field: str, value: str) -> bool:
    """A number needs a number; other words for a level find it too."""
    if field == "duration":
        return value.isdigit()
    return field != "level" or value in LEVELS


@pytest.mark.slow
@several
@given(span=spans, query=st.sampled_from(QUERIES))
def test_a_facet_counts_what_a_filter_by_its_value_finds(
    stored: Stored, span: Span, query: str
) -> None:
    """Columns, paths, lists and numbers beside their text; a range of few rows is counted exactly."""
    selection = Selection(stored.tables, parse(query), span)
    for facet in facets(stored.connection, selection, FIELDS):
        assert (facet.is_exact, facet.how) == (True, "exact")
        expected = values_by_hand(stored, span, query, facet.field)
        assert {found.value: found.rows for found in facet.values} == expected
        assert facet.distinct == len(expected.keys() - {None})


def test_a_facet_of_many_rows_says_that_it_read_the_newest(stored: Stored) -> None:
    """A field of the statistics stays exact beside it."""
    selection = Selection(stored.tables, EVERYTHING, WHOLE)
    fields = ["trace", "level", "worker"]
    trace, level, worker = facets(stored.connection, selection, fields, sample_rows=12)
    assert (trace.how, level.how, worker.how) == ("newest 12 rows", "exact", "exact")
    newest = Span(HOURS[-1].start, HOURS[-1].end)
    assert {found.value: found.rows for found in trace.values} == values_by_hand(
        stored, newest, "", "trace"
    )


def test_facets_end_in_time(stored: Stored) -> None:
    """Without time left, a facet has no value and says that it is not exact."""
    selection = Selection(stored.tables, parse("disk"), WHOLE)
    began = time.monotonic()
    (facet,) = facets(stored.connection, selection, ["level"], deadline_s=0)
    assert (facet.is_exact, facet.values) == (False, ())
    assert time.monotonic() - began < 5


def test_fields_are_columns_and_paths(stored: Stored) -> None:
    """With kinds and shares; a list stands for its elements, and a path that names a column is not listed."""
    found = fields_seen(stored.connection, Selection(stored.tables, EVERYTHING, WHOLE))
    assert found.sample_rows == len(stored.rows)
    seen: dict[str, Any] = {field.name: field for field in found.fields}
    assert seen["event_type"].is_column
    assert seen["event_type"].share == 1
    assert (seen["tags"].kinds, seen["tags"].share) == (("string",), pytest.approx(2 / 6))
    assert seen["n"].kinds == ("number", "string")
    assert seen["usage"].kinds == ("object",)
    assert seen["usage.model"].rows == len(stored.rows) * 2 // 6
    assert "level" not in seen
    for field in found.fields:
        assert field.rows == len(within(stored, WHOLE, f"{field.name}:*")), field.name


def test_a_facet_of_a_field_that_no_event_has(stored: Stored) -> None:
    """It is no error: every event is without it."""
    selection = Selection(stored.tables, EVERYTHING, WHOLE)
    facet: Facet
    (facet,) = facets(stored.connection, selection, ["nö'such\"field"])
    assert [(found.value, found.rows) for found in facet.values] == [(None, len(stored.rows))]
    assert facet.distinct == 0


@pytest.mark.parametrize("name", INJECTIONS)
def test_a_name_of_a_field_stays_a_name(stored: Stored, name: str) -> None:
    """Signs of SQL, jsonpath and format strings in a field that is counted are a key that no event has."""
    selection = Selection(stored.tables, EVERYTHING, WHOLE)
    everything = [(None, len(stored.rows))]
    (facet,) = facets(stored.connection, selection, [name])
    assert [(found.value, found.rows) for found in facet.values] == everything
    found = histogram(stored.connection, selection, by=name, step=timedelta(days=28))
    groups = [group for bar in found.bars for group in bar.groups]
    assert sum(group.rows for group in groups if group.value is None) == len(stored.rows)
    by_name = statistics_of(stored.connection, selection, by=name).statistics
    assert [(one.value, one.figures.rows) for one in by_name] == everything
