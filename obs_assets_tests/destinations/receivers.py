"""Strict receivers of services that have no server to install: they refuse what the real ones refuse.

Each is written from the vendor's documented table, and counts events as they arrive.
"""

import gzip
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import boto3

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
    """

    events: list[Any] = field(default_factory=list)
    requests: int = 0
    answers: Callable[[int], tuple[int, dict[str, str], bytes] | None] = lambda _: None
    is_stored_before: bool = False
    acknowledges: bool = False
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
    if event["event"] == "" or event["event"].get("poison"):
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


@dataclass
class StrictLogs:
    """A client of CloudWatch Logs that refuses what AWS refuses and moto takes: the API reference's limits.

    Attributes:
        client: the client that stores.
        rejected: ``rejectedLogEventsInfo`` of the next answer.
    """

    client: Any
    rejected: dict[str, int] = field(default_factory=dict)

    def put_log_events(self, **request: Any) -> Any:
        """Check the limits, leave out the rejected events, store the others."""
        events = request["logEvents"]
        assert 1 <= len(events) <= 10_000
        sizes = [len(event["message"].encode()) + 26 for event in events]
        assert sum(sizes) <= 1_048_576
        assert min(sizes) > 26
        times = [event["timestamp"] for event in events]
        assert times == sorted(times)
        assert times[-1] - times[0] <= 24 * 3_600_000
        rejected, self.rejected = self.rejected, {}
        first = rejected.get("tooOldLogEventEndIndex", 0)
        last = rejected.get("tooNewLogEventStartIndex", len(events))
        # moto drops events that are old by the machine's clock, and these tests have a clock of their own.
        later = int(time.time() * 1000) - times[-1]
        stored = [
            {**event, "timestamp": event["timestamp"] + later} for event in events[first:last]
        ]
        if stored:
            self.client.put_log_events(**{**request, "logEvents": stored})
        return {"rejectedLogEventsInfo": rejected} if rejected else {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.client, name)


def strict_logs(*arguments: Any, **options: Any) -> StrictLogs:
    """`boto3.client` with `StrictLogs` around it."""
    return StrictLogs(boto3.client(*arguments, **options))
