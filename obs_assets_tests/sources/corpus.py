"""Files of the formats that issue trackers of other tools name, five of each or more, with all that each file holds.

The values are invented; shapes and names of fields are those of the formats' specifications. All times lie on
2031-05-05. A truth is the minute of each event, its level and its type.
"""

import json
import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

SECONDS = 1935705600
"""2031-05-05 00:00:00 UTC, in seconds since 1970."""

Found = tuple[str, str | None, str | None]
"""Minute of 2031-05-05 (``now`` for an event without a time), level and type of an event."""

NOW: Found = ("now", None, None)
"""An event without a time, a level and a type."""


@dataclass(frozen=True)
class File:
    """A file of a format and its truth.

    Attributes:
        content: its bytes.
        events: minute, level and type of each event, in the order of the file.
        options: of the source; without any, ``auto`` reads the file.
        dead: reason → number of dead letters.
        joins: whether another file may be written behind it, or before it: it ends where an event ends.
    """

    content: bytes
    events: list[Found]
    options: dict[str, Any] = field(default_factory=dict)
    dead: dict[str, int] = field(default_factory=dict)
    joins: bool = True


def lines(*events: Any) -> bytes:
    """Events as JSON, one a line."""
    return b"".join(json.dumps(event).encode() + b"\n" for event in events)


def powershell_time(clock: str) -> dict[str, Any]:
    """A time as Windows PowerShell writes a property of the type DateTime."""
    return {"value": f"/Date({seconds(clock) * 1000})/", "DisplayHint": 2, "DateTime": "Monday"}


def printed(event: Any) -> bytes:
    """An event over many lines."""
    return json.dumps(event, indent=2).encode() + b"\n"


def at(clock: str, rest: str = ":00Z") -> str:
    """ISO time of a minute of that day."""
    return f"2031-05-05T{clock}{rest}"


def seconds(clock: str) -> int:
    """Seconds since 1970 of a minute of that day."""
    return int(datetime.fromisoformat(f"2031-05-05T{clock}:00+00:00").timestamp())


def nanos(clock: str) -> str:
    """Nanoseconds since 1970, as text."""
    return f"{seconds(clock)}000000000"


def gelf(clock: str, level: int, **fields: Any) -> dict[str, Any]:
    return {
        "version": "1.1",
        "host": "db-2",
        "short_message": "slow query",
        "timestamp": seconds(clock) + 0.25,
        "level": level,
        **fields,
    }


def trail(clock: str, name: str, **fields: Any) -> dict[str, Any]:
    return {
        "eventVersion": "1.09",
        "eventTime": at(clock),
        "eventSource": "s3.amazonaws.com",
        "eventName": name,
        "userIdentity": {"type": "AssumedRole", "sessionContext": {"attributes": {}}},
        **fields,
    }


def azure(clock: str, name: str, level: str, **fields: Any) -> dict[str, Any]:
    return {
        "time": at(clock, ":07.1234567Z"),
        "resourceId": "/SUBSCRIPTIONS/0",
        "operationName": name,
        "category": "Audit",
        "level": level,
        "properties": {"statusCode": "OK"},
        **fields,
    }


def subscription(*events: tuple[str, str], kind: str = "DATA_MESSAGE") -> dict[str, Any]:
    return {
        "messageType": kind,
        "owner": "1",
        "logGroup": "/lambda/pay",
        "logStream": "[1]",
        "subscriptionFilters": ["f"],
        "logEvents": [
            {"id": str(number), "timestamp": seconds(clock) * 1000, "message": text}
            for number, (clock, text) in enumerate(events)
        ],
    }


def otlp(clock: str, **fields: Any) -> dict[str, Any]:
    return {
        "timeUnixNano": nanos(clock),
        "observedTimeUnixNano": nanos("23:00"),
        "body": {"stringValue": "x"},
        "attributes": [{"key": "k", "value": {"intValue": "7"}}],
        **fields,
    }


def exported(*records: dict[str, Any], service: str = "cart") -> dict[str, Any]:
    name = {"key": "service.name", "value": {"stringValue": service}}
    return {
        "resourceLogs": [
            {
                "resource": {"attributes": [name]},
                "scopeLogs": [{"scope": {"name": "lib"}, "logRecords": [*records]}],
                "schemaUrl": "https://opentelemetry.io/schemas/1.24.0",
            }
        ]
    }


def docker(clock: str, log: str, stream: str = "stdout", **fields: Any) -> dict[str, Any]:
    return {"log": log, "stream": stream, "time": at(clock, ":01.123456789Z"), **fields}


def driven(clock: str, log: str, ordinal: int = 0, **fields: Any) -> dict[str, Any]:
    """A record of Docker's log driver fluentd; with an ordinal it is a piece, the second piece being the last."""
    record = {"container_id": "9f2c", "container_name": "/cart", "source": "stdout", "log": log}
    marks = {"message": "true", "id": "7d01", "ordinal": str(ordinal)}
    marks["last"] = "true" if ordinal == 2 else "false"
    piece = {f"partial_{name}": value for name, value in marks.items()} if ordinal else {}
    return {**record, **piece, "@timestamp": at(clock), **fields}


def journal(clock: str, priority: str, **fields: Any) -> dict[str, Any]:
    return {
        "__CURSOR": "s=1;i=2",
        "__REALTIME_TIMESTAMP": f"{seconds(clock)}000321",
        "__MONOTONIC_TIMESTAMP": "5512",
        "PRIORITY": priority,
        "_SYSTEMD_UNIT": "gate.service",
        "MESSAGE": "gate opened",
        **fields,
    }


def mark(ordinal: int) -> dict[str, str]:
    """Fields of a piece of Docker's log driver journald, the second piece being the last."""
    marks = {"ID": "ab12", "ORDINAL": str(ordinal), "LAST": "true" if ordinal == 2 else "false"}
    marks |= {} if ordinal == 2 else {"MESSAGE": "true"}
    return {"CONTAINER_ID": "c", **{f"CONTAINER_PARTIAL_{k}": v for k, v in marks.items()}}


def entry(clock: str, priority: str = "", message: bytes = b"MESSAGE=up\n") -> bytes:
    """A record of the journal's export format."""
    level = b"PRIORITY=%s\n" % priority.encode() if priority else b""
    time = b"__REALTIME_TIMESTAMP=%d000321\n" % seconds(clock)
    return b"__CURSOR=s=1;i=2\n" + time + level + message + b"\n"


def exported_piece(ordinal: int) -> bytes:
    """Message and marks of a piece in the journal's export format."""
    fields = {"MESSAGE": "half", **mark(ordinal)}
    return "".join(f"{name}={value}\n" for name, value in fields.items()).encode()


def binary(name: bytes, value: bytes) -> bytes:
    """A field of other bytes in the journal's export format."""
    return name + b"\n" + len(value).to_bytes(8, "little") + value + b"\n"


def pino(clock: str, level: int, **fields: Any) -> dict[str, Any]:
    return {
        "level": level,
        "time": seconds(clock) * 1000 + 17,
        "pid": 41,
        "hostname": "web",
        "msg": "done",
        **fields,
    }


def clef(clock: str, **fields: Any) -> dict[str, Any]:
    return {"@t": at(clock, ":00.1230000Z"), "@mt": "Order {Id}", "Id": 5, **fields}


def monolog(clock: str, level: int, name: str, **fields: Any) -> dict[str, Any]:
    return {
        "message": "charge failed",
        "context": {},
        "level": level,
        "level_name": name,
        "channel": "app",
        "datetime": at(clock, ":00.123456+00:00"),
        "extra": {},
        **fields,
    }


def gcp(clock: str, severity: str, **fields: Any) -> dict[str, Any]:
    return {
        "insertId": "a1",
        "logName": "projects/p/logs/l",
        "resource": {"type": "gce_instance", "labels": {}},
        "severity": severity,
        "timestamp": at(clock, ":00.123456789Z"),
        "receiveTimestamp": at("23:00"),
        **fields,
    }


def audit(clock: str, verb: str, **fields: Any) -> dict[str, Any]:
    return {
        "kind": "Event",
        "apiVersion": "audit.k8s.io/v1",
        "level": "Metadata",
        "auditID": "7",
        "stage": "ResponseComplete",
        "verb": verb,
        "requestReceivedTimestamp": at(clock, ":00.123456Z"),
        "stageTimestamp": at("23:00", ":00.123456Z"),
        **fields,
    }


def github(clock: str, action: str, **fields: Any) -> dict[str, Any]:
    return {
        "@timestamp": seconds(clock) * 1000,
        "_document_id": "d",
        "action": action,
        "actor": "octo",
        "created_at": seconds("23:00") * 1000,
        "org": "demo",
        **fields,
    }


def edge(start: Any, **fields: Any) -> dict[str, Any]:
    return {"EdgeStartTimestamp": start, "RayID": "7d", "EdgeResponseStatus": 503, **fields}


DOCUMENT = {"level": "error", "type": "a", "message": "x"}


def document(clock: str, **fields: Any) -> dict[str, Any]:
    return {"@timestamp": at(clock), **DOCUMENT, **fields}


def hit(clock: str) -> dict[str, Any]:
    return {"_index": "app", "_id": clock, "_score": 1.0, "_source": document(clock)}


def answer(*clocks: str) -> dict[str, Any]:
    """What a search of Elasticsearch answers."""
    hits = {"total": {"value": 2}, "max_score": 1.0, "hits": [hit(clock) for clock in clocks]}
    return {"took": 5, "timed_out": False, "_shards": {"failed": 0}, "hits": hits}


def documents(*clocks: str) -> list[Found]:
    return [(clock, "error", "a") for clock in clocks]


def pair(clock: str, text: str = "x", *more: Any) -> list[Any]:
    return [nanos(clock), text, *more]


def snake(value: Any) -> Any:
    """The same with names in the form of Protocol Buffers."""
    if isinstance(value, list):
        return [snake(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {
        re.sub("[A-Z]", lambda m: f"_{m[0].lower()}", k): snake(v) for k, v in value.items()
    }


def timed(clock: str) -> Found:
    """An event with a time, and without a level and a type."""
    return clock, None, None


def ndjson(*clocks: str) -> str:
    """Plain events as a program prints them, with the line ends of Windows."""
    events = [{"timestamp": at(clock), "type": "scan", "level": "Warning"} for clock in clocks]
    return "".join(json.dumps(event) + "\r\n" for event in events)


def scans(*clocks: str) -> list[Found]:
    return [(clock, "warning", "scan") for clock in clocks]


RS = b"\x1e"
CRI, SYSLOG, EXPORT = ({"format": name} for name in ("cri", "syslog", "journald_export"))


def logged(clock: str, status: str) -> dict[str, Any]:
    """A log of Datadog's API."""
    attributes = {"timestamp": at(clock), "status": status, "message": "x", "service": "s"}
    return {"id": "AZ", "type": "log", "attributes": {**attributes, "attributes": {"n": 1}}}


def searched(clock: str, **fields: Any) -> dict[str, Any]:
    """A result of a search in Splunk."""
    result = {"_time": at(clock, ":00.000+00:00"), "_raw": "x", **fields}
    return {"preview": False, "offset": 0, "result": result}


def collected(clock: str, event: Any) -> dict[str, Any]:
    """An event of Splunk's HTTP Event Collector."""
    return {"time": seconds(clock) + 0.5, "host": "h", "sourcetype": "t", "event": event}


FILES: dict[str, list[File]] = {
    "json-seq (RFC 7464)": [
        File(  # a printed record that was cut, another record on the same line, and inner lines of a last record
            RS
            + b'{\n"a":[\n{"n":1},\n{"n":2}\n'
            + RS
            + b'{"n":'
            + RS
            + lines({"time": at("09:07"), "level": "error", "type": "t"})
            + RS
            + b'{\n"l":[\n{"n":3}\n',
            [("09:07", "error", "t")],
            dead={"unfinished": 3},
            joins=False,
        ),
        File(RS + lines({"time": at("09:00"), "type": "a"}), [("09:00", None, "a")]),
        File(
            RS
            + printed({"time": at("09:01"), "l": [{"n": 1}]})
            + RS
            + lines({"time": at("09:02")}),
            [("09:01", None, None), ("09:02", None, None)],
        ),
        File(RS + RS + b"\n" + RS + lines({"time": at("09:03")}) + RS, [("09:03", None, None)]),
        File(
            RS + b'{"time":"2031-05-05T09:04:00Z"}' + RS + lines({"time": at("09:05")}),
            [("09:04", None, None), ("09:05", None, None)],
        ),
        File(
            RS + lines({"time": at("09:06")}) + RS + b"7\n" + RS + lines({"time": at("09:07")}),
            [("09:06", None, None), ("09:07", None, None)],
            dead={"not_an_object": 1},
        ),
    ],
    "gelf": [
        File(
            b"\0".join([*(json.dumps(gelf(f"0{n}:30", n)).encode() for n in range(8)), b""]),
            [
                (f"0{number}:30", level, None)
                for number, level in enumerate(
                    [
                        "emergency",
                        "alert",
                        "critical",
                        "error",
                        "warning",
                        "notice",
                        "info",
                        "debug",
                    ]
                )
            ],
        ),
        File(
            lines(gelf("09:00", 3, timestamp="1935738000.5", full_message="a\nb", _n=1)),
            [("09:00", "error", None)],
        ),
        File(b'{"version":"1.1","host":"a","short_message":"x"}\0', [("now", None, None)]),
        File(
            b'{"version":"1.1","host":"a","short_message":"x","timestamp":1.9357380005E9}\0\0\n',
            [("09:00", None, None)],
        ),
        File(
            lines(gelf("09:09", 4, _type="probe", type="probe")),
            [("09:09", "warning", "probe")],
        ),
    ],
    "syslog (RFC 5424)": [
        File(  # as TCP carries it: with a length before a message, or a NUL behind it
            b"48 <34>1 2031-05-05T08:58:00Z h su - ID47 - message\n"
            b"<34>1 2031-05-05T08:59:00Z h su - ID47 - one\0"
            b"<34>1 2031-05-05T08:59:30Z h su - ID47 - two\n",
            [("08:58", "critical", None), *[("08:59", "critical", None)] * 2],
            SYSLOG,
        ),
        File(
            b"<165>1 2031-05-05T09:00:00.003Z mymachine.example.com evntslog - ID47 "
            b'[exampleSDID@32473 iut="3" eventSource="Application"] \xef\xbb\xbfAn entry\n',
            [("09:00", "notice", None)],
            SYSLOG,
        ),
        File(
            b"<0>1 2031-05-05T05:14:15.000003-07:00 192.0.2.1 myproc 8710 - - %% Time to make\n",
            [("12:14", "emergency", None)],
            SYSLOG,
        ),
        File(
            b'<11>1 2031-05-05T09:02:00Z h app 1 M [a@1 k="\\"]\\\\"][b@2] \n'
            b"<15>1 2031-05-05T09:03:00Z h app 1 M -\n",
            [("09:02", "error", None), ("09:03", "debug", None)],
            SYSLOG,
        ),
        File(
            b"<14>1 - h app 1 M - no time\n<14>1 2031-05-05T09:04:00Z h a - - - \xc3\xa9\n",
            [("now", "info", None), ("09:04", "info", None)],
            SYSLOG,
        ),
        File(
            b"<999>1 2031-05-05T09:05:00Z h a - - - x\n<14>2 2031-05-05T09:05:00Z h a - - - x\n"
            b"<12>1 2031-05-05T09:06:00Z h a - - - last\n",
            [("09:06", "warning", None)],
            SYSLOG,
            {"not_syslog": 1},
        ),
    ],
    "otlp": [
        File(  # before version 0.15 of the protocol
            lines(
                {
                    "resourceLogs": [
                        {
                            "instrumentationLibraryLogs": [
                                {
                                    "instrumentationLibrary": {"name": "l"},
                                    "logs": [otlp("08:59")],
                                }
                            ]
                        }
                    ]
                }
            ),
            [("08:59", None, None)],
        ),
        File(
            lines(exported(otlp("09:00", severityNumber=17), otlp("10:00", severityNumber=5))),
            [("09:00", "error", None), ("10:00", "debug", None)],
        ),
        File(
            lines(exported(otlp("09:01", severityText="Warn", eventName="e")), exported()),
            [("09:01", "warning", "e")],
        ),
        File(
            printed(exported(otlp("09:02", timeUnixNano="0")))
            + printed(exported(otlp("09:03"))),
            [("23:00", None, None), ("09:03", None, None)],
        ),
        File(
            lines(otlp("09:04", severityNumber=24, body={"kvlistValue": {"values": []}})),
            [("09:04", "fatal", None)],
        ),
        File(
            json.dumps(exported(otlp("09:05"))).encode() * 2,
            [("09:05", None, None), ("09:05", None, None)],
        ),
        File(
            lines(
                {"resourceLogs": [*exported(otlp("09:06"))["resourceLogs"], {"scopeLogs": []}]}
            ),
            [("09:06", None, None)],
        ),
    ],
    "otlp in snake case": [
        File(
            lines(snake(exported(otlp("09:00", severityNumber=17), otlp("10:00")))),
            [("09:00", "error", None), ("10:00", None, None)],
        ),
        File(
            lines(snake(exported(otlp("09:01", severityText="Warn", eventName="e")))),
            [("09:01", "warning", "e")],
        ),
        File(printed(snake(exported(otlp("09:02"), {"n": 1}))), [("09:02", None, None), NOW]),
        File(
            lines(snake(otlp("09:03", timeUnixNano="0"))),
            [("23:00", None, None)],
        ),
        File(
            lines(
                snake({"scopeLogs": exported(otlp("09:04"))["resourceLogs"][0]["scopeLogs"]})
            ),
            [("09:04", None, None)],
        ),
    ],
    "datadog": [
        File(lines(logged("09:00", "error")), [("09:00", "error", "log")]),
        File(
            lines({"data": [logged("09:01", "info"), logged("09:02", "warn")], "meta": {}}),
            [("09:01", "info", "log"), ("09:02", "warning", "log")],
        ),
        File(printed(logged("09:03", "critical")), [("09:03", "critical", "log")]),
        File(
            lines({"id": 7, "type": "user", "attributes": {"name": "x"}}),
            [("now", None, "user")],
        ),
        File(
            lines(logged("09:04", "ok"), {"id": 7, "type": "log", "attributes": "x"}),
            [("09:04", None, "log"), ("now", None, "log")],
        ),
    ],
    "splunk": [
        File(lines(searched("09:00", level="ERROR")), [("09:00", "error", None)]),
        File(
            lines(searched("09:01", type="a"), {"preview": False, "lastrow": True}),
            [("09:01", None, "a")],
        ),
        File(
            lines({"preview": False, "results": [{"_time": at("09:02"), "_raw": "x"}]}),
            [("09:02", None, None)],
        ),
        File(
            lines(
                collected("09:03", {"severity": "ERROR", "message": "x"}),
                collected("09:04", "a text"),
            ),
            [("09:03", "error", None), ("09:04", None, None)],
        ),
        File(lines(collected("09:05", {"host": "b", "type": "a"})), [("09:05", None, "a")]),
    ],
    "elasticsearch": [
        File(
            lines(
                {"index": {"_index": "app", "_id": "1"}},
                document("09:00"),
                {"create": {}},
                document("09:01", index={"_id": 7}),
                {"delete": {"_index": "app", "_id": "2"}},
                {"update": {"_id": "3", "retry_on_conflict": 3}},
                {"doc": document("09:02"), "doc_as_upsert": True},
            ),
            documents("09:00", "09:01", "09:02"),
        ),
        File(lines(answer("09:03", "10:59")), documents("09:03", "10:59")),
        File(printed(answer("09:04")), documents("09:04")),
        File(lines(hit("09:05"), hit("09:06")), documents("09:05", "09:06")),
        File(
            lines({"index": {"name": "app"}}, {"delete": "x"}, {"create": {"version": 3}}),
            [NOW, NOW, NOW],
        ),
        File(lines(answer()), [NOW]),
    ],
    "records": [
        File(
            lines(
                {
                    "streams": [
                        {
                            "stream": {"app": "pay", "level": "warn"},
                            "values": [pair("09:00"), pair("10:00", "y", {"trace_id": "t"})],
                        },
                        {"stream": {}, "values": [pair("09:01", 'a "]}" b')]},
                    ]
                }
            ),
            [("09:00", "warning", None), ("10:00", "warning", None), ("09:01", None, None)],
        ),
        File(
            printed(
                {
                    "status": "success",
                    "data": {
                        "resultType": "streams",
                        "result": [{"stream": {"type": "a"}, "values": [pair("09:02")]}],
                        "stats": {"summary": {"execTime": 0.1}},
                    },
                }
            ),
            [("09:02", None, "a")],
        ),
        File(
            lines({"entries": [gcp("09:03", "ERROR"), gcp("09:04", "DEFAULT")], "next": "t"}),
            [("09:03", "error", None), ("09:04", None, None)],
        ),
        File(
            lines(
                {
                    "response_metadata": {"next_cursor": ""},
                    "entries": [{"date_create": seconds("09:05"), "action": "user_login"}],
                }
            ),
            [("09:05", None, "user_login")],
        ),
        File(
            lines({"Records": [trail("09:06", "A"), trail("09:07", "B")], "nextToken": "x"}),
            [("09:06", None, "A"), ("09:07", None, "B")],
        ),
        File(
            json.dumps(
                {
                    "object": "list",
                    "data": [
                        {"id": "e", "created": seconds("09:08"), "type": "charge.failed"},
                        {"id": "f", "created": seconds("09:09"), "type": "charge.ok"},
                    ],
                    "has_more": False,
                }
            ).encode()
            * 2,
            [("09:08", None, "charge.failed"), ("09:09", None, "charge.ok")] * 2,
        ),
        File(
            lines(
                {"type": "chat", "messages": [{"created_at": at("09:10")}]},
                {"a": [{"time": at("09:10")}], "b": [{"time": at("09:10")}]},
                {"a": [{"time": at("09:10")}, {"n": 1}], "b": [["x", "y"]]},
                {"time": at("09:11"), "spans": [{"time": at("09:12")}]},
            ),
            [("now", None, "chat"), NOW, NOW, ("09:11", None, None)],
        ),
    ],
    "times of other names": [
        File(
            lines({"start_time": at("09:00", ":00.5Z"), "end_time": at("10:00")}),
            [timed("09:00")],
        ),
        File(
            lines({"published": at("09:01"), "eventType": "user.start", "severity": "WARN"}),
            [("09:01", "warning", "user.start")],
        ),
        File(
            lines(
                {"created": seconds("09:02"), "type": "a"}, {"requestTimestamp": at("09:03")}
            ),
            [("09:02", None, "a"), timed("09:03")],
        ),
        File(
            lines({"due_date": at("09:04"), "responseTime": seconds("09:04"), "created": True}),
            [NOW],
        ),
        File(
            lines({"time": f"/Date({seconds('09:05')}123+0200)/"}, {"ts": {"seconds": 5}}),
            [timed("09:05")],
            dead={"time_before_2000": 1},
        ),
        File(
            lines(
                {"created": at("09:06"), "eventTimestamp": at("09:07"), "priority": "Notice"}
            ),
            [("09:07", "notice", None)],
        ),
        File(
            lines(
                {"time": "05/May/2031:11:08:00 +0200"},
                {"date": "Mon, 5 May 2031 09:09:00 GMT"},
                {"@timestamp": {"$date": at("09:10")}},
                {"timestamp": {"seconds": seconds("09:11"), "nanos": 5}},
            ),
            [timed("09:08"), timed("09:09"), timed("09:10"), timed("09:11")],
        ),
    ],
    "cloudtrail": [
        File(
            lines({"Records": [trail("09:00", "CreateUser")]}), [("09:00", None, "CreateUser")]
        ),
        File(
            printed(
                {"Records": [trail("09:01", "A"), trail("10:59", "B", errorCode="Denied")]}
            ),
            [("09:01", None, "A"), ("10:59", None, "B")],
        ),
        File(lines({"Records": []}), []),
        File(
            json.dumps({"Records": [trail("09:02", "A")]}).encode() * 2,
            [("09:02", None, "A"), ("09:02", None, "A")],
        ),
        File(
            lines(
                {"Records": [trail("09:03", "A", requestParameters={"Records": [{"x": 1}]})]}
            ),
            [("09:03", None, "A")],
        ),
        File(
            lines({"Records": [trail("09:04", 'quoted "}]" name\\')]}),
            [("09:04", None, 'quoted "}]" name\\')],
        ),
    ],
    "azure": [
        File(
            lines({"records": [azure("09:00", "Delete", "Error")]}),
            [("09:00", "error", "Delete")],
        ),
        File(
            lines(
                {"records": [azure("09:01", "A", "Informational"), azure("09:02", "B", "4")]}
            ),
            [("09:01", "info", "A"), ("09:02", "warning", "B")],
        ),
        File(
            printed({"records": [azure("09:03", "C", "Critical", properties={"records": []})]}),
            [("09:03", "critical", "C")],
        ),
        File(lines(azure("09:04", "D", "Warning")), [("09:04", "warning", "D")]),
        File(
            lines({"records": []}, {"records": [azure("09:05", "E", "Verbose")]}),
            [("09:05", "trace", "E")],
        ),
    ],
    "cloudwatch": [
        File(
            lines(subscription(("09:00", "a"), ("10:00", '{"level":"error"}'))),
            [("09:00", None, None), ("10:00", None, None)],
        ),
        File(lines(subscription(("09:01", "x"), kind="CONTROL_MESSAGE")), []),
        File(
            json.dumps(subscription(("09:02", "a"))).encode()
            + json.dumps(subscription(("09:03", "b"))).encode(),
            [("09:02", None, None), ("09:03", None, None)],
        ),
        File(printed(subscription(("09:04", 'nested [{"a"}] "'))), [("09:04", None, None)]),
        File(lines(subscription()), []),
        File(
            lines(
                {
                    "logEvents": [
                        {
                            "id": "1",
                            "timestamp": seconds("09:05") * 1000,
                            "message": "m",
                            "extractedFields": {},
                        }
                    ],
                    **{k: v for k, v in subscription().items() if k != "logEvents"},
                }
            ),
            [("09:05", None, None)],
        ),
    ],
    "cri": [
        File(b"2031-05-05T09:00:00.123456789Z stdout F one\n", [("09:00", None, None)], CRI),
        File(
            b"2031-05-05T09:01:00Z stdout P tw\n2031-05-05T09:02:00Z stderr F err\n"
            b"2031-05-05T09:03:00Z stdout F o\n",
            [("09:01", None, None), ("09:02", None, None)],
            CRI,
        ),
        File(
            b"2031-05-05T11:04:00.5+02:00 stderr F \n2031-05-05T09:05:00Z stdout F:tag x\r\n",
            [("09:04", None, None), ("09:05", None, None)],
            CRI,
        ),
        File(
            b"panic: no prefix\n2031-05-05T09:06:00Z stdout F after\n",
            [("09:06", None, None)],
            CRI,
            {"not_cri": 1},
        ),
        File(
            b'2031-05-05T09:07:00Z stdout F {"level":"error"}\n\n2031-05-05T09:08:00Z stdout P end',
            [("09:07", None, None), ("09:08", None, None)],
            CRI,
            joins=False,
        ),
    ],
    "docker": [
        File(lines(docker("09:00", "up\n")), [("09:00", None, None)]),
        File(
            lines(
                docker("09:01", "tw"), docker("09:02", "e\n", "stderr"), docker("09:03", "o\n")
            ),
            [("09:01", None, None), ("09:02", None, None)],
        ),
        File(
            lines(docker("09:04", "x\n", attrs={"tag": "t"}), docker("09:05", "\n")),
            [("09:04", None, None), ("09:05", None, None)],
        ),
        File(lines(docker("09:06", '{"level":"error"}\n')), [("09:06", None, None)]),
        File(
            lines(docker("09:07", "\u001b[31mred\u001b[0m\r\n"), docker("09:08", "no end")),
            [("09:07", None, None), ("09:08", None, None)],
            joins=False,
        ),
    ],
    "fluentd": [
        File(lines(driven("09:00", "up", ecs_cluster="c")), [("09:00", None, None)]),
        File(
            lines(
                driven("09:01", '{"a', 1),
                driven("09:02", "other", 1, partial_id="88aa"),
                driven("09:03", '":1}', 2),
                driven("09:03", " lines", 2, partial_id="88aa"),
            ),
            [("09:01", None, None), ("09:02", None, None)],
        ),
        File(  # an older Docker marks all pieces but the last
            lines(
                driven("09:04", "tw", partial_message="true"),
                driven("09:05", "err", source="stderr"),
                driven("09:06", "o", level="error"),
            ),
            [("09:04", None, None), ("09:05", None, None)],
        ),
        File(
            lines(
                {"time": at("09:07"), "stream": "stdout", "logtag": "P", "log": "a"},
                {"time": at("09:08"), "stream": "stderr", "logtag": "F", "log": "e"},
                {"time": at("09:09"), "stream": "stdout", "logtag": "F", "log": "b"},
            ),
            [("09:07", None, None), ("09:08", None, None)],
        ),
        File(
            lines(
                {"time": at("09:10"), "stream": "stdout", "_p": "P", "message": "a"},
                {"time": at("09:11"), "stream": "stdout", "_p": "P", "message": "b"},
                {"time": at("09:12"), "stream": "stdout", "_p": "F", "message": "c"},
            ),
            [("09:10", None, None)],
        ),
    ],
    "journalctl -o json": [
        File(lines(journal("09:00", "3")), [("09:00", "error", None)]),
        File(lines(journal("09:01", "6", MESSAGE=[104, 13])), [("09:01", "info", None)]),
        File(lines(journal("09:02", "4", MESSAGE=None)), [("09:02", "warning", None)]),
        File(
            RS + lines(journal("09:03", "0")) + RS + lines(journal("09:04", "7")),
            [("09:03", "emergency", None), ("09:04", "debug", None)],
        ),
        File(printed(journal("09:05", "5", MESSAGE=["a", "b"])), [("09:05", "notice", None)]),
        File(
            lines(
                journal("09:06", "6", MESSAGE="tw", **mark(1)),
                journal("09:07", "3", MESSAGE="other", CONTAINER_ID="c"),
                journal("09:08", "6", MESSAGE=[111, 27], **mark(2)),
            ),
            [("09:06", "info", None), ("09:07", "error", None)],
        ),
    ],
    "journalctl -o export": [
        File(entry("09:00", "3"), [("09:00", "error", None)], EXPORT),
        File(
            entry("09:01", message=binary(b"MESSAGE", b"a\n\nb=c\n")) + entry("09:02", "6"),
            [("09:01", None, None), ("09:02", "info", None)],
            EXPORT,
        ),
        File(
            entry("09:03", "7") + b"\n" + entry("09:04"),
            [("09:03", "debug", None), ("09:04", None, None)],
            EXPORT,
        ),
        File(
            entry("09:05", message=exported_piece(1))
            + entry("09:06", message=exported_piece(2)),
            [("09:05", None, None)],
            EXPORT,
        ),
        File(
            b"no field\xff\n\n" + entry("09:05", "4"),
            [("09:05", "warning", None)],
            EXPORT,
            {"not_journald_export": 1},
        ),
        File(
            entry("09:06", message=b"MESSAGE=a=b\nMESSAGE=\n" + binary(b"COREDUMP", b"\0\xff")),
            [("09:06", None, None)],
            EXPORT,
        ),
    ],
    "pino": [
        File(
            lines(
                pino("09:00", 50, err={"type": "E", "message": "no route", "stack": "E\n at"})
            ),
            [("09:00", "error", None)],
        ),
        File(
            lines(*(pino("09:01", 10 * n) for n in range(1, 7))),
            [
                ("09:01", level, None)
                for level in ["trace", "debug", "info", "warning", "error", "fatal"]
            ],
        ),
        File(lines(pino("09:02", 35)), [("09:02", "info", None)]),
        File(
            lines({"level": "warn", "time": at("09:03"), "msg": "x"}),
            [("09:03", "warning", None)],
        ),
        File(
            lines(
                {
                    "name": "api",
                    "hostname": "h",
                    "pid": 1,
                    "level": 60,
                    "msg": "x",
                    "time": at("09:04"),
                    "v": 0,
                }
            ),
            [("09:04", "fatal", None)],
        ),
    ],
    "zap": [
        File(
            lines(
                {
                    "level": "info",
                    "ts": seconds("09:00") + 0.123,
                    "caller": "a.go:1",
                    "msg": "x",
                }
            ),
            [("09:00", "info", None)],
        ),
        File(
            lines({"level": "DPANIC", "ts": at("09:01", ":00.123Z"), "msg": "x"}),
            [("09:01", "critical", None)],
        ),
        File(
            b'{"level":"error","ts":1.93573812e+09,"msg":"x","stacktrace":"a\\n\\tb"}\n',
            [("09:02", "error", None)],
        ),
        File(lines({"L": "INFO", "T": at("09:03"), "M": "x"}), [("09:03", "info", None)]),
        File(
            lines({"level": "warn", "ts": seconds("09:04") * 1000 + 0.5, "msg": "x"}),
            [("09:04", "warning", None)],
        ),
    ],
    "slog": [
        File(
            lines({"time": at("09:00", ":00.123456789+00:00"), "level": "INFO", "msg": "x"}),
            [("09:00", "info", None)],
        ),
        File(
            lines({"time": "2031-05-05T14:31:00.1+05:30", "level": "WARN", "msg": "x"}),
            [("09:01", "warning", None)],
        ),
        File(
            lines({"time": at("09:02"), "level": "ERROR+2", "msg": "x"}),
            [("09:02", "error", None)],
        ),
        File(
            lines({"time": at("09:03"), "level": "DEBUG-4", "msg": "x", "req": {"time": 5}}),
            [("09:03", "debug", None)],
        ),
        File(lines({"level": "INFO", "msg": "without a time"}), [("now", "info", None)]),
    ],
    "clef": [
        File(lines(clef("09:00")), [("09:00", "info", None)]),
        File(
            lines(clef("09:01", **{"@l": "Error", "@x": "System.E: x\r\n at"})),
            [("09:01", "error", None)],
        ),
        File(lines(clef("09:02", **{"@l": "Verbose", "@i": "e1"})), [("09:02", "trace", None)]),
        File(lines(clef("09:03", **{"@l": "Warning", "@@l": 1})), [("09:03", "warning", None)]),
        File(
            lines({"@t": "2031-05-05T11:04:00.0000000+02:00", "@m": "x", "@l": "Fatal"}),
            [("09:04", "fatal", None)],
        ),
    ],
    "monolog": [
        File(lines(monolog("09:00", 400, "ERROR")), [("09:00", "error", None)]),
        File(
            lines(monolog("09:01", 100, "DEBUG"), monolog("09:02", 250, "NOTICE")),
            [("09:01", "debug", None), ("09:02", "notice", None)],
        ),
        File(lines(monolog("09:03", 550, "ALERT")), [("09:03", "alert", None)]),
        File(
            lines(monolog("09:04", 600, "EMERGENCY", context={"exception": {"class": "E"}})),
            [("09:04", "emergency", None)],
        ),
        File(
            lines(
                {**monolog("09:05", 300, "WARNING"), "datetime": "2031-05-05T11:05:00.1+02:00"}
            ),
            [("09:05", "warning", None)],
        ),
    ],
    "log4j": [
        File(
            lines(
                {
                    "instant": {"epochSecond": seconds("09:00"), "nanoOfSecond": 7},
                    "level": "FATAL",
                    "message": "x",
                }
            ),
            [("09:00", "fatal", None)],
        ),
        File(
            lines({"timeMillis": seconds("09:01") * 1000, "level": "TRACE", "loggerName": "a"}),
            [("09:01", "trace", None)],
        ),
        File(
            printed(
                {
                    "instant": {"epochSecond": seconds("09:02"), "nanoOfSecond": 0},
                    "thread": "main",
                    "level": "WARN",
                    "contextMap": {},
                }
            ),
            [("09:02", "warning", None)],
        ),
        File(
            lines(
                {
                    "@timestamp": at("09:03", ":00.123Z"),
                    "log.level": "ERROR",
                    "message": "x",
                    "ecs.version": "1.2.0",
                }
            ),
            [("09:03", "error", None)],
        ),
        File(
            b"[\n"
            + printed({"timeMillis": seconds("09:04") * 1000, "level": "INFO"})
            + b", "
            + printed({"timeMillis": seconds("09:05") * 1000, "level": "SEVERE"})
            + b"]\n",
            [("09:04", "info", None), ("09:05", "error", None)],
        ),
    ],
    "gcp": [
        File(lines(gcp("09:00", "NOTICE", textPayload="x")), [("09:00", "notice", None)]),
        File(
            lines(gcp("09:01", "EMERGENCY", jsonPayload={"message": "x", "level": "info"})),
            [("09:01", "emergency", None)],
        ),
        File(
            lines(gcp("09:02", "DEFAULT", protoPayload={"methodName": "m"})),
            [("09:02", None, None)],
        ),
        File(
            printed([gcp("09:03", "ERROR"), gcp("09:04", "INFO")]),
            [("09:03", "error", None), ("09:04", "info", None)],
        ),
        File(
            lines({"severity": "WARNING", "receiveTimestamp": at("09:05"), "textPayload": "x"}),
            [("09:05", "warning", None)],
        ),
    ],
    "kubernetes audit": [
        File(lines(audit("09:00", "get")), [("09:00", "metadata", None)]),
        File(
            lines(audit("09:01", "create", requestObject={"kind": "Pod", "items": [{"a": 1}]})),
            [("09:01", "metadata", None)],
        ),
        File(
            lines(audit("09:02", "list", level="RequestResponse")),
            [("09:02", "requestresponse", None)],
        ),
        File(
            printed(audit("09:03", "watch", annotations={"a/b": "{}"})),
            [("09:03", "metadata", None)],
        ),
        File(
            lines(audit("09:04", "delete"), audit("09:05", "patch")),
            [("09:04", "metadata", None), ("09:05", "metadata", None)],
        ),
        File(
            lines(
                {
                    "kind": "EventList",
                    "apiVersion": "audit.k8s.io/v1",
                    "metadata": {},
                    "items": [audit("09:06", "get"), audit("10:00", "list", items=[{"a": 1}])],
                },
                {"kind": "EventList", "apiVersion": "audit.k8s.io/v1", "items": 5},
            ),
            [("09:06", "metadata", None), ("10:00", "metadata", None), ("now", None, None)],
        ),
    ],
    "github audit": [
        File(lines(github("09:00", "repo.destroy")), [("09:00", None, "repo.destroy")]),
        File(
            lines(github("09:01", "org.add_member", data={"id": 5})),
            [("09:01", None, "org.add_member")],
        ),
        File(
            printed([github("09:02", "git.clone"), github("09:03", "git.push")]),
            [("09:02", None, "git.clone"), ("09:03", None, "git.push")],
        ),
        File(
            lines({"created_at": seconds("09:04") * 1000, "action": "team.create"}),
            [("09:04", None, "team.create")],
        ),
        File(
            lines(github("09:05", "workflows.completed", status="success")),
            [("09:05", "success", "workflows.completed")],
        ),
    ],
    "cloudflare logpush": [
        File(lines(edge(at("09:00"))), [("09:00", None, None)]),
        File(lines(edge(int(nanos("09:01")))), [("09:01", None, None)]),
        File(lines(edge(seconds("09:02"))), [("09:02", None, None)]),
        File(
            lines({"Datetime": at("09:03"), "Action": "block", "ClientIP": "192.0.2.1"}),
            [("09:03", None, None)],
        ),
        File(lines(edge(nanos("09:04"), RequestHeaders={"x": "[{"})), [("09:04", None, None)]),
    ],
    "powershell": [
        File(
            b"\xef\xbb\xbf"
            + printed({"TimeCreated": powershell_time("09:08"), "LevelDisplayName": "Error"}),
            [("09:08", "error", None)],
        ),
        File(
            b"\xff\xfe" + ndjson("09:00", "09:01").encode("utf-16-le"),
            scans("09:00", "09:01"),
            joins=False,
        ),
        File(b"\xfe\xff" + ndjson("09:02").encode("utf-16-be"), scans("09:02"), joins=False),
        File(b"\xef\xbb\xbf" + ndjson("09:03").encode(), scans("09:03")),
        File(ndjson("09:04").encode("utf-16-le"), scans("09:04"), joins=False),
        File(
            ndjson("09:05").encode() + ndjson("09:06").encode("utf-16-le"),
            scans("09:05"),
            dead={"utf16_in_utf8": 1},
            joins=False,
        ),
        File(
            b"\xff\xfe"
            + printed({"time": at("09:07"), "u": "\u65e5\U0001f600"})
            .decode()
            .encode("utf-16-le"),
            [("09:07", None, None)],
            joins=False,
        ),
    ],
}
"""Format → its files."""
