"""Counts over HTTP: bars, facets, fields and neighbours are those of the stored rows."""

from collections import Counter
from typing import Any

import pytest
from starlette.testclient import TestClient

from obs_assets_tests.api.conftest import HOURS, moment_of

RANGE = "from=2025-12-04T10:00&to=2025-12-04T12:00"


def test_bars_count_rows_and_events(client: TestClient, stored: list[dict[str, Any]]) -> None:
    """A bar for each ten minutes, divided by level; an event without a level is in the group null."""
    answer = client.get(f"/api/v1/histogram?{RANGE}&step=10m&by=level&q=-type:beat").json()
    wanted = [event for event in stored if event["type"] != "beat"]
    assert len(answer["bars"]) == 12
    for bar in answer["bars"]:
        within = [
            event.get("level")
            for event in wanted
            if bar["start"] <= moment_of(event).isoformat().replace("+00:00", "Z") < bar["end"]
        ]
        groups = {group["value"]: group["rows"] for group in bar["groups"]}
        assert groups == Counter(within)
        assert (bar["rows"], bar["events"]) == (len(within), 10.0 * len(within))
    assert (answer["rows"], answer["events_estimated"]) == (len(wanted), 10.0 * len(wanted))
    assert (answer["step_s"], answer["complete"]) == (600.0, True)


def test_facets_say_how_they_were_counted(
    client: TestClient, stored: list[dict[str, Any]]
) -> None:
    """Columns of the statistics are exact; other fields are counted in the newest rows."""
    answer = client.get(f"/api/v1/facets?{RANGE}&field=type&field=n&limit=2").json()
    by_type, by_n = answer["facets"]
    assert (by_type["field"], by_type["how"], by_type["distinct"]) == ("type", "exact", 3)
    counted = Counter(event["type"] for event in stored)
    assert {
        value["value"]: value["rows"] for value in by_type["values"]
    }.items() <= counted.items()
    assert (by_n["distinct"], len(by_n["values"])) == (12, 2)


def test_fields_are_columns_and_paths(client: TestClient, stored: list[dict[str, Any]]) -> None:
    """Each with its kinds and its share of the sample."""
    answer = client.get(f"/api/v1/fields?{RANGE}").json()
    fields = {field["name"]: field for field in answer["fields"]}
    assert answer["sample_rows"] == len(stored)
    assert (fields["n"]["kinds"], fields["n"]["share"]) == (["number"], 1.0)
    assert fields["event_type"]["is_column"]


def test_neighbours_of_an_event(client: TestClient, stored: list[dict[str, Any]]) -> None:
    """The nearest first; with ``same`` only events with the same value, which the event must have."""
    del stored
    end = HOURS[0].end.isoformat().replace("+", "%2B")
    events = client.get(f"/api/v1/events?to={end}&limit=3").json()["events"]
    path = f"/api/v1/events/{events[1]['id']}/context"
    answer = client.get(f"{path}?before=1&after=1").json()
    assert answer["event"] == events[1]
    assert (answer["before"], answer["after"]) == ([events[2]], [events[0]])
    without = next(event for event in events if not event["trace_id"])
    refused = client.get(f"/api/v1/events/{without['id']}/context?same=trace_id")
    assert (refused.status_code, refused.json()["parameter"]) == (400, "same")
    assert client.get("/api/v1/events/1-aa/context").status_code == 404


@pytest.mark.parametrize(
    "path", ["/api/v1/histogram?", "/api/v1/facets?field=level&", "/api/v1/fields?"]
)
def test_a_count_that_did_not_change_is_not_sent_again(
    client: TestClient, stored: list[dict[str, Any]], path: str
) -> None:
    """By the ETag of the parameters and the generations."""
    del stored
    tag = client.get(f"{path}{RANGE}").headers["etag"]
    again = client.get(f"{path}{RANGE}", headers={"If-None-Match": tag})
    assert (again.status_code, again.text) == (304, "")
    other = client.get(f"{path}{RANGE}&q=x", headers={"If-None-Match": tag})
    assert other.status_code == 200


@pytest.mark.parametrize(
    ("address", "parameter"),
    [
        ("histogram?step=1", "step"),
        ("histogram?step=1s&from=2025-12-01&to=2025-12-09", "step"),
        ("histogram?tz=Mars/Phobos", "tz"),
        ("histogram?tz=../etc/passwd", "tz"),
        ("facets", "field"),
        ("facets?" + "field=a&" * 21, "field"),
        ("facets?field=a&limit=0", "limit"),
    ],
)
def test_mistakes_name_their_parameter(
    client: TestClient, address: str, parameter: str
) -> None:
    """A bar that is no length, too many bars, an unknown zone, no field, too many fields."""
    answered = client.get(f"/api/v1/{address}")
    assert (answered.status_code, answered.json()["parameter"]) == (400, parameter)
