"""The application of `obs receive`: who may send, which protocol a path has, and when it is answered.

ASGI without a framework: a request costs a lookup, its check, and its share of a flush to disk.
"""

import asyncio
import base64
import binascii
import logging
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from obs_assets.api.serving import Receive, Scope, Send
from obs_assets.api.tokens import TokenFile
from obs_assets.receive import bulk, hec, json_events, otlp
from obs_assets.receive.bodies import Limits, RefusedError, Room, read, unpacked
from obs_assets.receive.exchange import Answer, Checked, Protocol, Request, json_answer
from obs_assets.receive.keys import Keys
from obs_assets.receive.spool import BusyError, Spool

ROUTES: tuple[tuple[re.Pattern[str], Protocol], ...] = (
    (re.compile(r"/v1/logs"), otlp.PROTOCOL),
    (re.compile(r"/events"), json_events.PROTOCOL),
    (re.compile(r"/services/collector(/event(/1\.0)?)?"), hec.EVENTS),
    (re.compile(r"/services/collector/raw(/1\.0)?"), hec.RAW),
    (re.compile(r"(/[^/]+)?/_bulk"), bulk.PROTOCOL),
)
"""Path → the protocol of a ``POST`` to it. Elasticsearch's clients also use ``PUT``."""

_ALIVE = Answer(200, b"ok\n", "text/plain")

PAGES: Mapping[str, Answer] = {
    "/": bulk.about_cluster(),
    "/_cat/health": _ALIVE,
    "/healthz": _ALIVE,
    "/services/collector/health": hec.HEALTH,
    "/services/collector/health/1.0": hec.HEALTH,
}
"""Path → the answer to a ``GET``: senders ask these before they send."""

_BULK_METHODS = frozenset({"POST", "PUT"})

_DISK_RETRY_S = 10
"""Seconds after which a sender should try again when the disk refused its events."""

_KEY_BYTES = 255
"""Longest ``Idempotency-Key``, in bytes."""

_log = logging.getLogger(__name__)


@dataclass
class Figures:
    """Numbers since the start, for ``/metrics``.

    Attributes:
        requests: protocol and HTTP status → number of answers.
        records: protocol → number of records that were stored.
        rejected: protocol → number of records that were left out of stored requests.
        repeated: number of requests that were answered by their ``Idempotency-Key``.
    """

    requests: Counter[tuple[str, int]] = field(default_factory=Counter)
    records: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    repeated: int = 0

    def text(self, spool: Spool) -> str:
        """The figures in Prometheus' text format."""
        lines = ["# TYPE obs_receive_requests_total counter"]
        for (protocol, status), number in sorted(self.requests.items()):
            labels = f'protocol="{protocol}",status="{status}"'
            lines.append(f"obs_receive_requests_total{{{labels}}} {number}")
        for name, counts in (("stored", self.records), ("rejected", self.rejected)):
            lines.append(f"# TYPE obs_receive_records_{name}_total counter")
            for protocol, number in sorted(counts.items()):
                label = f'protocol="{protocol}"'
                lines.append(f"obs_receive_records_{name}_total{{{label}}} {number}")
        alone = {
            "obs_receive_repeated_requests_total": self.repeated,
            "obs_receive_stored_bytes_total": spool.committed,
            "obs_receive_failed_writes_total": spool.failed,
        }
        for name, number in alone.items():
            lines += [f"# TYPE {name} counter", f"{name} {number}"]
        return "\n".join(lines) + "\n"


@dataclass
class Receiver:
    """The application.

    Attributes:
        spool: stores the events.
        keys: the keys of stored requests.
        tokens: the tokens of senders; None if any program of this machine may send.
        limits: limits of a request.
        clock: gives the time, seconds since 1970.
    """

    spool: Spool
    keys: Keys
    tokens: TokenFile | None = None
    limits: Limits = field(default_factory=Limits)
    clock: Callable[[], float] = time.time
    figures: Figures = field(default_factory=Figures)

    def __post_init__(self) -> None:
        self._room = Room(self.limits.open_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            return
        headers = {name.decode("latin-1"): v.decode("latin-1") for name, v in scope["headers"]}
        protocol = _protocol_of(scope["path"])
        if protocol is None:
            answer = self._page(scope, headers)
        elif scope["method"] not in _BULK_METHODS:
            answer = json_answer(405, {"error": "send events with POST"}, Allow="POST")
        else:
            answer = await self._stored(scope, headers, receive, protocol)
            self.figures.requests[protocol.name, answer.status] += 1
        await _send(answer, send, with_body=scope["method"] != "HEAD")

    def close(self) -> None:
        """Finish the files; `move` may have changed the spool since the start."""
        self.spool.close()

    # -- events ------------------------------------------------------------------------------------

    async def _stored(
        self, scope: Scope, headers: Mapping[str, str], receive: Receive, protocol: Protocol
    ) -> Answer:
        """The answer to events; a success only after they are on disk."""
        content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
        taken = 0
        try:
            self._admit(headers)
            body = await read(
                receive, headers.get("content-length", ""), self.limits, self._room
            )
            taken = len(body)
            content = unpacked(body, headers.get("content-encoding", ""), self.limits)
            self._room.take(len(content))
            taken += len(content)
            query = dict(parse_qsl(scope["query_string"].decode("latin-1")))
            request = Request(scope["path"], query, content_type, content, self.clock())
            checked = protocol.check(request)
            await self._write(checked, protocol, headers.get("idempotency-key", ""))
        except RefusedError as error:
            answer = protocol.refuse(error, content_type)
            if error.retry_after_s is None:
                return answer
            retry = {"Retry-After": str(error.retry_after_s)}
            return Answer(
                answer.status, answer.body, answer.content_type, {**answer.headers, **retry}
            )
        else:
            return checked.answer
        finally:
            self._room.give_back(taken)

    def _admit(self, headers: Mapping[str, str]) -> None:
        """Raise `RefusedError` unless the sender may send."""
        if self.tokens is None:
            return
        text = token_in(headers.get("authorization", ""))
        if not text:
            raise RefusedError(401, "Token is required: Authorization: Bearer …")
        token = self.tokens.find(text)
        if token is None:
            raise RefusedError(401, "Invalid token")
        if "write" not in token.scopes:
            raise RefusedError(403, "this token has not the scope write")

    async def _write(self, checked: Checked, protocol: Protocol, key: str) -> None:
        if not checked.lines:
            return
        if len(key) > _KEY_BYTES:
            raise RefusedError(400, f"Idempotency-Key has at most {_KEY_BYTES} bytes")
        if key:
            earlier = self.keys.find(key)
            if earlier is not None:
                self.figures.repeated += 1
                await self._flushed(earlier)
                return
        try:
            # Read once: another thread can put another spool here.
            written = asyncio.wrap_future(self.spool.write(checked.lines, key))
        except BusyError:
            raise RefusedError(429, "the disk is behind", retry_after_s=1) from None
        if key:
            self.keys.begin(key, written)
        await self._flushed(written)
        self.figures.records[protocol.name] += checked.records
        self.figures.rejected[protocol.name] += checked.rejected

    async def _flushed(self, written: "asyncio.Future[None]") -> None:
        try:
            # If this sender goes away, another request with the same key still waits.
            await asyncio.shield(written)
        except OSError:
            raise RefusedError(
                503, "the events could not be stored", retry_after_s=_DISK_RETRY_S
            ) from None

    # -- pages -------------------------------------------------------------------------------------

    def _page(self, scope: Scope, headers: Mapping[str, str]) -> Answer:
        """The answer to a question of a client about the server."""
        if scope["method"] not in {"GET", "HEAD"}:
            return json_answer(404, {"error": "there is nothing at this path"})
        if scope["path"] in PAGES:
            return PAGES[scope["path"]]
        if scope["path"] != "/metrics":
            return json_answer(404, {"error": "there is nothing at this path"})
        try:
            self._admit(headers)
        except RefusedError as error:
            return json_answer(error.status, {"error": error.detail})
        return Answer(200, self.figures.text(self.spool).encode(), "text/plain")


def token_in(authorization: str) -> str:
    """The token in a header ``Authorization``, in the forms of all senders; empty if there is none.

    ``Bearer T`` and ``Splunk T`` hold it as it is; ``ApiKey`` and ``Basic`` hold ``name:T`` in base64.
    """
    scheme, _, text = authorization.strip().partition(" ")
    match scheme.lower():
        case "bearer" | "splunk":
            return text.strip()
        case "apikey" | "basic":
            try:
                pair = base64.b64decode(text.strip(), validate=True).decode()
            except (binascii.Error, UnicodeDecodeError):
                return ""
            return pair.partition(":")[2]
    return ""


def _protocol_of(path: str) -> Protocol | None:
    for pattern, protocol in ROUTES:
        if pattern.fullmatch(path.rstrip("/") or "/"):
            return protocol
    return None


async def _send(answer: Answer, send: Send, *, with_body: bool) -> None:
    headers: list[tuple[bytes, bytes]] = [
        (b"content-type", answer.content_type.encode()),
        (b"content-length", str(len(answer.body)).encode()),
    ]
    for name, value in answer.headers.items():
        headers.append((name.lower().encode(), value.encode()))
    start: dict[str, Any] = {
        "type": "http.response.start",
        "status": answer.status,
        "headers": headers,
    }
    await send(start)
    body = b""
    if with_body:
        body = answer.body
    await send({"type": "http.response.body", "body": body})
