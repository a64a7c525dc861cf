"""Times, lengths, texts and names at the ends of what can be written are answers or mistakes, never faults."""

import base64
import itertools
import json
from typing import Any
from urllib.parse import quote

import pytest
from starlette.testclient import TestClient

TIMES = (
    "0001-01-01",
    "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59.999999Z",
    "9999-12-31T23:59:59-14:00",
    "now-999999w",
    "now+999999w",
    "now-500000d",
    "1969-12-31T23:59:59",
    "",
)
TEXTS = (
    "\x00",
    "%00",
    "'",
    '"',
    "\\",
    "é" * 1000,
    "𝄞",
    "\ud800".encode("utf-16", "surrogatepass").hex(),
    "a" * 4000,
)
V1 = ("events", "histogram", "stats", "fields", "hours", "explain", "export", "facets?field=a")


def codes(client: TestClient, address: str, **parameters: Any) -> int:
    return client.get(address, params=parameters).status_code


@pytest.mark.slow
def test_times_at_the_ends(client: TestClient, stored: list[dict[str, Any]]) -> None:
    """Of every path that takes a range."""
    del stored
    faults = []
    for name, (since, until) in itertools.product(V1, itertools.product(TIMES, TIMES[2:6])):
        path, _, query = name.partition("?")
        fixed = dict(pair.split("=") for pair in query.split("&") if pair)
        code = codes(client, f"/api/v1/{path}", **fixed, **{"from": since, "to": until})
        if code not in {200, 400, 422}:
            faults.append((name, since, until, code))
    for path, (since, until) in itertools.product(
        ("stats", "events", "stats/timeline", "stats/costs"), itertools.product(TIMES, TIMES)
    ):
        code = codes(client, f"/api/{path}", startTime=since, endTime=until)
        if code not in {200, 400, 422}:
            faults.append((path, since, until, code))
    assert faults == []


def test_texts_of_any_kind(client: TestClient, stored: list[dict[str, Any]]) -> None:
    """As query, as value of a filter, as a part of a path."""
    del stored
    faults = []
    for text in TEXTS:
        for address, parameters in (
            ("/api/v1/events", {"q": text}),
            ("/api/v1/events", {"cursor": text}),
            ("/api/v1/events", {"q": f'type:"{text}"'}),
            ("/api/v1/histogram", {"by": text}),
            ("/api/v1/stats", {"by": text}),
            ("/api/v1/stats", {"step": text}),
            ("/api/v1/facets", {"field": text}),
            ("/api/v1/whereabouts", {"event_id": text}),
            ("/api/v1/whereabouts", {"trace_id": text}),
            ("/api/v1/whereabouts", {"file": text}),
            ("/api/events", {"type": text}),
            ("/api/events", {"level": text}),
            ("/api/events/search", {"q": text}),
            (f"/api/masters/{quote(text, safe='')}/events", {}),
            ("/api/events/" + "9" * len(text), {}),
        ):
            code = codes(client, address, **parameters)
            if code not in {200, 400, 404, 422}:
                faults.append((address[:40], text[:10], code))
    assert faults == []


@pytest.mark.parametrize("moment", [-(10**18) + 1, -62135596800000000, 253402300799999999])
def test_ids_at_the_ends(client: TestClient, moment: int) -> None:
    """Neighbours of a time at the end of the calendar cannot be asked for."""
    for path in ("/api/v1/events/{}", "/api/v1/events/{}/context", "/api/events/{}"):
        assert client.get(path.format(f"{moment}-ab")).status_code == 404
    made = {
        "v": 1,
        "of": "x",
        "from": "0001-01-01T00:00:00+00:00",
        "to": "9999-12-31T00:00:00+00:00",
    }
    text = base64.urlsafe_b64encode(json.dumps(made | {"at": f"{moment}-ab"}).encode()).decode()
    assert client.get("/api/v1/events", params={"cursor": text.rstrip("=")}).status_code == 400


@pytest.mark.parametrize("step", ["1s", "1d", "1w", "3660d", "366w"])
@pytest.mark.parametrize("tz", ["UTC", "Asia/Kathmandu", "Pacific/Apia"])
def test_steps_of_any_length(
    client: TestClient, stored: list[dict[str, Any]], step: str, tz: str
) -> None:
    """Over the default range, an hour, and a range of centuries."""
    del stored
    for since, until in (
        ("", ""),
        ("0001-01-01", "9999-12-31"),
        ("2025-12-04T10", "2025-12-04T11"),
    ):
        for path in ("histogram", "stats"):
            code = codes(
                client,
                f"/api/v1/{path}",
                **{"step": step, "tz": tz, "from": since, "to": until},
            )
            assert code in {200, 400}
