"""Statistics are what a slow program computes from the rows, weighted, and read no event where hours can answer."""

from collections import defaultdict
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import errors, sql

from obs_assets.search.figures import Figures
from obs_assets.search.language import EVERYTHING, parse
from obs_assets.search.questions import Span
from obs_assets.search.selection import Selection
from obs_assets.search.statistics import statistics_of
from obs_assets.severities import GRAVE
from obs_assets_tests.search.conftest import WHOLE, Stored, StoredRow
from obs_assets_tests.search.test_counts import spans, within

QUERIES = ("", "level:error", "-type:note", "disk", "worker:w1", "-worker:* level:info")
HOUR = timedelta(hours=1)


def figures_by_hand(rows: list[StoredRow]) -> Figures:
    """The figures of rows, one after the other."""
    columns = [row.columns for row in rows]
    durations = [row for row in columns if row["duration_ms"] is not None]
    costs = [row for row in columns if row["cost_usd"] is not None]
    return Figures(
        rows=len(rows),
        events=sum(row["weight"] for row in columns),
        errors=sum(
            row["weight"]
            for row in columns
            if row["error"] is not None or row["event_level"] in GRAVE
        ),
        duration_ms_sum=sum(row["weight"] * row["duration_ms"] for row in durations) or None,
        duration_ms_max=max((row["duration_ms"] for row in durations), default=None),
        cost_usd=sum(row["weight"] * float(row["cost_usd"]) for row in costs) or None,
        with_error=sum(row["weight"] for row in columns if row["error"] is not None),
        with_duration=sum(row["weight"] for row in durations),
        with_cost=sum(row["weight"] for row in costs),
        first_at=min(row.timestamp for row in rows),
        last_at=max(row.timestamp for row in rows),
    )


@pytest.mark.slow
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    span=spans,
    query=st.sampled_from(QUERIES),
    by=st.none() | st.sampled_from(("event_type", "event_level", "master_type", "worker_id")),
    step=st.none() | st.sampled_from((timedelta(minutes=10), HOUR, timedelta(days=1))),
)
def test_statistics_are_the_figures_of_the_rows(
    stored: Stored, span: Span, query: str, by: str | None, step: timedelta | None
) -> None:
    """For each slot and value; from hours, from rows and from both together."""
    found = statistics_of(
        stored.connection, Selection(stored.tables, parse(query), span), by=by, step=step
    )
    assert found.is_complete
    for statistic in found.statistics:
        rows = within(stored, Span(statistic.start, statistic.end), query)
        same = [row for row in rows if by is None or row.columns[by] == statistic.value]
        assert statistic.figures == figures_by_hand(same)
    rows = within(stored, span, query)
    assert found.total.rows == len(rows)
    groups: dict[object, float] = defaultdict(float)
    for row in rows:
        groups[row.columns[by] if by else None] += row.columns["weight"]
    counted: dict[object, float] = defaultdict(float)
    for statistic in found.statistics:
        counted[statistic.value] += statistic.figures.events
    assert counted == groups


@pytest.mark.parametrize("by", [None, "type", "level", "master", "worker"])
def test_statistics_over_hours_read_no_event(stored: Stored, by: str | None) -> None:
    """Also by worker, and a filter by a column of the statistics; a filter by another column reads events."""
    tables = replace(stored.tables, events=sql.Identifier("no_such_table"))
    found = statistics_of(stored.connection, Selection(tables, EVERYTHING, WHOLE), by=by)
    assert found.total == figures_by_hand(list(stored.rows))
    if by != "worker":
        filtered = Selection(tables, parse("level:error"), WHOLE)
        assert statistics_of(stored.connection, filtered, by=by).total.rows == 12
    with pytest.raises(errors.UndefinedTable):
        statistics_of(stored.connection, Selection(tables, parse("source:x"), WHOLE), by=by)


def test_means_are_weighted(stored: Stored) -> None:
    """An event that stands for six counts six times; without a value there is no mean."""
    selection = Selection(stored.tables, parse("type:task_done"), WHOLE)
    total = statistics_of(stored.connection, selection).total
    assert total.duration_ms_mean == 50
    assert total.cost_usd_mean == 0.5
    nothing = Selection(stored.tables, parse("type:nothing"), WHOLE)
    empty = statistics_of(stored.connection, nothing)
    assert (empty.statistics, empty.total, empty.total.duration_ms_mean) == (
        (),
        Figures(),
        None,
    )
    assert empty.total.cost_usd_mean is None


def test_statistics_of_a_path_have_its_most_frequent_values(stored: Stored) -> None:
    """Events without the path are a group of their own."""
    selection = Selection(stored.tables, EVERYTHING, WHOLE)
    found = statistics_of(stored.connection, selection, by="usage.model")
    rows = {statistic.value: statistic.figures.rows for statistic in found.statistics}
    assert rows == {"a": 12, "b": 12, None: 48}


def test_statistics_whose_time_is_over_say_until_where(stored: Stored) -> None:
    """A free filter reads events, within the time limit."""
    selection = Selection(stored.tables, parse("disk"), WHOLE)
    found = statistics_of(stored.connection, selection, deadline_s=0)
    assert (found.is_complete, found.searched) == (False, Span(WHOLE.end, WHOLE.end))
