"""Hours that retention dropped from the table: a search of the archive, a rule tried on them."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from obs_assets.api.app import make_app
from obs_assets.api.reader import ROLE, Limits
from obs_assets.api.serving import Stop
from obs_assets.hourly import pipeline
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.settings import Settings
from obs_assets_tests import harness
from obs_assets_tests.frames import HOUR

pytestmark = pytest.mark.slow

RANGE = "from=2025-12-04T10:00&to=2025-12-04T12:00"


@pytest.fixture
def client(settings: Settings, tmp_path: Path) -> Iterator[TestClient]:
    """A client of a server whose only hour is in the archive."""
    events = tmp_path / "events"
    harness.write_events(events / "a.jsonl", harness.an_hour(HOUR))

    def made(**options: object) -> HourlyPipeline:
        blocks = [{"type": "postgres", **options}, {"type": "s3"}]
        config = {"source": {"events_dir": str(events)}, "destinations": blocks}
        return HourlyPipeline(pipeline.parse(config), settings)

    hourly = made()
    hourly.searched_table().init(reader=ROLE)
    hourly.land()
    harness.build(hourly, HOUR)
    after = made(retention_days=1)
    after.searched_table().upkeep.drop_expired(datetime.now(UTC))
    with TestClient(make_app(after, Stop(), Limits()), "http://localhost") as opened:
        yield opened


def test_an_expired_hour_is_found_in_the_archive(client: TestClient) -> None:
    """The table finds nothing; the archive has the events, and says which hours it read.

    A rule is tried on the frames of this machine.
    """
    assert client.get(f"/api/v1/events?{RANGE}").json()["events"] == []
    all_of_them = client.get(f"/api/v1/archive?{RANGE}").json()
    assert all_of_them["rows"] == len(all_of_them["events"]) > 3
    assert (all_of_them["complete"], all_of_them["left"]) == (True, [])
    assert [hour[:13] for hour in all_of_them["hours"]] == ["2025-12-04T10"]
    assert 0 < all_of_them["bytes_read"] <= all_of_them["budget_bytes"] == 200_000_000
    times = [event["timestamp"] for event in all_of_them["events"]]
    assert times == sorted(times, reverse=True)
    first = all_of_them["events"][0]
    one = client.get(f"/api/v1/archive?{RANGE}&q=row_uid:{first['row_uid']}").json()
    assert one["events"] == [first]
    few = client.get(f"/api/v1/archive?{RANGE}&limit=2&q=NOT type:nothing").json()
    assert few["events"] == all_of_them["events"][:2]
    for mistake in ("q=(", "q=duration:soon", "megabytes=0", "megabytes=2001", "from=x"):
        assert client.get(f"/api/v1/archive?{mistake}").status_code == 400
    gone = client.get(f"/api/v1/events/{first['id']}")
    assert (gone.status_code, gone.json()["type"]) == (410, "/problems#gone")
    assert "2025-12-04-10:00 has expired" in gone.json()["detail"]
    tried = client.get(f"/api/v1/rule?{RANGE}&q=level:error").json()
    assert (tried["hours"], tried["left"], tried["messages"]) == (1, 1, 1)
    assert [hour[:13] for hour in tried["firing"]] == ["2025-12-04T10"]
    assert "event_level == error" in tried["rule"]
    assert client.get(f"/api/v1/rule?{RANGE}&q=level:error&above=1000").json()["firing"] == []
    refused = client.get(f"/api/v1/rule?{RANGE}&q=two words").json()
    assert (refused["status"], refused["parameter"]) == (400, "q")


def test_the_statement_for_duckdb_needs_objects(client: TestClient) -> None:
    """It names the objects of the archive; a range without any, or with too many hours, is a problem."""
    answer = client.get(f"/api/v1/archive/sql?{RANGE}&q=level:error").json()
    assert (answer["hours"], answer["objects"]) == (1, 1)
    assert "/events-2025120410.jsonl.gz'" in answer["sql"]
    assert answer["bytes"] > 0
    nothing = client.get("/api/v1/archive/sql?from=2020-01-01T10:00&to=2020-01-01T12:00")
    assert (nothing.status_code, nothing.json()["title"]) == (404, "Not found")
    wide = client.get("/api/v1/archive/sql?from=2020-01-01&to=2020-01-09")
    assert wide.status_code == 422
    assert "at most 7 days" in wide.json()["detail"]
    wrong = client.get(f"/api/v1/archive/sql?{RANGE}&q=duration:long")
    assert wrong.status_code == 400
