"""Statistics, exports, hours, whereabouts and explanations over HTTP."""

import csv
import io
import json
import subprocess
import threading
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pytest
from starlette.testclient import TestClient

from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.hours import Hour
from obs_assets.storage.postgres import connect
from obs_assets_tests.api.conftest import HOURS, Load, some_events
from obs_assets_tests.api.process import running
from obs_assets_tests.frames import HOUR

RANGE = "from=2025-12-04T10:00&to=2025-12-04T12:00"


def ids(events: list[dict[str, Any]]) -> list[str]:
    return [event["id"] for event in events]


def test_statistics_by_a_field_and_time(
    client: TestClient, stored: list[dict[str, Any]]
) -> None:
    """Weighted sums and means of each value in each hour."""
    answer = client.get(f"/api/v1/stats?{RANGE}&by=type&step=1h").json()
    assert (answer["rows"], answer["events_estimated"]) == (24, 240.0)
    assert len(answer["statistics"]) == 6
    for one in answer["statistics"]:
        hour = next(hour for hour in HOURS if hour.start.isoformat()[:13] == one["start"][:13])
        of = [event for event in some_events(hour) if event["type"] == one["value"]]
        durations = [event["duration_ms"] for event in of if "duration_ms" in event]
        assert (one["rows"], one["events"]) == (len(of), 10.0 * len(of))
        assert one["with_error"] == 10.0 * sum("error" in event for event in of)
        assert one["duration_ms_mean"] == pytest.approx(sum(durations) / len(durations))
        assert one["cost_usd"] == pytest.approx(10 * sum(event.get("cost", 0) for event in of))
    assert client.get("/api/v1/stats?step=0s").json()["parameter"] == "step"


def test_an_export_has_every_event_and_a_closing_record(
    client: TestClient, stored: list[dict[str, Any]], hourly: HourlyPipeline
) -> None:
    """In each format; the record has the hashes of the ledger."""
    lines = client.get(f"/api/v1/export?{RANGE}").text.splitlines()
    events = [json.loads(line) for line in lines]
    closing = events.pop()["obs_export"]
    assert sorted(event["event_id"] for event in events) == sorted(ids(stored))
    assert '"big": 9007199254740993' in lines[0]
    assert (closing["rows"], closing["complete"]) == (24, True)
    with connect(hourly.searched_table().server) as connection:
        ledger = connection.execute("SELECT hour, content_hash FROM obs.hour_loads").fetchall()
    hashes = {hour.isoformat(): content_hash for hour, content_hash in ledger}
    assert {
        datetime.fromisoformat(hour).isoformat(): version["content_hash"]
        for hour, version in closing["hours"].items()
    }.items() <= hashes.items()
    answered = client.get(f"/api/v1/export?{RANGE}&format=csv&q=level:error")
    assert answered.headers["content-disposition"].endswith(
        'events-20251204T100000Z-20251204T120000Z.csv"'
    )
    rows = list(csv.DictReader(io.StringIO(answered.text)))
    wanted = [event["id"] for event in stored if event.get("level") == "error"]
    assert sorted(row["event_id"] for row in rows[:-1]) == sorted(wanted)
    arrow = client.get(f"/api/v1/export?{RANGE}&format=arrow")
    table = pa.ipc.open_stream(arrow.content).read_all()
    assert table.num_rows == 24
    for mistake in ("format=xml", "q=(", "q=duration:soon", "formulas=perhaps", "from=x"):
        assert client.get(f"/api/v1/export?{mistake}").status_code == 400


@pytest.fixture
def many(load: Load) -> Hour:
    """An hour with 9 MB of events, more than sockets hold, and an hour behind it."""
    hour = Hour(HOUR.start + timedelta(days=2))
    load(hour, [{"type": "large", "text": "x" * 3000, "n": number} for number in range(3000)])
    behind = Hour(hour.start + timedelta(days=1))
    load(behind, some_events(behind))
    return hour


@pytest.mark.slow
def test_an_export_that_fails_is_an_error_of_its_client(
    many: Hour, hourly: HourlyPipeline, tmp_path: Path
) -> None:
    """The body breaks off when the database ends the session; curl says so. The next export is whole."""
    address = f"/api/v1/export?from={many.start:%Y-%m-%d}&to={many.start + timedelta(days=2):%Y-%m-%d}"
    out = tmp_path / "out"
    with running(hourly, tmp_path) as (_, at):
        curl = [
            "curl",
            "-sS",
            "--limit-rate",
            "200k",
            "-o",
            str(out),
            at + address,
        ]
        with subprocess.Popen(curl, stderr=subprocess.PIPE) as downloading:
            # Before that, the server may ask the database something else.
            while not (out.exists() and out.stat().st_size):
                time.sleep(0.05)
            with connect(hourly.searched_table().server, autocommit=True) as admin:
                for _ in range(200):
                    ended = admin.execute(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE state <> 'idle' "
                        "AND application_name = 'obs serve' AND datname = current_database()"
                    ).fetchall()
                    if ended:
                        break
                    time.sleep(0.05)
            assert downloading.wait(60) == 18
        whole = httpx.get(at + address, timeout=60).text.splitlines()
        assert json.loads(whole[-1])["obs_export"]["rows"] == len(whole) - 1 > 3000


@pytest.mark.slow
def test_a_client_that_leaves_frees_its_export(
    many: Hour, hourly: HourlyPipeline, tmp_path: Path
) -> None:
    """More clients than places leave in the middle; the next one gets the whole."""
    address = f"/api/v1/export?from={many.start:%Y-%m-%d}"
    with running(hourly, tmp_path) as (_, at):
        for _ in range(5):
            with httpx.stream("GET", at + address, timeout=20) as answer:
                assert answer.status_code == 200
                next(answer.iter_bytes())
        assert '"complete": true' in httpx.get(at + address, timeout=60).text


def test_hours_and_why_a_search_is_empty(
    client: TestClient, stored: list[dict[str, Any]]
) -> None:
    """The state of each hour with its partition in Dagster; the counts of its stages in words."""
    del stored
    answer = client.get(f"/api/v1/hours?{RANGE}&why=true&q=type:nothing").json()
    assert [hour["partition"] for hour in answer["hours"]] == [hour.key for hour in HOURS]
    assert {hour["rows"] for hour in answer["hours"]} == {12}
    assert answer["why"]["matching_rows"] == 0
    assert answer["why"]["sentence"].startswith("in these 2 hours")
    assert client.get(f"/api/v1/hours?{RANGE}").json()["why"] is None
    wide = client.get("/api/v1/hours?from=1990-01-01&to=2025-12-04")
    assert (wide.status_code, wide.json()["parameter"]) == (400, "from")


def test_where_an_event_is(client: TestClient, stored: list[dict[str, Any]]) -> None:
    """By its own id; of an unknown id nothing is known; two questions at a time are a mistake."""
    (place,) = client.get(f"/api/v1/whereabouts?event_id={stored[0]['id']}").json()["events"]
    assert (place["text"], place["partition"]) == ("stored", HOUR.key)
    assert client.get(f"/api/v1/events/{place['id']}").status_code == 200
    assert client.get("/api/v1/whereabouts?event_id=nothing").json()["events"] == []
    for mistake in ("", "event_id=a&trace_id=b", "file=a&offset=-1"):
        assert client.get(f"/api/v1/whereabouts?{mistake}").status_code == 400


def test_a_search_is_explained(
    client: TestClient, stored: list[dict[str, Any]], hourly: HourlyPipeline
) -> None:
    """The statement can be run in psql and finds the same rows; only the range's partitions are read."""
    del stored
    asked = f"{RANGE}&q=level:error%20-type:beat&limit=3"
    answer = client.get(f"/api/v1/explain?{asked}").json()
    events = client.get(f"/api/v1/events?{asked}").json()["events"]
    with connect(hourly.searched_table().server) as connection:
        cursor = connection.execute(answer["sql"].encode())
        names = [column.name for column in cursor.description or ()]
        found = [dict(zip(names, row, strict=True))["event_id"] for row in cursor.fetchall()]
    assert found == [event["event_id"] for event in events]
    assert len(answer["tables"]) == 1


def test_a_sampler_of_many_questions_at_a_time(client: TestClient) -> None:
    """A dashboard that asks eight questions at once gets eight answers."""
    codes: list[int] = []

    def ask(path: str) -> None:
        codes.append(client.get(path).status_code)

    paths = ["/api/v1/events", "/api/stats", "/api/masters", "/api/v1/histogram"] * 2
    threads = [threading.Thread(target=ask, args=(path,)) for path in paths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == [200] * 8


def test_a_pipeline_without_an_archive_says_so(client: TestClient) -> None:
    """A search of the archive is a mistake there, with the reason."""
    answered = client.get("/api/v1/archive")
    assert answered.status_code == 404
    assert "has no archive" in answered.json()["detail"]
