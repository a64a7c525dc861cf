"""``/api/v1/events``: what was stored is found, page by page, and mistakes are explained."""

import json
from typing import Any

import pytest
from starlette.testclient import TestClient

from obs_assets_tests.api.conftest import HOURS, Load, moment_of, some_events
from obs_assets_tests.frames import HOUR

PATH = "/api/v1/events"


def ids(answer: dict[str, Any]) -> list[str]:
    return [event["event_id"] for event in answer["events"]]


def test_the_newest_come_first(client: TestClient, stored: list[dict[str, Any]]) -> None:
    """Without parameters the last day that has events is searched; rows and events are both counted."""
    answer = client.get(PATH).json()
    times = [event["timestamp"] for event in answer["events"]]
    assert times == sorted(times, reverse=True)
    assert sorted(ids(answer)) == sorted(event["id"] for event in stored)
    assert (answer["rows"], answer["events_estimated"]) == (24, 240.0)
    assert (answer["complete"], answer["next"], answer["hints"]) == (True, None, [])
    assert answer["generations"] == {hour.start.isoformat(): 1 for hour in HOURS}
    newest = max(map(moment_of, stored))
    assert answer["searched"]["to"] == newest.replace(microsecond=1).isoformat()
    assert answer["searched"]["until"] == answer["searched"]["from"]


def test_pages_have_every_row_once(client: TestClient, stored: list[dict[str, Any]]) -> None:
    """By the link of each answer, over rows of the same microsecond, in both orders."""
    for order in ("newest", "oldest"):
        seen: list[str] = []
        address: str | None = f"{PATH}?limit=5&order={order}&q=-type:beat"
        while address:
            answered = client.get(address)
            seen += ids(answered.json())
            address = answered.links.get("next", {}).get("url")
        wanted = [event["id"] for event in stored if event["type"] != "beat"]
        assert len(seen) == len(wanted)
        assert set(seen) == set(wanted)


def test_a_cursor_belongs_to_its_search(
    client: TestClient, stored: list[dict[str, Any]]
) -> None:
    """Another query, order or range with the same cursor is refused; another limit is not."""
    del stored
    cursor = client.get(f"{PATH}?limit=5&q=type:task").json()["next"]
    same = client.get(PATH, params={"q": " type:task ", "limit": 1, "cursor": cursor})
    assert same.status_code == 200
    for others in ({"q": "type:note"}, {"order": "oldest"}, {"from": "2025-12-04"}):
        refused = client.get(PATH, params={"q": "type:task", "cursor": cursor} | others)
        assert (refused.status_code, refused.json()["type"]) == (400, "/problems#cursor")
    for broken in ("x", "é", "e30", "W10", cursor[:-4], "AAAA"):
        refused = client.get(PATH, params={"q": "type:task", "cursor": broken})
        assert (refused.status_code, refused.json()["type"]) == (400, "/problems#cursor")


def test_an_event_is_found_by_its_id(client: TestClient, stored: list[dict[str, Any]]) -> None:
    """With the digits of its numbers; an id that is stored nowhere, or is none, is not found."""
    del stored
    (event,) = client.get(f"{PATH}?q=n:3&to=2025-12-04T11:00").json()["events"]
    answered = client.get(f"{PATH}/{event['id']}")
    assert answered.json()["event"] == event
    assert '"big": 9007199254740993' in answered.text
    moment, uid = event["id"].split("-")
    for absent in (f"{int(moment) + 1}-{uid}", f"{moment}-{'0' * 32}", "1", "x"):
        answered = client.get(f"{PATH}/{absent}")
        assert (answered.status_code, answered.json()["type"]) == (404, "/problems#not-found")


def test_members_can_be_chosen(client: TestClient, stored: list[dict[str, Any]]) -> None:
    """``fields`` leaves the others out; a member that does not exist is a mistake."""
    del stored
    (event,) = client.get(f"{PATH}?limit=1&fields=event_type,%20weight").json()["events"]
    assert event.keys() == {"id", "event_type", "weight"}
    refused = client.get(f"{PATH}?fields=evel")
    assert (refused.status_code, refused.json()["parameter"]) == (400, "fields")


def test_an_answer_that_did_not_change_is_not_sent_again(
    client: TestClient, load: Load
) -> None:
    """The ETag is that of the query and the generations: an hour that is replaced changes it."""
    load(HOUR, some_events(HOUR), generation=1)
    address = f"{PATH}?from=2025-12-04T10:00&to=2025-12-04T11:00"
    tag = client.get(address).headers["etag"]
    again = client.get(address, headers={"If-None-Match": f'"other", {tag}'})
    assert (again.status_code, again.text, again.headers["etag"]) == (304, "", tag)
    assert client.get(f"{address}&q=x", headers={"If-None-Match": tag}).status_code == 200
    load(HOUR, some_events(HOUR), generation=2)
    assert client.get(address, headers={"If-None-Match": tag}).status_code == 200


@pytest.mark.parametrize(
    ("query", "parameter", "detail"),
    [
        ("evel=error", "evel", "there is no parameter 'evel' here; there are"),
        ("limitt=5", "limitt", "did you mean 'limit'?"),
        ("limit=5&limit=6", "limit", "limit is given 2 times: give it once"),
        ("limit=0", "limit", "limit: Input should be greater than or equal to 1"),
        ("limit=1001", "limit", "limit: Input should be less than or equal to 1000"),
        ("limit=x", "limit", "limit: Input should be a valid integer"),
        ("order=up", "order", "order: Input should be 'newest' or 'oldest'"),
        ("from=soon", "from", "from: 'soon' is no moment: write 2025-12-04T10:00:00Z"),
        (
            "from=2025-12-05&to=soon",
            "to",
            "to: 'soon' is no moment: write 2025-12-04T10:00:00Z",
        ),
        ("from=2025-12-05&to=2025-12-04", "from", "is not before the end"),
    ],
)
def test_mistakes_are_explained(
    client: TestClient, query: str, parameter: str, detail: str
) -> None:
    """Each names its parameter and what it could be."""
    answered = client.get(f"{PATH}?{query}")
    problem = answered.json()
    assert answered.headers["content-type"] == "application/problem+json"
    assert (answered.status_code, problem["type"]) == (400, "/problems#parameter")
    assert problem["parameter"] == parameter
    assert detail in problem["detail"]


def test_a_mistake_in_a_query_has_its_place(client: TestClient) -> None:
    """The position, and which sign could stand there."""
    problem = client.get(f"{PATH}?q=level:error%20(a").json()
    assert (problem["status"], problem["type"]) == (400, "/problems#query")
    assert problem["position"] == 14
    assert "closing" in problem["expected"]
    number = client.get(f"{PATH}?q=duration:soon").json()
    assert "is a number" in number["detail"]


def test_a_name_that_is_nearly_a_column_is_shown(
    client: TestClient, stored: list[dict[str, Any]]
) -> None:
    """A field that no event has is no mistake: the answer is empty and has a hint."""
    del stored
    answer = client.get(f"{PATH}?q=evel:error").json()
    assert answer["hints"] == ["'evel' is no column; did you mean 'level'?"]


def test_other_paths_and_methods_are_problems(client: TestClient) -> None:
    """Nothing of the framework's own form comes out."""
    missing = client.get("/api/v1/nothing")
    assert (missing.status_code, missing.json()["type"]) == (404, "/problems#not-found")
    posted = client.post(PATH)
    assert (posted.status_code, posted.json()["type"]) == (405, "/problems#method")
    assert "GET" in posted.headers["allow"]
    assert client.options("/api/v1/session").headers["allow"] == "DELETE, POST"


def test_health_and_metrics(client: TestClient, stored: list[dict[str, Any]]) -> None:
    """The process, the database, and the samples of ``obs metrics`` beside the server's own."""
    del stored
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ok"}
    client.get(f"{PATH}?q=secret")
    text = client.get("/metrics").text
    assert "obs_landed_events{" in text
    assert 'obs_api_requests_total{path="/api/v1/events",status="200"}' in text
    assert "secret" not in text


def test_every_answer_has_the_headers_of_a_page(client: TestClient) -> None:
    """Also problems: nothing is loaded from elsewhere, nothing is framed."""
    for path in ("/healthz", PATH, "/nothing"):
        headers = client.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"


def test_numbers_keep_their_digits(client: TestClient, stored: list[dict[str, Any]]) -> None:
    """JSON text goes from the table to the client as it is."""
    del stored
    answered = client.get(f"{PATH}?limit=1")
    assert '"big": 9007199254740993' in answered.text
    assert json.loads(answered.text)["events"][0]["data"]["big"] == 9007199254740993
