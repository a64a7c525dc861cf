"""Every protocol: what is sent becomes the events that a file would give, and the answer says so."""

import gzip
import json
from typing import Any

import pytest
from backports import zstd
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)

from obs_assets_tests.receive.conftest import Inside

BIG = 12345678901234567890123
AT = "2031-05-05T09:00:00Z"


def protobuf() -> ExportLogsServiceRequest:
    """A request with every kind of value."""
    request = ExportLogsServiceRequest()
    resource = request.resource_logs.add()
    name = resource.resource.attributes.add(key="service.name")
    name.value.string_value = "cart"
    scope = resource.scope_logs.add()
    scope.scope.name = "lib"
    record = scope.log_records.add(
        time_unix_nano=1_935_738_000_123_456_789,
        severity_number=17,
        severity_text="ERROR",
        trace_id=bytes(range(16)),
        span_id=bytes(range(8)),
    )
    record.body.string_value = "größer\nals 1"
    record.attributes.add(key="count").value.int_value = 2**53 + 1
    record.attributes.add(key="ratio").value.double_value = float("nan")
    record.attributes.add(key="raw").value.bytes_value = b"\x00\xff"
    parts = record.attributes.add(key="parts").value.array_value
    parts.values.add().bool_value = True
    parts.values.add().kvlist_value.values.add(key="k").value.string_value = "v"
    return request


OTLP_EVENT = {
    "timeUnixNano": "1935738000123456789",
    "severityNumber": 17,
    "severityText": "ERROR",
    "traceId": "000102030405060708090a0b0c0d0e0f",
    "spanId": "0001020304050607",
    "body": "größer\nals 1",
    "attributes": {
        "count": 2**53 + 1,
        "ratio": "NaN",
        "raw": "AP8=",
        "parts": [True, {"k": "v"}],
    },
    "resource": {"service.name": "cart"},
    "scope": {"name": "lib"},
}

EVENTS: dict[str, tuple[str, str, bytes, list[dict[str, Any]]]] = {
    "otlp": (
        "/v1/logs",
        "application/x-protobuf",
        protobuf().SerializeToString(),
        [OTLP_EVENT],
    ),
    "otlp json": (
        "/v1/logs",
        "application/json; charset=utf-8",
        json.dumps(
            {
                "resourceLogs": [
                    {
                        "scopeLogs": [
                            {"logRecords": [{"timeUnixNano": "1935738000000000000", "n": BIG}]}
                        ]
                    }
                ]
            },
            indent=1,
        ).encode(),
        [{"timeUnixNano": "1935738000000000000", "n": BIG}],
    ),
    "object": (
        "/events",
        "application/json",
        json.dumps({"timestamp": AT, "type": "a", "n": BIG, "text": "a\nb"}, indent=2).encode(),
        [{"timestamp": AT, "type": "a", "n": BIG, "text": "a\nb"}],
    ),
    "list": (
        "/events",
        "text/plain",
        b'[{"time": 1935738000, "a": 1.50}, {"time": 1935738001}]',
        [{"time": 1935738000, "a": 1.5}, {"time": 1935738001}],
    ),
    "lines": (
        "/events",
        "",
        b'\xef\xbb\xbf{"time": 1935738000}\r\n\n{"time": 1935738001, "a": {"b": []}}\n',
        [{"time": 1935738000}, {"time": 1935738001, "a": {"b": []}}],
    ),
    "hec": (
        "/services/collector/event",
        "",
        b'{"time":1935738000.5,"host":"h","event":{"type":"a","host":"own"},"fields":{"f":1}}'
        b'{"event":"just text","index":"main"}',
        [
            {
                "type": "a",
                "host": "own",
                "f": 1,
                "time": 1935738000.5,
                "sourcetype": "httpevent",
            },
            {
                "message": "just text",
                "index": "main",
                "time": 1935738000.0,
                "sourcetype": "httpevent",
            },
        ],
    ),
    "hec raw": (
        "/services/collector/raw?sourcetype=app&host=web%201",
        "",
        b'plain "line"\n{"level": "warn", "n": 1}\n',
        [
            {
                "message": 'plain "line"',
                "time": 1935738000.0,
                "sourcetype": "app",
                "host": "web 1",
            },
            {
                "level": "warn",
                "n": 1,
                "time": 1935738000.0,
                "sourcetype": "app",
                "host": "web 1",
            },
        ],
    ),
    "bulk": (
        "/logs/_bulk",
        "application/x-ndjson",
        b'{"index":{"_id":"7"}}\n{"@timestamp":"' + AT.encode() + b'","message":"m"}\n'
        b'{"create":{"_index":"other","_id":"8"}}\n{"@timestamp":"' + AT.encode() + b'"}\n',
        [
            {"@timestamp": AT, "message": "m", "_index": "logs", "_id": "7"},
            {"@timestamp": AT, "_index": "other", "_id": "8"},
        ],
    ),
}


@pytest.mark.parametrize("kind", EVENTS)
@pytest.mark.parametrize("encoding", ["", "gzip", "zstd"])
def test_a_request_becomes_its_events(inside: Inside, kind: str, encoding: str) -> None:
    """Numbers keep their digits, texts their signs, and compression makes no difference."""
    path, content_type, body, expected = EVENTS[kind]
    headers = {"Content-Type": content_type} if content_type else {}
    if encoding:
        headers["Content-Encoding"] = encoding
        body = {"gzip": gzip.compress, "zstd": zstd.compress}[encoding](body)
    answer = inside.client.post(path, content=body, headers=headers)
    assert answer.status_code == 200, answer.text
    assert inside.landed() == expected


def test_otlp_answers_partial_success(inside: Inside) -> None:
    """Records that landing would refuse are counted in the answer, and the others land."""
    request = protobuf()
    deep = request.resource_logs[0].scope_logs[0].log_records.add().body
    for _ in range(40):
        deep = deep.array_value.values.add()
    headers = {"Content-Type": "application/x-protobuf"}
    content = request.SerializeToString()
    answer = inside.client.post("/v1/logs", content=content, headers=headers)
    response = ExportLogsServiceResponse.FromString(answer.content)
    assert response.partial_success.rejected_log_records == 0
    records = [{"timeUnixNano": "1935738000000000000", "body": {"stringValue": "x"}}, 5, "text"]
    records.append({"body": json.loads('{"arrayValue":{"values":[' * 90 + "1" + "]}}" * 90)})
    body = {"resource_logs": [{"scope_logs": [{"log_records": records}]}]}
    answer = inside.client.post("/v1/logs", json=body)
    assert answer.json()["partialSuccess"]["rejectedLogRecords"] == "3"
    assert len(inside.landed()) == 3


def test_bulk_answers_for_each_item(inside: Inside) -> None:
    """Updates, deletions and broken documents fail alone; a document without an id gets the same one again."""
    body = (
        b'{"create":{}}\n{"a":1}\n{"delete":{"_id":"1"}}\n{"update":{"_id":"1"}}\n{"doc":{}}\n'
        b'{"index":{}}\n{"broken\n{"index":null}\n{"b":2}\n'
    )
    first, second = (inside.client.put("/_bulk", content=body).json() for _ in range(2))
    assert first["errors"] is True
    items = [(name, item["status"]) for entry in first["items"] for name, item in entry.items()]
    assert items == [
        ("create", 201),
        ("delete", 400),
        ("update", 400),
        ("index", 400),
        ("index", 201),
    ]
    assert first["items"] == second["items"]
    stored = [first["items"][0]["create"]["_id"], first["items"][4]["index"]["_id"]]
    assert [event["_id"] for event in inside.landed()] == stored * 2


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/events", b"", 400, "the body holds no event"),
        ("/events", b"[]", 400, "the body holds no event"),
        ("/events", b'"text"', 400, "not_an_object"),
        ("/events", b'{"a": NaN}', 400, "number_not_finite"),
        ("/events", b'{"a": 1e999}', 400, "number_not_finite"),
        ("/events", b'{"a":' * 250 + b"1" + b"}" * 250, 400, "too_deep"),
        ("/events", b"[" * 100_000, 400, "too_deep"),
        ("/events", b'{"a": "\xff"}', 400, "not UTF-8"),
        ("/v1/logs", b"\xff\xff", 400, "ExportLogsServiceRequest"),
        ("/services/collector", b"", 400, '"code":5'),
        ("/services/collector", b'{"event":1}{"x":1}', 400, '"invalid-event-number":1'),
        ("/services/collector/raw", b"\n\n", 400, '"code":5'),
        ("/_bulk", b"", 400, "request body is required"),
        ("/_bulk", b'{"a":1}\n', 400, "an action is expected"),
        ("/_bulk", b'{"create":{}}\n', 400, "the last action has no document"),
        ("/other", b"{}", 404, "nothing"),
    ],
)
def test_a_wrong_request_is_refused_in_the_words_of_its_protocol(
    inside: Inside, path: str, body: bytes, status: int, said: str
) -> None:
    """Nothing is written, and the sender learns the reason."""
    headers = {"Content-Type": "application/x-protobuf"} if path == "/v1/logs" else {}
    answer = inside.client.post(path, content=body, headers=headers)
    assert answer.status_code == status
    assert said in answer.text
    assert inside.spool.files() == []


def test_events_of_a_request_that_is_wrong_in_part(inside: Inside) -> None:
    """`/events` stores the events and names the others."""
    body = b'{"time": 1935738000}\nbroken\n5\n{"time": 1935738001}\n'
    answer = inside.client.post("/events", content=body).json()
    assert answer == {
        "accepted": 2,
        "rejected": 2,
        "errors": [
            {"position": 1, "reason": "not_json"},
            {"position": 2, "reason": "not_an_object"},
        ],
    }
    assert len(inside.landed()) == 2


def test_senders_find_the_server_that_they_expect(inside: Inside) -> None:
    """The pages that shippers ask before they send, and the figures."""
    about = inside.client.get("/")
    assert about.headers["X-Elastic-Product"] == "Elasticsearch"
    assert inside.client.head("/").content == b""
    assert inside.client.get("/services/collector/health").json()["code"] == 17
    assert inside.client.get("/events").status_code == 405
    inside.client.post("/events", content=b'{"time": 1935738000}')
    assert (
        'obs_receive_records_stored_total{protocol="events"} 1'
        in inside.client.get("/metrics").text
    )
