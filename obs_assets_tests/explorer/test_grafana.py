"""The Grafana dashboard of docs/examples: every statement runs as the role of readers and reads only its range."""

import json
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.hours import Hour
from obs_assets.storage.postgres import Connection, session
from obs_assets_tests.api.conftest import Load, some_events
from obs_assets_tests.frames import HOUR

FOLDER = Path(__file__).parents[2] / "docs" / "examples" / "grafana"
BOARD = json.loads((FOLDER / "dashboards" / "events.json").read_text())
PANELS = BOARD["panels"]
VARIABLES = {each["name"]: each for each in BOARD["templating"]["list"]}
STATEMENTS = [
    *(panel["targets"][0]["rawSql"] for panel in PANELS),
    *(each["query"] for each in VARIABLES.values() if each["type"] == "query"),
]
HOURS = tuple(Hour(HOUR.start + timedelta(days=days)) for days in (0, 40, 80))
"""Hours in three leaves: old leaves are of months."""


def as_grafana_sends(statement: str) -> str:
    """The statement with macros and variables replaced, for the day of the second hour that is stored."""
    start = HOURS[1].start.replace(hour=0)
    ends = [f"'{moment:%Y-%m-%dT%H:%M:%SZ}'" for moment in (start, start + timedelta(days=1))]
    between = rf"\1 BETWEEN {ends[0]} AND {ends[1]}"
    filled = re.sub(r"\$__timeFilter\((\w+)\)", between, statement)
    return filled.replace("${level:sqlstring}", "'error','info',''").replace(
        "${type:sqlstring}", "'task','it''s','note'"
    )


@pytest.fixture(scope="module")
def reader(hourly: HourlyPipeline, load: Load) -> Iterator[Connection]:
    """A connection as the role of readers, to a table with three hours in three leaves."""
    for hour in HOURS:
        load(hour, some_events(hour), weight=10.0)
    assert hourly.settings.postgres
    with session(hourly.settings.postgres, autocommit=True) as connection:
        connection.execute("SET ROLE obs_reader")
        yield connection


def leaves_of(plan: Any) -> set[str]:
    """Tables that a plan reads."""
    if isinstance(plan, list):
        return set().union(*map(leaves_of, plan))
    found = {plan["Relation Name"]} if "Relation Name" in plan else set()
    parts = [*plan.get("Plans", ()), *filter(None, [plan.get("Plan")])]
    return found.union(*map(leaves_of, parts)) if parts else found


@pytest.mark.parametrize("statement", STATEMENTS, ids=range(len(STATEMENTS)))
def test_a_statement_reads_its_range_alone(reader: Connection, statement: str) -> None:
    """It runs as the reader, no macro or variable is left, and of three leaves it touches one."""
    filled = as_grafana_sends(statement)
    assert "$" not in filled
    rows = reader.execute(filled).fetchall()
    assert rows
    found = reader.execute(f"EXPLAIN (FORMAT JSON) {filled}").fetchone()
    assert found
    leaves = leaves_of(found[0])
    if "FROM events_hourly" in filled:
        assert leaves == {"events_hourly"}
    else:
        assert len(leaves) == 1
        assert "LIMIT" in filled


def test_counts_are_those_of_the_day(reader: Connection) -> None:
    """The panel of events counts the weights of the stored rows."""
    events, stored = (
        reader.execute(as_grafana_sends(panel["targets"][0]["rawSql"])).fetchone()
        for panel in PANELS[:2]
    )
    assert events
    assert stored
    kept = [
        event
        for event in some_events(HOURS[1])
        if event["type"] in ("task", "note") and event.get("level") in ("error", "info", None)
    ]
    assert (stored[0], events[0]) == (len(kept), 10.0 * len(kept))


def test_the_dashboard_can_be_provisioned() -> None:
    """Files know no inputs; the data source is a variable; panels have their own numbers and places."""
    assert "__inputs" not in BOARD
    assert VARIABLES["datasource"]["type"] == "datasource"
    sources = {panel["datasource"]["uid"] for panel in PANELS}
    assert sources == {"${datasource}"}
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    taken = [
        (x, y)
        for panel in PANELS
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(taken)) == len(taken)
    source = yaml.safe_load((FOLDER / "provisioning/datasources/obs.yaml").read_text())
    (found,) = source["datasources"]
    kind = VARIABLES["datasource"]["query"]
    assert (found["type"], found["user"]) == (kind, "obs_reader")
    assert yaml.safe_load((FOLDER / "provisioning/dashboards/obs.yaml").read_text())[
        "providers"
    ]


def test_variables_are_written_as_texts_of_sql() -> None:
    """Every variable inside a statement is quoted by Grafana, so that no value of an event becomes SQL."""
    for statement in STATEMENTS:
        for variable in re.findall(r"\$\{(\w+)(:?\w*)\}", statement):
            assert variable[1] == ":sqlstring"
