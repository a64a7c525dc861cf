"""The dashboard's paths answer as a slow and obvious program over the same rows does, without the old faults."""

import math
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from psycopg.rows import dict_row
from starlette.testclient import TestClient

from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.storage.postgres import connect
from obs_assets_tests.api.conftest import Load, some_events
from obs_assets_tests.frames import HOUR

Row = dict[str, Any]
Rows = list[Row]

ODD = [
    {"type": "odd", "event_type": "fake", "error": "100% sure", "id": "odd-1", "cost": 0.5},
    {"type": "odd", "note": "a_b", "level": "warning"},
    {"type": "odd", "note": "aXb", "worker": "w2", "worker_id": "id-9", "cost": 2},
]
"""Events with keys named like columns, and with the wildcards of LIKE."""


@pytest.fixture(scope="module")
def rows(hourly: HourlyPipeline, load: Load) -> Rows:
    """All rows of the table: an hour of weight 10, one of weight 1."""
    load(HOUR, some_events(HOUR), weight=10.0)
    load(HOUR.next, [*some_events(HOUR.next), *ODD])
    with connect(hourly.searched_table().server) as connection:
        cursor = connection.cursor(row_factory=dict_row)
        return cursor.execute("SELECT * FROM events").fetchall()


def iso(moment: datetime | None) -> str | None:
    """As JavaScript writes a time."""
    if moment is None:
        return None
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def shown(row: Row) -> Row:
    """An event of a list."""
    own = {key: value for key, value in row["data"].items() if key != "id"}
    columns = (
        "event_id event_type timestamp source_name master_type worker_type error duration_ms"
    )
    return {
        **own,
        **{name: row[name] for name in columns.split()},
        "timestamp": iso(row["timestamp"]),
        "event_level": row["event_level"] or "info",
        "cost_usd": None if row["cost_usd"] is None else float(row["cost_usd"]),
    }


def in_order(rows: Iterable[Row], column: str = "timestamp", order: str = "desc") -> Rows:
    """Rows in the order of a list: rows without a value last, ties by time and row."""
    found = sorted(rows, key=lambda row: (row["timestamp"], row["row_uid"]))
    if order == "desc":
        found.reverse()
    if column == "event_level":
        found.sort(key=lambda row: row[column] or "info", reverse=order == "desc")
    elif column != "timestamp":
        present = [row for row in found if row[column] is not None]
        present.sort(key=lambda row: row[column], reverse=order == "desc")
        found = present + [row for row in found if row[column] is None]
    return found


def weighted(rows: Iterable[Row], column: str | None = None) -> float:
    """Events that rows stand for, or the weighted sum of a column."""
    if column is None:
        return sum(row["weight"] for row in rows)
    return sum(row["weight"] * float(row[column]) for row in rows if row[column] is not None)


def mean(rows: Rows, column: str) -> float:
    """Weighted mean of the rows with a value."""
    present = [row for row in rows if row[column] is not None]
    return weighted(present, column) / weighted(present) if present else 0


def errors(rows: Rows) -> float:
    """Events with an error."""
    return weighted(row for row in rows if row["error"] is not None)


def groups(rows: Rows, key: Callable[[Row], Any]) -> dict[Any, Rows]:
    """Rows by a key."""
    found: dict[Any, Rows] = {}
    for row in rows:
        found.setdefault(key(row), []).append(row)
    return found


def level(row: Row) -> str:
    return row["event_level"] or "info"


def without(event: Row, *names: str) -> Row:
    return {name: value for name, value in event.items() if name not in names}


def get(client: TestClient, path: str, **parameters: Any) -> Any:
    """The body of a successful answer."""
    answered = client.get(path, params=parameters)
    assert answered.status_code == 200, answered.text
    return answered.json()


# -- lists -------------------------------------------------------------------------------------------------------------

FILTERS: list[tuple[dict[str, str], Callable[[Row], bool]]] = [
    ({}, lambda row: True),
    ({"type": "task"}, lambda row: row["event_type"] == "task"),
    ({"level": "info"}, lambda row: level(row) == "info"),
    ({"level": "error"}, lambda row: row["event_level"] == "error"),
    ({"master": "m1"}, lambda row: row["master_type"] == "m1"),
    ({"worker": "w1"}, lambda row: row["worker_type"] == "w1"),
    ({"worker": "id-3"}, lambda row: row["worker_id"] == "id-3"),
    ({"hasError": "true"}, lambda row: row["error"] is not None),
    ({"hasError": "false"}, lambda row: row["error"] is None),
    (
        {"startTime": "2025-12-04T10:10:00Z", "endTime": "2025-12-04T11:05:00Z"},
        lambda row: "10:10" <= f"{row['timestamp'].astimezone(UTC):%H:%M}" < "11:05",
    ),
    (
        {"type": "task", "level": "error", "hasError": "true"},
        lambda row: row["event_type"] == "task" and row["event_level"] == "error",
    ),
    ({"type": "nothing"}, lambda row: False),
]


@pytest.mark.parametrize(("parameters", "keeps"), FILTERS, ids=[str(one) for one, _ in FILTERS])
def test_filters(
    client: TestClient, rows: Rows, parameters: dict[str, str], keeps: Callable[[Row], bool]
) -> None:
    """Each filter keeps the rows that an obvious program keeps; an end is not in its range."""
    answer = get(client, "/api/events", limit=1000, **parameters)
    wanted = in_order(row for row in rows if keeps(row))
    assert [without(event, "id", "created_at") for event in answer["data"]] == list(
        map(shown, wanted)
    )
    assert answer["pagination"] == {
        "page": 1,
        "limit": 1000,
        "total": len(wanted),
        "pages": min(1, len(wanted)),
        "totalIsEstimate": False,
    }
    assert answer["rows"] == len(wanted)
    assert answer["meta"]["filters"].keys() == parameters.keys()


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize(
    "column", ["timestamp", "event_type", "event_level", "duration_ms", "cost_usd"]
)
def test_pages_of_any_order_have_every_row_once(
    client: TestClient, rows: Rows, column: str, order: str
) -> None:
    """Also over rows with equal values."""
    seen: list[str] = []
    for page in range(1, 7):
        answer = get(client, "/api/events", sortBy=column, sortOrder=order, page=page, limit=5)
        seen += [event["event_id"] for event in answer["data"]]
        assert answer["pagination"]["total"] == len(rows)
        assert answer["pagination"]["pages"] == math.ceil(len(rows) / 5)
        assert answer["meta"] == {"filters": {}, "sortBy": column, "sortOrder": order}
    wanted = [row["event_id"] for row in in_order(rows, column, order)]
    assert seen == wanted


def test_defaults_of_a_list(client: TestClient, rows: Rows) -> None:
    """50 rows, page 1, by time, the newest first."""
    answer = get(client, "/api/events")
    assert answer == get(
        client, "/api/events", page=1, limit=50, sortBy="timestamp", sortOrder="desc"
    )
    assert answer["pagination"]["limit"] == 50
    for path in ("/api/masters/m1/events", "/api/workers/w1/events"):
        assert get(client, path) == get(client, path, page=1, limit=50)
    assert len(answer["data"]) == min(50, len(rows))


def test_lists_of_a_master_and_a_worker(client: TestClient, rows: Rows) -> None:
    """The same rows as the filters; an unknown name is an empty list."""
    for path, column, name in (
        ("masters", "master_type", "m3"),
        ("workers", "worker_type", "w1"),
        ("workers", "worker_id", "id-5"),
    ):
        answer = get(client, f"/api/{path}/{name}/events")
        wanted = in_order(row for row in rows if row[column] == name)
        assert wanted
        assert [event["event_id"] for event in answer["data"]] == [
            row["event_id"] for row in wanted
        ]
        assert answer["pagination"]["total"] == len(wanted)
        assert "meta" not in answer
        nobody = get(client, f"/api/{path}/nobody/events")
        assert (nobody["data"], nobody["pagination"]["pages"]) == ([], 0)


@pytest.mark.parametrize("text", ["MESSAGE 3", "refused", "100%", "a_b", "task", "é"])
def test_a_text_is_found_as_it_is(client: TestClient, rows: Rows, text: str) -> None:
    """In any case; % and _ are no wildcards."""
    answer = get(client, "/api/events/search", q=text)
    wanted = [
        row
        for row in in_order(rows)
        if any(text.lower() in value.lower() for value in texts_of(row))
    ]
    assert [event["event_id"] for event in answer["data"]] == [
        row["event_id"] for row in wanted
    ]
    assert answer["pagination"]["total"] == len(wanted)
    assert answer["meta"] == {"query": text}


def texts_of(row: Row) -> list[str]:
    return [
        *(value for value in row["data"].values() if isinstance(value, str)),
        row["event_type"],
        row["error"] or "",
    ]


def test_an_event_is_found_by_both_ids(client: TestClient, rows: Rows) -> None:
    """The ``id`` of a list, and the number of the table's column; another id has the old body of a 404."""
    first = get(client, "/api/events", limit=1)["data"][0]
    assert isinstance(first["id"], str)
    assert get(client, f"/api/events/{first['id']}") == {"data": first}
    (row,) = [row for row in rows if row["event_id"] == first["event_id"]]
    assert get(client, f"/api/events/{row['id']}") == {"data": first}
    for absent in ("12345", "99999999999999999999", "abc", "1-aa"):
        answered = client.get(f"/api/events/{absent}")
        assert answered.status_code == 404
        assert answered.json()["error"] == "Not Found"
        assert answered.json()["message"]


def test_a_column_wins_over_a_key_of_its_name(client: TestClient, rows: Rows) -> None:
    """An event that names itself otherwise in its text shows the values that it is stored under."""
    del rows
    events = get(client, "/api/events", type="odd")["data"]
    assert {event["event_type"] for event in events} == {"odd"}


# -- statistics --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (None, None),
        ("2025-12-04T10:00:00Z", "2025-12-04T11:00:00Z"),
        ("2025-12-04T10:07:00Z", "2025-12-04T11:10:00Z"),
        ("2026-01-01", None),
    ],
)
def test_statistics_of_a_range(
    client: TestClient, rows: Rows, start: str | None, end: str | None
) -> None:
    """Weighted counts and means; the end is not in the range; nothing is 0, times of nothing are null."""
    asked = {"startTime": start, "endTime": end}
    answer = get(client, "/api/stats", **{name: at for name, at in asked.items() if at})
    low, high = (datetime.fromisoformat(at) if at else None for at in (start, end))
    low = low.replace(tzinfo=UTC) if low else None
    within = [
        row
        for row in rows
        if (low is None or row["timestamp"] >= low)
        and (high is None or row["timestamp"] < high)
    ]
    times = [row["timestamp"] for row in within]
    durations = [row["duration_ms"] for row in within if row["duration_ms"] is not None]
    by_level = groups(within, level)
    assert answer["data"] == {
        "total_events": weighted(within),
        "unique_types": len({row["event_type"] for row in within}),
        "error_count": errors(within),
        "error_level_count": weighted(by_level.get("error", [])),
        "warning_count": weighted(by_level.get("warning", [])),
        "info_count": weighted(by_level.get("info", [])),
        "avg_duration_ms": pytest.approx(mean(within, "duration_ms")),
        "max_duration_ms": max(durations, default=0),
        "total_cost_usd": pytest.approx(weighted(within, "cost_usd")),
        "earliest_event": iso(min(times, default=None)),
        "latest_event": iso(max(times, default=None)),
        "rows": len(within),
    }


def test_types_levels_and_masters(client: TestClient, rows: Rows) -> None:
    """Most events first; an event without a level counts as info, an event without a master for none."""
    types = get(client, "/api/stats/by-type")["data"]
    by_type = groups(rows, lambda row: row["event_type"])
    assert {entry.pop("event_type"): entry for entry in types} == {
        key: {
            "count": weighted(of),
            "error_count": errors(of),
            "avg_duration_ms": pytest.approx(mean(of, "duration_ms")),
            "total_cost_usd": pytest.approx(weighted(of, "cost_usd")),
            "rows": len(of),
        }
        for key, of in by_type.items()
    }
    levels = get(client, "/api/stats/by-level")["data"]
    assert {entry.pop("event_level"): entry for entry in levels} == {
        key: {"count": weighted(of), "error_count": errors(of), "rows": len(of)}
        for key, of in groups(rows, level).items()
    }
    masters = get(client, "/api/masters")["data"]
    by_master = groups(
        [row for row in rows if row["master_type"]], lambda row: row["master_type"]
    )
    assert {entry.pop("name"): entry for entry in masters} == {
        key: {
            "event_count": weighted(of),
            "error_count": errors(of),
            "last_event_at": iso(max(row["timestamp"] for row in of)),
            "total_cost_usd": pytest.approx(weighted(of, "cost_usd")),
            "rows": len(of),
        }
        for key, of in by_master.items()
    }
    for listed, name in ((types, "count"), (levels, "count"), (masters, "event_count")):
        counts = [entry[name] for entry in listed]
        assert counts == sorted(counts, reverse=True)


@pytest.mark.parametrize("interval", [None, "minute", "hour", "day"])
def test_a_timeline(client: TestClient, rows: Rows, interval: str | None) -> None:
    """A slot for each minute, hour (the default) or day that has an event, the oldest first."""
    asked = {"interval": interval} if interval else {}
    answer = get(client, "/api/stats/timeline", **asked)
    form = {"minute": "%Y-%m-%dT%H:%M:00.000Z", "day": "%Y-%m-%dT00:00:00.000Z"}
    slot = form.get(interval or "hour", "%Y-%m-%dT%H:00:00.000Z")
    by_slot = groups(rows, lambda row: row["timestamp"].astimezone(UTC).strftime(slot))
    assert answer["data"] == [
        {
            "timestamp": start,
            "count": weighted(of),
            "error_count": errors(of),
            "avg_duration_ms": pytest.approx(mean(of, "duration_ms")),
            "cost_usd": pytest.approx(weighted(of, "cost_usd")),
            "rows": len(of),
        }
        for start, of in sorted(by_slot.items())
    ]


GROUPS: dict[str, Callable[[Row], Any]] = {
    "master": lambda row: row["master_type"],
    "type": lambda row: row["event_type"],
    "level": level,
    "worker": lambda row: row["worker_type"] or row["worker_id"],
}


@pytest.mark.parametrize("group_by", [None, *GROUPS])
def test_costs(client: TestClient, rows: Rows, group_by: str | None) -> None:
    """By master without a parameter, without times too; a worker is a worker."""
    asked = {"groupBy": group_by} if group_by else {}
    answer = get(client, "/api/stats/costs", **asked)
    name = group_by or "master"
    by_key = groups([row for row in rows if row["cost_usd"] is not None], GROUPS[name])
    assert {entry.pop(name): without(entry, "rows") for entry in answer["data"]} == {
        key: {
            "total_cost_usd": pytest.approx(weighted(of, "cost_usd")),
            "event_count": weighted(of),
            "avg_cost_usd": pytest.approx(mean(of, "cost_usd")),
        }
        for key, of in by_key.items()
    }
    totals = [entry["total_cost_usd"] for entry in answer["data"]]
    assert totals == sorted(totals, reverse=True)


def test_the_summary_counts_from_now(client: TestClient, rows: Rows, load: Load) -> None:
    """The last day and the last hour end now; before any recent event they are 0."""
    data = get(client, "/api/stats/summary")["data"]
    assert data == {
        "total_events": weighted(rows),
        "events_24h": 0,
        "events_1h": 0,
        "total_errors": errors(rows),
        "errors_24h": 0,
        "active_masters": 0,
        "cost_24h": 0,
        "rows": len(rows),
    }


def test_health_has_the_old_keys(client: TestClient) -> None:
    """And asks the database."""
    answer = get(client, "/health")
    assert answer.keys() == {"status", "timestamp", "uptime", "version"}
    assert answer["status"] == "healthy"
    age = datetime.now(UTC) - datetime.fromisoformat(answer["timestamp"])
    assert abs(age) < timedelta(minutes=1)


# -- mistakes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "parameter"),
    [
        ("/api/stats/timeline?interval=hour'); DROP TABLE events; --", "interval"),
        ("/api/stats/timeline?interval=week", "interval"),
        ("/api/stats/costs?groupBy=color", "groupBy"),
        ("/api/events?sortBy=id", "sortBy"),
        ("/api/events?sortOrder=up", "sortOrder"),
        ("/api/events?hasError=maybe", "hasError"),
        ("/api/events?type=a&type=b", "type"),
        ("/api/events?page=0", "page"),
        ("/api/events?page=x", "page"),
        ("/api/events?limit=0", "limit"),
        ("/api/events?limit=1001", "limit"),
        ("/api/events?limit=99999999999999999999", "limit"),
        ("/api/events?startTime=soon", "startTime"),
        ("/api/events?startTime=2025-12-05&endTime=2025-12-04", "startTime"),
        ("/api/stats?endTime=x", "endTime"),
        ("/api/events/search", "q"),
        ("/api/events/search?q=", "q"),
        ("/api/masters?limit=1", "limit"),
    ],
)
def test_mistakes_of_a_client_are_no_faults_of_the_server(
    client: TestClient, rows: Rows, address: str, parameter: str
) -> None:
    """400 with the name of the parameter; nothing of it reaches SQL."""
    answered = client.get(address)
    assert (answered.status_code, answered.json()["parameter"]) == (400, parameter)
    assert answered.json()["error"]
    assert get(client, "/api/events")["pagination"]["total"] == len(rows)


def test_a_page_far_behind_is_refused(client: TestClient, rows: Rows) -> None:
    """Paging by number is bounded; the problem names the cursors."""
    del rows
    answered = client.get("/api/events?page=1000&limit=1000")
    assert (answered.status_code, answered.json()["type"]) == (422, "/problems#too-wide")
    assert "cursors of /api/v1/events" in answered.json()["detail"]


def test_summaries_read_no_events(
    client: TestClient, hourly: HourlyPipeline, rows: Rows
) -> None:
    """A refresh of the dashboard scans nothing: a row that only the table of statistics has is counted."""
    del rows
    table = hourly.searched_table()
    with connect(table.server, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO events_hourly (hour, event_type, master_type, rows, events, errors, with_error, "
            "with_duration, with_cost) VALUES (%s, 'planted', 'planted', 1, 7, 0, 0, 0, 0)",
            [HOUR.start],
        )
        types = get(client, "/api/stats/by-type")["data"]
        masters = get(client, "/api/masters")["data"]
        total = get(client, "/api/stats")["data"]["total_events"]
        summary = get(client, "/api/stats/summary")["data"]["total_events"]
        connection.execute("DELETE FROM events_hourly WHERE event_type = 'planted'")
    assert {"event_type": "planted", "count": 7}.items() <= next(
        entry for entry in types if entry["event_type"] == "planted"
    ).items()
    assert "planted" in [entry["name"] for entry in masters]
    assert total == summary == get(client, "/api/stats")["data"]["total_events"] + 7
