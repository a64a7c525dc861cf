"""Formats of real programs: every event once, at its own time, with its own level and type, and none made up.

Each row of `CORPUS` is a file as such a program writes it, from the format's specification, and what it holds.
"""

import gzip
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from obs_assets.events import with_columns
from obs_assets.sources.formats import likely
from obs_assets.sources.landing import BatchSizes
from obs_assets.storage.engine import connect
from obs_assets_tests.frames import frame_of
from obs_assets_tests.sources.place import Place

NOW = datetime(2031, 5, 6, 12, 0, tzinfo=UTC)
SECONDS = 1935705600
"""2031-05-05 00:00:00 UTC: all times below lie on that day."""


@dataclass(frozen=True)
class Truth:
    """What a file holds: of each event the minute of 2031-05-05, its level and its type."""

    name: str
    content: bytes
    events: list[tuple[str, str | None, str | None]]
    options: dict[str, Any] = field(default_factory=dict)
    dead: dict[str, int] = field(default_factory=dict)


def lines(*events: Any) -> bytes:
    return b"".join(json.dumps(event).encode() + b"\n" for event in events)


def counted(message: str) -> bytes:
    """A message behind its length in bytes (RFC 6587)."""
    return b"%d %s" % (len(message.encode()), message.encode())


def nanos(clock: str) -> str:
    return str(int(datetime.fromisoformat(f"2031-05-05T{clock}+00:00").timestamp()) * 10**9)


def at(clock: str) -> str:
    return f"2031-05-05T{clock}:00Z"


def trail(clock: str, name: str) -> dict[str, Any]:
    return {
        "eventVersion": "1.09",
        "eventTime": at(clock),
        "eventName": name,
        "userIdentity": {"type": "Root"},
    }


def record(clock: str, **fields: Any) -> dict[str, Any]:
    return {"timeUnixNano": nanos(clock), "body": {"stringValue": "x"}, **fields}


def scope(*records: Any, name: str = "lib") -> dict[str, Any]:
    return {"scope": {"name": name, "version": "1"}, "logRecords": [*records]}


SERVICE = {"attributes": [{"key": "service.name", "value": {"stringValue": "cart"}}]}

CORPUS = [
    Truth(
        "splunk",
        lines(
            {
                "time": int(nanos("09:01")) / 10**9,
                "host": "h",
                "sourcetype": "_json",
                "event": {"type": "a", "level": "error"},
                "fields": {"f": 1},
            },
            {"time": str(int(nanos("09:02")) // 10**9), "sourcetype": "app", "event": "text"},
        ),
        [("09:01", "error", "a"), ("09:02", None, None)],
    ),
    Truth(
        "cloudtrail",
        lines({"Records": [trail("09:01", "CreateUser")]}),
        [("09:01", None, "CreateUser")],
    ),
    Truth(
        "cloudtrail, printed",
        json.dumps({"Records": [trail("09:01", "A"), trail("10:02", "B")]}, indent=2).encode(),
        [("09:01", None, "A"), ("10:02", None, "B")],
    ),
    Truth(
        "cloudtrail, files behind one another",
        (
            json.dumps({"Records": [trail("09:01", "A")]})
            + json.dumps({"Records": [trail("09:02", "B")]})
        ).encode(),
        [("09:01", None, "A"), ("09:02", None, "B")],
    ),
    Truth("cloudtrail, empty", lines({"Records": []}), []),
    Truth(
        "s3 notifications",
        lines(
            {
                "Records": [
                    {
                        "eventVersion": "2.1",
                        "eventTime": at("11:00"),
                        "eventName": "ObjectCreated:Put",
                        "s3": {},
                    }
                ]
            }
        ),
        [("11:00", None, "ObjectCreated:Put")],
    ),
    Truth(
        "azure",
        lines(
            {
                "records": [
                    {
                        "time": at("08:00"),
                        "operationName": "Write",
                        "level": "Informational",
                        "properties": {"records": [{}]},
                    },
                    {"time": at("08:01"), "operationName": "Delete", "level": "Error"},
                ]
            }
        ),
        [("08:00", "info", "Write"), ("08:01", "error", "Delete")],
    ),
    Truth(
        "records of another meaning",
        lines(
            {"timestamp": at("07:00"), "type": "batch", "records": [{"n": 1}]},
            {"records": ["a"]},
            {"Records": 5},
        ),
        [("07:00", None, "batch"), ("now", None, None), ("now", None, None)],
    ),
    Truth(
        "cloudwatch",
        lines(
            {
                "logEvents": [
                    {"id": "1", "timestamp": (SECONDS + 60) * 1000, "message": "a"},
                    {
                        "id": "2",
                        "timestamp": (SECONDS + 3600) * 1000,
                        "message": '{"type":"b"}',
                    },
                ],
                "messageType": "DATA_MESSAGE",
                "owner": "0",
                "logGroup": "/svc",
                "logStream": "s",
                "subscriptionFilters": ["all"],
            },
            {
                "messageType": "CONTROL_MESSAGE",
                "owner": "0",
                "logGroup": "",
                "logStream": "",
                "subscriptionFilters": [],
                "logEvents": [
                    {"id": "", "timestamp": SECONDS * 1000, "message": "checking health"}
                ],
            },
        ),
        [("00:01", None, None), ("01:00", None, None)],
    ),
    Truth(
        "otlp",
        lines(
            {
                "resourceLogs": [
                    {
                        "scopeLogs": [
                            scope(
                                record("09:00:00", severityNumber=17),
                                record("10:00:00", severityNumber=9),
                            ),
                            scope(record("09:05:00", severityText="WARN3", eventName="late")),
                        ],
                        "resource": SERVICE,
                    },
                    {"resource": {}, "scopeLogs": [scope(record("09:06:00"))]},
                    {"resource": {}, "scopeLogs": []},
                ]
            }
        ),
        [
            ("09:00", "error", None),
            ("10:00", "info", None),
            ("09:05", "warning", "late"),
            ("09:06", None, None),
        ],
    ),
    Truth(
        "otlp, one resource",
        lines(
            {
                "resource": SERVICE,
                "schemaUrl": "u",
                "scopeLogs": [scope(record("09:00:00", severityNumber=21))],
            }
        ),
        [("09:00", "fatal", None)],
    ),
    Truth(
        "otlp, records alone",
        lines(
            {
                "timeUnixNano": nanos("09:00:00"),
                "severityText": "INFO",
                "eventName": "start",
                "body": "text",
            },
            {"timeUnixNano": "0", "observedTimeUnixNano": nanos("09:30:00"), "attributes": []},
            {
                "observedTimeUnixNano": nanos("09:31:00"),
                "severityNumber": 13,
                "body": {"intValue": "5"},
            },
        ),
        [("09:00", "info", "start"), ("09:30", None, None), ("09:31", "warning", None)],
    ),
    Truth(
        "docker",
        lines(
            {"log": "one\n", "stream": "stdout", "time": at("09:00")},
            {"log": "two, ", "stream": "stdout", "time": at("09:01")},
            {"log": "other\n", "stream": "stderr", "time": at("09:02"), "attrs": {"tag": "x"}},
            {"log": "three\n", "stream": "stdout", "time": at("09:03")},
        ),
        [("09:00", None, None), ("09:01", None, None), ("09:02", None, None)],
    ),
    Truth(
        "pino and bunyan",
        lines(
            {
                "level": 50,
                "time": (SECONDS + 60) * 1000,
                "pid": 1,
                "hostname": "h",
                "msg": "boom",
            },
            {"name": "api", "level": 30, "msg": "up", "time": at("09:01"), "v": 0},
        ),
        [("00:01", "error", None), ("09:01", "info", None)],
    ),
    Truth(
        "zap and slog",
        lines(
            {"level": "dpanic", "ts": SECONDS + 120.5, "caller": "a.go:1", "msg": "x"},
            {"time": "2031-05-05T11:00:00.1+02:00", "level": "ERROR+4", "msg": "x"},
        ),
        [("00:02", "critical", None), ("09:00", "error", None)],
    ),
    Truth(
        "serilog",
        lines(
            {"@t": at("09:00"), "@mt": "x {N}", "N": 1},
            {"@t": at("09:01"), "@mt": "y", "@l": "Fatal", "@x": "E"},
        ),
        [("09:00", "info", None), ("09:01", "fatal", None)],
    ),
    Truth(
        "monolog and log4j",
        lines(
            {
                "message": "x",
                "level": 550,
                "level_name": "ALERT",
                "channel": "a",
                "datetime": "2031-05-05T09:00:00.1+00:00",
            },
            {
                "instant": {"epochSecond": SECONDS + 60, "nanoOfSecond": 7},
                "level": "FATAL",
                "message": "x",
            },
            {"timeMillis": SECONDS * 1000, "level": "WARN", "loggerName": "a", "message": "x"},
        ),
        [("09:00", "alert", None), ("00:01", "fatal", None), ("00:00", "warning", None)],
    ),
    Truth(
        "google cloud and kubernetes",
        lines(
            {
                "severity": "NOTICE",
                "timestamp": "2031-05-05T09:00:00.123456789Z",
                "insertId": "a",
                "textPayload": "x",
            },
            {
                "kind": "Event",
                "auditID": "b",
                "verb": "get",
                "requestReceivedTimestamp": "2031-05-05T09:01:00.000000Z",
            },
        ),
        [("09:00", "notice", None), ("09:01", None, None)],
    ),
    Truth(
        "github and cloudflare",
        lines(
            {"@timestamp": (SECONDS + 60) * 1000, "action": "repo.destroy", "actor": "a"},
            {"EdgeStartTimestamp": nanos("09:01:00"), "RayID": "x", "EdgeResponseStatus": 200},
        ),
        [("00:01", None, "repo.destroy"), ("09:01", None, None)],
    ),
    Truth(
        "journalctl -o json, -o json-seq",
        lines({"__REALTIME_TIMESTAMP": f"{SECONDS}000000", "PRIORITY": "3", "MESSAGE": "x"})
        + b"\x1e"
        + lines(
            {
                "__REALTIME_TIMESTAMP": f"{SECONDS + 60}000000",
                "PRIORITY": "6",
                "MESSAGE": [120, 13],
            }
        ),
        [("00:00", "error", None), ("00:01", "info", None)],
    ),
    Truth(
        "gelf",
        b"\0".join(
            [
                b'{"version":"1.1","host":"a","short_message":"x","timestamp":%d.25,"level":3}'
                % SECONDS,
                b'{"version":"1.1","host":"a","short_message":"y","timestamp":1.9357056E9,"level":6}\0',
            ]
        ),
        [("00:00", "error", None), ("00:00", "info", None)],
    ),
    Truth(
        "mongodb and postgresql",
        lines(
            {
                "t": {"$date": "2031-05-05T11:00:00.180+02:00"},
                "s": "E",
                "c": "STORAGE",
                "msg": "x",
            },
            {
                "timestamp": "2031-05-05 09:01:00.304 UTC",
                "error_severity": "PANIC",
                "message": "x",
            },
        ),
        [("09:00", "error", None), ("09:01", "fatal", None)],
    ),
    Truth(
        "powershell",
        "\ufeff".encode("utf-16-le")
        + '{"timestamp":"2031-05-05T09:00:00Z","type":"a"}\r\n'.encode("utf-16-le"),
        [("09:00", None, "a")],
    ),
    Truth(
        "a list that is named",
        lines(
            {
                "page": 1,
                "data": {"items": [{"time": at("09:00"), "type": "a"}, {"time": at("09:01")}]},
            }
        ),
        [("09:00", None, "a"), ("09:01", None, None)],
        {"records": "data.items"},
    ),
    Truth(
        "envelopes left alone",
        lines({"Records": [trail("09:01", "CreateUser")]}),
        [("now", None, None)],
        {"records": "off"},
    ),
    Truth(
        "cri",
        b"2031-05-05T09:00:00.123456789Z stdout F one\n"
        b"2031-05-05T09:01:00.123456789Z stdout P two, \n"
        b"2031-05-05T09:02:00.5+00:00 stderr F other\r\n"
        b"2031-05-05T09:03:00Z stdout F three\n"
        b"2031-05-05T09:04:00Z stdout F\n"
        b"no line of the kubelet\n",
        [
            ("09:00", None, None),
            ("09:01", None, None),
            ("09:02", None, None),
            ("09:04", None, None),
        ],
        {"format": "cri"},
        {"not_cri": 1},
    ),
    Truth(
        "syslog",
        b"<34>1 2031-05-05T09:00:00.003Z host su - ID47 - \xef\xbb\xbf'su root' failed\n"
        b'<165>1 2031-05-05T11:01:00+02:00 host evntslog - ID47 [ex@1 iut="3" eventSource="A\\]p"][b@1] An event\n'
        b"<191>1 2031-05-05T09:02:00Z - - - - -\n"
        b"2031-05-05T09:03:00.123456+00:00 host sshd[123]: Accepted\n"
        b"May  5 09:04:00 host sshd[123]: without a year\n"
        b"<192>1 2031-05-05T09:05:00Z - - - - -\n",
        [
            ("09:00", "critical", None),
            ("09:01", "notice", None),
            ("09:02", "debug", None),
            ("09:03", None, None),
        ],
        {"format": "syslog"},
        {"not_syslog": 1},
    ),
    Truth(
        "syslog, cut in front, then counted, without line ends",
        b"host su - ID47 - cut"
        + counted("<34>1 2031-05-05T09:00:00.003Z host su - ID47 - over\ntwo lines, 12 <3>")
        + counted('<165>1 2031-05-05T09:01:00Z host é 1 - [ex@1 iut="3"] ü\n')
        + counted("<14>1 2031-05-05T09:02:00Z - - - - -"),
        [("09:00", "critical", None), ("09:01", "notice", None), ("09:02", "info", None)],
        {"format": "syslog"},
        {"not_syslog": 1},
    ),
    Truth(
        "syslog, lines with a count that is wrong",
        b"999 <34>1 2031-05-05T09:00:00Z host su - - - a 41 <34>1 2031-05-05T09:07:00Z b - - - -\n"
        b"5 <14>1 2031-05-05T09:01:00Z host su - - - b\n",
        [("09:00", "critical", None), ("09:01", "info", None)],
        {"format": "syslog"},
    ),
    Truth(
        "journalctl -o export",
        b"__CURSOR=a\n__REALTIME_TIMESTAMP=%d000000\nPRIORITY=3\nMESSAGE=x\n_A=1\n_A=2\n\n"
        % SECONDS
        + b"__REALTIME_TIMESTAMP=%d000000\nMESSAGE\n" % (SECONDS + 60)
        + (8).to_bytes(8, "little")
        + b"a\n\nb=c\nd\nPRIORITY=6\n\n",
        [("00:00", "error", None), ("00:01", "info", None)],
        {"format": "journald_export"},
    ),
]
SECOND = [truth.name for truth in CORPUS]


def landed(
    place: Place, content: bytes, name: str = "a.log", **options: Any
) -> list[tuple[str, str | None, str | None]]:
    """Minute, level and type of what lands of a file, in its order."""
    place.now = NOW
    place.path("a.log").write_bytes(content)
    place.options = options
    place.land(seal_after_minutes=0)
    place.now = NOW
    rows = sorted(place.audit().rows(), key=lambda row: row["file_offset"])
    with connect(place.root / "spill", threads=1) as connection:
        columns = with_columns(frame_of(connection, [row["line"] for row in rows])).project(
            "event_level, event_type"
        )
        told = columns.fetchall() if rows else []
    clocks = [
        "now"
        if row["time_from"] == "landed_at"
        else row["event_time"].astimezone(UTC).strftime("%H:%M")
        for row in rows
    ]
    return [(clock, *levels) for clock, levels in zip(clocks, told, strict=True)]


@pytest.mark.slow
@pytest.mark.parametrize("truth", CORPUS, ids=SECOND)
def test_every_event_of_a_format_lands_once(place: Place, truth: Truth) -> None:
    """At its own minute, with its own level and type; what is no event is a dead letter."""
    assert landed(place, truth.content, **truth.options) == truth.events
    assert {
        reason: count for reason, (count, _) in place.log.load().letters.items()
    } == truth.dead


MUTABLE = [truth for truth in CORPUS if not truth.options and truth.name != "powershell"]
many = settings(max_examples=7, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.slow
@many
@given(
    parts=st.lists(st.sampled_from(MUTABLE), min_size=1, max_size=4),
    between=st.sampled_from([b"\n", b"\r\n\n", b"\n\xef\xbb\xbf", b"\0", b"\n\x1e", b""]),
    packed=st.booleans(),
)
def test_formats_behind_one_another(
    tmp_path_factory: pytest.TempPathFactory, parts: list[Truth], between: bytes, packed: bool
) -> None:
    """Files in any formats behind one another, with anything that separates them, gzip or not: each event once."""
    content = between.join(part.content for part in parts)
    place = Place(tmp_path_factory.mktemp("place"))
    found = landed(place, gzip.compress(content) if packed else content)
    assert found == [*chain.from_iterable(part.events for part in parts)]


@pytest.mark.slow
@many
@given(truth=st.sampled_from(CORPUS), data=st.data())
def test_formats_while_they_grow(
    tmp_path_factory: pytest.TempPathFactory, truth: Truth, data: st.DataObject
) -> None:
    """Cut at any byte, and landed before the rest is there: no event is lost, doubled or made up."""
    place = Place(tmp_path_factory.mktemp("place"))
    cuts = sorted(data.draw(st.lists(st.integers(1, len(truth.content)), max_size=3)))
    place.options = truth.options
    for cut in cuts:
        place.path("a.log").write_bytes(truth.content[:cut])
        place.now = NOW
        place.land()
    assert landed(place, truth.content, **truth.options) == truth.events


def test_records_have_their_own_offsets_and_the_fields_around_them(place: Place) -> None:
    """A record is the file's bytes from its offset on; bytes around the records are the envelope's in the receipt."""
    envelope = {
        "owner": "o",
        "id": 7,
        "logEvents": [{"id": 1, "message": "a"}, {"id": 2, "message": "b"}],
    }
    envelope |= {"messageType": "DATA_MESSAGE", "logGroup": "g", "logStream": "s"}
    content = b"\n" + lines(envelope) + b"?\n"  # so that the end of the envelope counts as read
    landed(place, content)
    rows = sorted(place.rows(), key=lambda row: row["file_offset"])
    for row, own in zip(rows, envelope["logEvents"], strict=True):
        assert content[row["file_offset"] :].startswith(json.dumps(own).encode())
        assert {"owner": "o", "logGroup": "g", "id": own["id"]}.items() <= json.loads(
            row["line"]
        ).items()
        assert "logEvents" not in json.loads(row["line"])
    ((receipt,),) = place.receipts().values()
    assert receipt.event_bytes == sum(len(json.dumps(own)) for own in envelope["logEvents"])
    assert receipt.envelope_bytes == len(json.dumps(envelope)) - receipt.event_bytes


def test_opentelemetry_becomes_plain_json(place: Place) -> None:
    """Body and attributes as the values that they stand for, digits as written; resource and scope beside them."""
    attributes = [
        {"key": "n", "value": {"intValue": "12345678901234567890"}},
        {"key": "d", "value": {"doubleValue": 1.5}},
        {
            "key": "l",
            "value": {
                "arrayValue": {"values": [{"stringValue": "a"}, {"boolValue": True}, {}]}
            },
        },
        {
            "key": "m",
            "value": {
                "kvlistValue": {"values": [{"key": "k", "value": {"bytesValue": "aGk="}}]}
            },
        },
    ]
    log = record("09:00:00", attributes=attributes, body={"kvlistValue": {"values": []}})
    landed(place, lines({"resourceLogs": [{"resource": SERVICE, "scopeLogs": [scope(log)]}]}))
    (row,) = place.rows()
    assert json.loads(row["line"]) == {
        "timeUnixNano": nanos("09:00:00"),
        "body": {},
        "attributes": {
            "n": 12345678901234567890,
            "d": 1.5,
            "l": ["a", True, None],
            "m": {"k": "aGk="},
        },
        "resource": {"service.name": "cart"},
        "scope": {"name": "lib", "version": "1"},
    }


def test_damage_in_an_envelope_costs_its_record(place: Place) -> None:
    """A record whose time is no time, or whose number is not finite, is a dead letter; the others land."""
    whole = [
        trail("09:00", "A"),
        trail("09:01", "B") | {"eventTime": "soon"},
        trail("09:02", "C"),
    ]
    assert landed(place, lines({"Records": whole})) == [
        ("09:00", None, "A"),
        ("09:02", None, "C"),
    ]
    assert [reason for reason, _ in place.dead()] == ["time_unreadable"]


def test_many_fields_around_records_are_a_remark(place: Place) -> None:
    """At most 64 KiB of an envelope's other fields are kept on each record."""
    envelope = {
        "messageType": "D",
        "logGroup": "g",
        "logStream": "s",
        "big": "x" * 70_000,
        "logEvents": [{"id": 1}],
    }
    place.path("a.log").write_bytes(lines(envelope))
    assert place.land().remarks["envelope_fields_left_out"] == 1
    assert len(place.lines()[0]) < 1000


def test_an_object_that_fits_two_formats_is_an_event(place: Place) -> None:
    """It is not guessed at: it lands as it is, with a remark."""
    both = {
        "messageType": "D",
        "logGroup": "g",
        "logStream": "s",
        "logEvents": [],
        "timeUnixNano": nanos("09:00:00"),
    }
    place.path("a.log").write_bytes(lines(both, both))
    assert place.land().remarks == {"format_ambiguous": 2}
    assert place.lines() == [json.dumps(both)] * 2


def test_a_piece_waits_for_the_rest_of_its_line(place: Place) -> None:
    """As an unfinished line does, and what is behind it; when its file is idle it lands as `partial`."""
    pieces = [
        {"log": "one ", "stream": "stdout", "time": at("09:00")},
        {"log": "err\n", "stream": "stderr", "time": at("09:01")},
        {"log": "two\n", "stream": "stdout", "time": at("09:02")},
        {"log": "open", "stream": "stderr", "time": at("09:03")},
    ]
    for count, expected in (
        (1, []),
        (2, []),
        (3, ["err\n", "one two\n"]),
        (4, ["err\n", "one two\n"]),
    ):
        place.path("a.log").write_bytes(lines(*pieces[:count]))
        place.now = NOW
        place.land()
        assert sorted(json.loads(line)["log"] for line in place.audit().lines()) == expected
    place.now = NOW
    report = place.land(seal_after_minutes=0)
    assert report.remarks["partial"] == 1
    assert sorted(json.loads(line)["log"] for line in place.audit().lines()) == [
        "err\n",
        "one two\n",
        "open",
    ]


@pytest.mark.parametrize("size", [1, 500])
def test_pieces_are_joined_across_batches(place: Place, size: int) -> None:
    """Whatever is read at a time; a line longer than an event may be is given up in pieces."""
    place.sizes = BatchSizes(largest=1)
    pieces = [
        {"log": f"{n} " + "x" * size, "stream": f"s{n % 3}", "time": at("09:00")}
        for n in range(90)
    ]
    for stream in range(3):
        pieces.append({"log": "end\n", "stream": f"s{stream}", "time": at("09:00")})
    place.path("a.log").write_bytes(lines(*pieces))
    report = place.land(max_event_bytes=8192, seal_after_minutes=0)
    joined = "".join(json.loads(row["line"])["log"] for row in place.audit().rows())
    assert sorted(joined) == sorted("".join(piece["log"] for piece in pieces))
    assert (report.remarks.get("partial", 0) > 0) == (size == 500)


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("<34>1 2031-05-05T09:00:00Z host su - - - x", "syslog"),
        ("<13>May  5 09:00:00 host su: x", "syslog"),
        ("45 <34>1 2031-05-05T09:00:00Z host su - - - x", "syslog"),
        ("May  5 09:00:00 host su: x", "syslog"),
        ("2031-05-05T09:00:00.1Z stdout F x", "cri"),
        ("__CURSOR=s=a", "journald_export"),
        ("2031-05-05 09:00:00 INFO x", ""),
        ("plain", ""),
    ],
)
def test_a_text_line_is_no_event_but_its_format_is_named(
    place: Place, line: str, name: str
) -> None:
    """Under `auto` it is a dead letter; a remark says which format to name."""
    assert likely(line) == name
    place.path("a.log").write_text(f"{line}\n")
    report = place.land()
    assert report.dead_letters == {"not_json": 1}
    assert report.remarks == ({f"looks_like_{name}": 1} if name else {})


def test_default_names(place: Place) -> None:
    """`*.json`, `*.log`, rotated and compressed, are read without being named."""
    names = ["a.json", "b.log", "c.json.gz", "d.log.1", "e.log.zst", "f.json-20310505", "g.txt"]
    for number, name in enumerate(names):
        place.path(name).write_bytes(lines({"time": at("09:00"), "n": number}))
    place.land()
    assert len(place.lines()) == 6


@pytest.mark.slow
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("growth", [1.0, 0.4])
def test_a_large_envelope_is_read_in_parts(place: Place, packed: bool, growth: float) -> None:
    """Longer than an event may be, and than what is read at a time: its records land, once, when all of it is there."""
    place.sizes = BatchSizes(largest=1)
    records = [record("09:00:00", attributes=[], n=n) for n in range(40)]
    envelope = {"resourceLogs": [{"scopeLogs": [scope(*records)], "resource": SERVICE}]}
    content = lines({"time": at("08:00")}, envelope, envelope, {"time": at("10:00")})
    path = place.path("a.json")
    if growth < 1 and not packed:
        path.write_bytes(content[: int(len(content) * growth)])
        place.land(max_event_bytes=2048)
        assert len(place.audit().rows()) == 1
    path.write_bytes(gzip.compress(content) if packed else content)
    report = place.land(max_event_bytes=2048)
    assert report.dead_letters == {}
    landed_rows = place.audit().rows()
    assert len(landed_rows) == 82
    inner = [json.loads(row["line"]) for row in landed_rows if "timeUnixNano" in row["line"]]
    assert all(event["resource"] == {"service.name": "cart"} for event in inner)
    assert sorted(event["n"] for event in inner) == sorted([*range(40)] * 2)
    assert place.land(max_event_bytes=2048).files_read == 0


@pytest.mark.slow
@pytest.mark.parametrize("has_pairs", [pytest.param(False, marks=pytest.mark.soak), True])
def test_a_large_envelope_is_found_by_its_first_records(place: Place, has_pairs: bool) -> None:
    """Longer than an event may be, without a known name; what only looks like one is `too_long`."""
    place.sizes = BatchSizes(largest=1)
    values = [[nanos("09:00:00"), f"line {n}"] for n in range(40)]
    events = [{"start_time": at("09:00"), "n": n, "text": "x" * 50} for n in range(40)]
    envelope = (
        {"data": {"result": [{"stream": {"app": "pay"}, "values": values}]}}
        if has_pairs
        else {"next": "t", "items": events}
    )
    other = {"data": {"n": [{"due_date": at("09:00"), "text": "x" * 50} for _ in range(40)]}}
    place.path("a.json").write_bytes(lines({"time": at("08:00")}, envelope, other, envelope))
    report = place.land(max_event_bytes=2048, seal_after_minutes=0)
    assert set(report.dead_letters) == {"too_long"}
    assert report.remarks["format_records"] == 80
    texts = [json.loads(line) for line in place.audit().lines()]
    found = sorted(str(one.get("message", one.get("n"))) for one in texts)
    expected = [f"line {n}" if has_pairs else str(n) for n in range(40)]
    assert found == sorted([*expected * 2, "None"])


def test_a_damaged_pair_is_a_dead_letter_of_its_own(place: Place) -> None:
    """With its bytes in the file, in an envelope longer than an event may be; the others land, at their own offsets."""
    place.sizes = BatchSizes(largest=1)
    good = json.dumps([nanos("09:00:00"), "x" * 100])
    bad = json.dumps([nanos("09:00:00"), "b", {"n": 1}]).replace("1}", "1e999}")
    values = ",".join([*[good] * 110, bad, '["x"]', good])
    content = f'{{"streams":[{{"stream":{{"a":"b"}},"values":[{values}]}}]}}\n'
    place.path("a.json").write_text(content)
    place.land(max_event_bytes=2048, seal_after_minutes=0)
    offsets = sorted(row["file_offset"] for row in place.audit().rows())
    assert len(offsets) == 111
    assert all(content[offset:].startswith(good) for offset in offsets)
    assert sorted(place.dead()) == [
        ("not_an_object", b'["x"]'),
        ("number_not_finite", bad.encode()),
    ]


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        ({"type": "chat", "messages": [{"created_at": at("09:00")}]}, "a type of its own"),
        ({"level": "info", "steps": [{"time": at("09:00")}]}, "a level of its own"),
        ({"when": at("10:00"), "steps": [{"time": at("09:00")}]}, "a time of its own"),
        ({"run": {"time": at("10:00"), "l": [{"time": at("09:00")}]}}, "a time on the way"),
        ({"l": [{"time": at("09:00")}, {"n": 1}]}, "a record without a time"),
        ({"a": [{"time": at("09:00")}], "b": [{"time": at("09:00")}]}, "two lists"),
        ({"values": [["5", "x"], ["6", "y"]]}, "pairs of other numbers"),
        ({"rows": [[at("09:00"), 5]]}, "pairs without a text"),
    ],
)
def test_what_is_no_envelope_stays_whole(
    place: Place, event: dict[str, Any], reason: str
) -> None:
    """An object with a list is an event itself unless the list alone says when something happened."""
    place.path("a.json").write_bytes(lines(event))
    place.land()
    assert place.lines() == [json.dumps(event)], reason


def test_fields_around_records_say_nothing_of_the_answer(place: Place) -> None:
    """Labels and names go with each record; status, error and message of an answer do not."""
    envelope = {"status": "success", "error": "e", "message": "ok", "account": "7"}
    envelope["items"] = [{"start_time": at("09:00"), "n": 1}]
    place.path("a.json").write_bytes(lines(envelope))
    place.land()
    assert [json.loads(line) for line in place.lines()] == [
        {"start_time": at("09:00"), "n": 1, "account": "7"}
    ]


@pytest.mark.slow
def test_an_envelope_beyond_its_limit_is_a_dead_letter(place: Place) -> None:
    """Under a reason of its own, and alone: an envelope behind it lands; what only looks like one is `too_long`."""
    big = {"Records": [trail("09:00", "x" * 100) for _ in range(100)]}
    good = {"Records": [trail("09:01", "y" * 100) for _ in range(15)]}
    other = {"Records": ["x" * 9000]}
    last = {"time": at("08:00")}
    place.path("a.json").write_bytes(lines(big, good, last))
    place.path("b.json").write_bytes(lines(other, good, last))
    report = place.land(max_event_bytes=2048, max_envelope_bytes=4096, seal_after_minutes=0)
    assert set(report.dead_letters) == {"envelope_too_long", "too_long"}
    assert len(place.audit().rows()) == 2 * (15 + 1)


@pytest.mark.slow
def test_keys_decide_for_events_of_one_shape_and_values_for_each(place: Place) -> None:
    """Events with the same keys are judged by one of them, but a value of another type makes none of the rest plain."""
    pieces = [{"log": text, "stream": "stdout", "time": at("09:00")} for text in ("a", "b\n")]
    odd = {"log": 5, "stream": "stdout", "time": at("09:00")}
    place.path("a.json").write_bytes(lines(odd, *pieces, odd))
    place.path("b.json").write_bytes(lines({"Records": []}, {"Records": 5}, {"Records": "x"}))
    place.land()
    logs = [json.loads(line).get("log") for line in place.audit().lines()]
    assert sorted(map(str, logs)) == ["5", "5", "None", "None", "ab\n"]


def test_the_byte_ranges_of_a_joined_event_are_kept(place: Place) -> None:
    """Each range holds a piece, in order; an event of one piece has none."""
    pieces = [
        {"log": "one ", "stream": "stdout", "time": at("09:00")},
        {"log": "err\n", "stream": "stderr", "time": at("09:01")},
        {"log": "two\n", "stream": "stdout", "time": at("09:02")},
    ]
    text = [
        b"2031-05-05T09:00:00Z stdout P one \n",
        b"2031-05-05T09:00:00Z stderr F err\n",
        b"2031-05-05T09:00:00Z stdout F two\n",
    ]
    for name, content, options in (
        ("a.log", lines(*pieces), {"include": ("a.log",)}),
        ("b.log", b"".join(text), {"include": ("b.log",), "format": "cri"}),
    ):
        place.path(name).write_bytes(content)
        place.land(**options)
        ranges = {
            json.loads(row["line"])["log"].strip(): row["byte_ranges"]
            for row in place.audit().rows()
            if row["event_file"] == name
        }
        assert ranges["err"] is None
        begin, end, other_begin, other_end = ranges["one two"]
        assert begin == 0
        assert content[other_end:] in {b"", b"\n"}
        assert b"one " in content[begin:end]
        assert b"two" in content[other_begin:other_end]
        assert b"err" not in content[begin:end] + content[other_begin:other_end]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("Traceback (most recent call last):", "not_json"),
        ("2031-05-05 09:00:00 up", "not_json"),
        ("5 workers", "not_json"),
        ('5 {"a": 1}', "not_json"),
        ("NaN", "not_json"),
        ('"text"', "not_an_object"),
        ('["a", 5],', "not_an_object"),
        ("null", "not_an_object"),
    ],
)
def test_text_and_values_have_reasons_of_their_own(
    place: Place, line: str, reason: str
) -> None:
    """`not_json` is a line that is no JSON, `not_an_object` a line of JSON values other than objects."""
    place.path("a.log").write_text(f"{line}\n")
    assert place.land().dead_letters == {reason: 1}


def test_bytes_of_the_journal_become_text(place: Place) -> None:
    """A list of bytes is the text that it stands for, in a list of fields too; null, numbers and texts stay."""
    spelled = list(b"ann.bo@example.org\r")
    event = {
        "__REALTIME_TIMESTAMP": f"{SECONDS}000000",
        "MESSAGE": spelled,
        "BOTH": ["first", [0xC3, 0xA9, 0]],
        "NONE": None,
        "TEXTS": ["1", "2"],
        "BINARY": [255, 104],
        "LARGE": [1, 256],
    }
    other = {"MESSAGE": [104, 105], "time": at("09:00")}
    place.path("a.log").write_bytes(lines(event, other))
    place.land()
    found = {"__REALTIME_TIMESTAMP" in line: json.loads(line) for line in place.audit().lines()}
    assert found[True] == event | {
        "MESSAGE": "ann.bo@example.org\r",
        "BOTH": ["first", "é\ufffd"],
        "BINARY": "\ufffdh",
    }
    assert found[False] == other


@pytest.mark.parametrize(
    "damage",
    [
        b"{'a': 1,\n {\"n\": 1}\n}\n",  # as Python prints a dict
        b'{key: [\n  {"n": 1}\n]}\n',  # as a console prints an object
        b'{"a": undefined,\n  "l": [\n    {"n": 1}\n  ]\n}\n',
    ],
)
def test_nothing_within_a_damaged_object_is_an_event(place: Place, damage: bytes) -> None:
    """An object over many lines whose first line is no JSON is one dead letter to its last bracket."""
    last = {"time": at("09:00"), "type": "a"}
    for cut in (len(damage) // 2, len(damage)):
        place.path("a.log").write_bytes(damage[:cut])
        place.now = NOW
        place.land()
    assert landed(place, damage + lines(last)) == [("09:00", None, "a")]
    assert place.dead() == [("not_json", damage.rstrip(b"\n"))]


def test_utf8_behind_utf16_behind_utf8(place: Place) -> None:
    """A tail in another encoding costs itself; the line of UTF-8 behind its line end lands."""
    first, tail, last = (lines({"time": at(clock)}) for clock in ("09:00", "09:01", "09:02"))
    utf16 = tail.decode().replace("\n", "\r\n").encode("utf-16-le")
    assert landed(place, first + utf16 + last) == [("09:00", None, None), ("09:02", None, None)]
    assert [reason for reason, _ in place.dead()] == ["utf16_in_utf8"]
