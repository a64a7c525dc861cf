"""Damaged requests: the receiver never fails, and each accepted record lands or is a dead letter."""

import gzip
import json
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)

from obs_assets.hours import Hour
from obs_assets.sources.files import SourceConfig
from obs_assets.sources.landing import land
from obs_assets.sources.times import EARLIEST
from obs_assets_tests.receive.conftest import Inside
from obs_assets_tests.receive.test_protocols import protobuf
from obs_assets_tests.sources.place import NOW

PROTOBUF = {"content-type": "application/x-protobuf"}

SEEDS = [
    b'{"time": 1935738000, "n": 1}',
    b'[{"a": {"b": [1, 2.5e300, null, true]}}, {"c": "\xc3\xa4\\u0000"}]',
    b'{"a": 1}\n{"b": 2}\n\n[3]\n',
    b'{"index": {"_id": "x"}}\n{"n": 1}\n{"create": {}}\n{"n": 2}\n{"delete": {"_id": "y"}}\n',
    b'{"time": 1935738000.5, "event": "text", "fields": {"k": "v"}}{"event": {"n": 2}}',
    b'{"resourceLogs": [{"scopeLogs": [{"logRecords": [{"body": {"stringValue": "x"}}]}]}]}',
    b"a line\nanother \xff line\r\n",
]
"""A valid body of each protocol, and a few that are valid for none."""

PATHS = [
    "/v1/logs",
    "/events",
    "/services/collector",
    "/services/collector/event",
    "/services/collector/raw?sourcetype=a&source=%ff",
    "/_bulk",
    "/shop/_bulk?pipeline=x",
    "/",
    "/metrics",
    "/_cat/health",
    "/nothing",
    "//",
]

TYPES = [
    "application/json",
    "application/x-protobuf",
    "application/x-ndjson",
    "text/plain",
    "",
    "x",
]

ENCODINGS = ["", "", "", "gzip", "deflate", "zstd", "br", "gzip, gzip", "identity"]


def damaged(chance: random.Random, body: bytes) -> bytes:
    """A body with a few random damages: changed, lost, doubled and foreign bytes."""
    for _ in range(chance.randint(0, 4)):
        at = chance.randint(0, len(body))
        end = min(len(body), at + chance.randint(0, 12))
        piece = chance.choice(
            [
                b"",
                chance.randbytes(end - at),
                body[at:end] * 2,
                chance.randbytes(3),
                b"\xff" * 10,
            ]
        )
        body = body[:at] + piece + body[end:]
    return body


def records_of(body: bytes) -> int | None:
    """The number of records, as the reference library reads the body; None if it cannot."""
    try:
        request = ExportLogsServiceRequest.FromString(body)
    except DecodeError:
        return None
    return sum(
        len(scope.log_records)
        for resource in request.resource_logs
        for scope in resource.scope_logs
    )


def landed_and_dead(inside: Inside) -> int:
    """End, land all files: the number of events and of dead letters."""
    inside.spool.close()
    config = SourceConfig(events_dir=inside.place.events_dir, seal_after_minutes=0)
    report = land(config, inside.place.log, first_hour=Hour(EARLIEST), now=NOW)
    return sum(report.hours.values()) + sum(report.dead_letters.values())


def seed() -> random.Random:
    return random.Random(int(os.environ.get("SOAK_SEED") or 23))


COUNTS = [
    pytest.param(400, marks=pytest.mark.slow),
    pytest.param(20_000, marks=[pytest.mark.soak, pytest.mark.timeout(3600)]),
]


@pytest.mark.parametrize("count", COUNTS)
def test_damaged_protobufs(inside: Inside, count: int) -> None:
    """A body is refused exactly when the reference library refuses it; else each of its records is kept or counted."""
    chance = seed()
    whole = protobuf()
    for _ in range(3):
        whole.resource_logs[0].scope_logs[0].log_records.append(
            whole.resource_logs[0].scope_logs[0].log_records[0]
        )
    kept = 0
    accepted = 0
    for _ in range(count):
        body = damaged(chance, whole.SerializeToString())
        records = records_of(body)
        answer = inside.client.post("/v1/logs", content=body, headers=PROTOBUF)
        assert answer.status_code == (400 if records is None else 200)
        if records is not None:
            said = ExportLogsServiceResponse.FromString(answer.content)
            kept += records - said.partial_success.rejected_log_records
            accepted += 1
    # Neither side of the test is empty.
    assert count / 20 < accepted < count * 0.95
    assert landed_and_dead(inside) == kept


@pytest.mark.parametrize("count", COUNTS)
def test_random_requests(inside: Inside, count: int) -> None:
    """Any method, path, type, encoding and body gets an answer of a client's mistake or a success, in its own form."""
    chance = seed()
    pack: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress}
    statuses: dict[int, int] = {}
    for _ in range(count):
        encoding = chance.choice(ENCODINGS)
        body = damaged(chance, chance.choice([*SEEDS, protobuf().SerializeToString()]))
        if chance.random() < 0.8:
            body = pack.get(encoding, bytes)(body)
        headers = {
            "content-type": chance.choice(TYPES),
            "content-encoding": encoding,
            "idempotency-key": chance.choice(["", "k", "k" * 300]),
            "authorization": chance.choice(["", "Bearer", "Basic =", "Splunk x"]),
        }
        given = {name: value for name, value in headers.items() if value}
        method = chance.choice(
            ["POST", "POST", "POST", "PUT", "GET", "HEAD", "DELETE", "PATCH"]
        )
        answer = inside.client.request(
            method, chance.choice(PATHS), content=body, headers=given
        )
        statuses[answer.status_code] = statuses.get(answer.status_code, 0) + 1
        assert answer.status_code < 500
        if answer.headers["content-type"] == "application/json" and method != "HEAD":
            json.loads(answer.content)
    assert {200, 400, 404, 405, 415} <= set(statuses)
    # What was written can be read.
    landed_and_dead(inside)
    for path in Path(inside.spool.folder).glob("*.jsonl"):
        assert path.read_bytes().endswith(b"\n")
