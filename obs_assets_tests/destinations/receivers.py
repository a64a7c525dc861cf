"""Strict receivers of services that have no server to install: they refuse what the real ones refuse.

Each is written from the vendor's documented table, and counts events as they arrive.
"""

import gzip
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import boto3
import botocore.session
from botocore.validate import ParamValidator

from obs_assets_tests.frames import HOUR

TOKEN = "splunk-token-1"
KEY = "datadog-key-1"

ENVELOPE = {"time", "host", "source", "sourcetype", "index", "event", "fields"}
"""Keys of an event of Splunk's collector; behind another key, the real one drops events silently."""


@dataclass
class Received:
    """What arrived at a receiver.

    Attributes:
        events: the stored events, in order.
        requests: number of requests with events.
        answers: a function that may answer in the place of the receiver: number of the request → status,
            headers and body; None lets the receiver answer.
        is_stored_before: the receiver stores the events before such an answer.
        acknowledges: whether the token has indexer acknowledgement.
        rejected: ``rejectedLogEventsInfo`` of the next answer of CloudWatch.
        made: names of log groups, and of streams with their group.
    """

    events: list[Any] = field(default_factory=list)
    requests: int = 0
    answers: Callable[[int], tuple[int, dict[str, str], bytes] | None] = lambda _: None
    is_stored_before: bool = False
    acknowledges: bool = False
    rejected: dict[str, int] = field(default_factory=dict)
    made: set[tuple[str, ...]] = field(default_factory=set)
    url: str = ""


Answered = tuple[int, dict[str, str], bytes]


def _answer(status: int, body: Any) -> Answered:
    return status, {}, json.dumps(body).encode()


def splunk(  # noqa: PLR0911 - an answer for each row of the vendor's table
    received: Received, path: str, headers: Any, body: bytes
) -> Answered:
    """HEC as Splunk 10.4 answers: events before a wrong event are stored, that event and later ones are not."""
    if path.endswith("/health"):
        return _answer(200, {"text": "HEC is healthy", "code": 17})
    if headers.get("Authorization") != f"Splunk {TOKEN}":
        return _answer(403, {"text": "Invalid token", "code": 4})
    if "/ack" in path:
        asked = json.loads(body)["acks"]
        return _answer(200, {"acks": {str(number): True for number in asked}})
    received.requests += 1
    if len(body) > 1_000_000:
        return _answer(413, {"text": "too large", "code": 27})
    text, position, number = body.decode(), 0, 0
    decoder = json.JSONDecoder()
    while position < len(text):
        if text[position] == "\n":
            position += 1
            continue
        try:
            event, position = decoder.raw_decode(text, position)
        except ValueError:
            return _answer(
                400, {"text": "Invalid data format", "code": 6, "invalid-event-number": number}
            )
        code = _fault_of(event)
        if code:
            return _answer(400, {"text": "no", "code": code, "invalid-event-number": number})
        received.events.append(event)
        number += 1
    if not number:
        return _answer(400, {"text": "No data", "code": 5})
    answer: dict[str, Any] = {"text": "Success", "code": 0}
    if received.acknowledges:
        answer["ackId"] = received.requests
    return _answer(200, answer)


def _fault_of(event: Any) -> int:
    """The code of an error of an event; 0 for a right event."""
    assert set(event) <= ENVELOPE, "an unknown key makes Splunk drop the events behind it"
    if event.get("event") in (None, False):
        return 6
    # Tests mark an event with this key that the receiver shall refuse.
    is_poisoned = isinstance(event["event"], dict) and "poison" in event["event"]
    if event["event"] == "" or is_poisoned:
        return 13
    if any(isinstance(value, dict) for value in event.get("fields", {}).values()):
        return 15
    if event.get("index") == "missing":
        return 7
    return 0


def datadog(received: Received, path: str, headers: Any, body: bytes) -> Answered:
    """The log intake: all of an array or nothing; too long logs would be cut without a word."""
    assert path == "/api/v2/logs"
    if headers.get("DD-API-KEY") != KEY:
        return _answer(403, {"errors": [{"title": "Forbidden"}]})
    if len(body) > 5_000_000:
        return _answer(413, {"errors": [{"title": "Payload too large"}]})
    logs = json.loads(body)
    if not isinstance(logs, list) or not logs or len(logs) > 1000:
        return _answer(400, {"errors": [{"title": "Bad request"}]})
    for log in logs:
        assert len(json.dumps(log, ensure_ascii=False).encode()) <= 1_000_000, (
            "Datadog would cut this log"
        )
        assert set(log) >= {"message", "ddsource", "service", "timestamp"}
    received.requests += 1
    received.events += logs
    return _answer(202, {})


_LOGS = botocore.session.get_session().get_service_model("logs")

_NOW_MS = int(HOUR.next.start.timestamp() * 1000)
"""The receiver's clock: an hour after the events."""

_DAY_MS = 24 * 3_600_000


def cloudwatch(  # noqa: PLR0911 - an answer for each action
    received: Received, path: str, headers: Any, body: bytes
) -> Answered:
    """CloudWatch Logs by AWS's own model of requests, and the limits in its API reference."""
    del path
    if "Credential=testing/" not in headers.get("Authorization", ""):
        return _refused("UnrecognizedClientException")
    action = headers["X-Amz-Target"].removeprefix("Logs_20140328.")
    request = json.loads(body)
    shape = _LOGS.operation_model(action).input_shape
    # Lengths and types, as the model has them.
    if ParamValidator().validate(request, shape).has_errors():
        return _refused("SerializationException")
    if set(request) - set(shape.members):
        return _refused("SerializationException")
    match action:
        case "CreateLogGroup":
            return _made(received, (request["logGroupName"],))
        case "CreateLogStream":
            return _made(received, (request["logGroupName"], request["logStreamName"]))
        case "PutLogEvents":
            return _put(received, request)
        case "DescribeLogGroups":
            return _answer(200, {"logGroups": []})
        case "PutRetentionPolicy":
            return _answer(200, {})
    raise AssertionError(f"nothing here answers {action}")


def _refused(code: str) -> Answered:
    return _answer(400, {"__type": code, "message": "no"})


def _made(received: Received, name: tuple[str, ...]) -> Answered:
    if name in received.made:
        return _refused("ResourceAlreadyExistsException")
    if len(name) > 1 and name[:1] not in received.made:
        return _refused("ResourceNotFoundException")
    received.made.add(name)
    return _answer(200, {})


def _put(received: Received, request: Any) -> Answered:
    """PutLogEvents: the whole request is refused, or events at either end of it, or nothing."""
    events = request["logEvents"]
    if (request["logGroupName"], request["logStreamName"]) not in received.made:
        return _refused("ResourceNotFoundException")
    times = [event["timestamp"] for event in events]
    sizes = [len(event["message"].encode()) + 26 for event in events]
    is_right = (
        1 <= len(events) <= 10_000
        and sum(sizes) <= 1_048_576
        and min(sizes) > 26
        and times == sorted(times)
        and times[-1] - times[0] <= _DAY_MS
    )
    if not is_right:
        return _refused("InvalidParameterException")
    rejected, received.rejected = received.rejected, {}
    old = sum(time < _NOW_MS - 14 * _DAY_MS for time in times)
    new = sum(time > _NOW_MS + 2 * 3_600_000 for time in times)
    if old:
        rejected["tooOldLogEventEndIndex"] = old
    if new:
        rejected["tooNewLogEventStartIndex"] = len(events) - new
    first = rejected.get("tooOldLogEventEndIndex", 0)
    last = rejected.get("tooNewLogEventStartIndex", len(events))
    received.requests += 1
    received.events += events[first:last]
    return _answer(200, {"rejectedLogEventsInfo": rejected} if rejected else {})


def logs_client(url: str) -> Callable[..., Any]:
    """`boto3.client` for the receiver at this address."""
    return partial(
        boto3.client,
        endpoint_url=url,
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
    )


@contextmanager
def receiving(service: Callable[[Received, str, Any, bytes], Answered]) -> Iterator[Received]:
    """A running receiver."""
    received = Received()
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _handle(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.headers.get("Content-Encoding") == "gzip" and body:
                body = gzip.decompress(body)
            with lock:
                instead = received.answers(received.requests)
                answered = None
                if instead is None or received.is_stored_before:
                    answered = service(received, self.path, self.headers, body)
                status, headers, content = instead or answered or (500, {}, b"")
            if status == 0:
                self.close_connection = True
                return
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = _handle  # noqa: N815 - http.server's names

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    received.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield received
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
