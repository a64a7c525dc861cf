"""Each fault of a receiver × each chunk × passing or staying: what arrived is what was offered.

Counted at the receiver: a replaceable kind holds exactly the rows; an append-only kind has each row at least
once, and the rows that arrived again are those of a single chunk.
"""

import gzip
import itertools
import json
import multiprocessing
import random
import signal
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import duckdb
import pytest
import requests
from osmem_server import OsmemServer
from pydantic import SecretStr

from obs_assets.destinations.appending import AppendingDestination
from obs_assets.destinations.base import Delivery, Destination
from obs_assets.destinations.elasticsearch import ElasticsearchConfig, ElasticsearchDestination
from obs_assets.errors import ObsError
from obs_assets.events import Frame
from obs_assets.hours import utc_now
from obs_assets.settings import ElasticsearchSettings, PostgresSettings, Settings
from obs_assets_tests.destinations import receivers
from obs_assets_tests.destinations.receivers import Received
from obs_assets_tests.destinations.test_appending import (
    cloudwatch_sender,
    datadog_sender,
    splunk_sender,
)
from obs_assets_tests.frames import HOUR, frame_of, offer_of

KINDS = ("splunk", "datadog", "cloudwatch", "elasticsearch")

FAULTS = (
    "refused",
    "wrong TLS",
    "hang",
    "drip",
    "reset in the body",
    "answer lost",
    "part stored",
    "400",
    "401",
    "403",
    "413",
    "429",
    "429 with Retry-After",
    "500",
    "503",
)

Case = tuple[str, int, bool]

EVERY: list[Case] = list(itertools.product(FAULTS, (0, 1, 2), (False, True)))
"""Fault, number of the chunk, and whether the fault stays."""

EVENTS: list[dict[str, Any] | str] = [{"n": n, "pad": "x" * 400} for n in range(220)]
MANY: list[dict[str, Any] | str] = [{"n": n} for n in range(2_200)]
"""Datadog's chunks have a thousand logs."""

LONG: list[dict[str, Any] | str] = [{"n": n, "pad": "x" * 12_000} for n in range(220)]
"""CloudWatch's chunks have a mebibyte, which is 86 of these."""

OFFERED = {"splunk": EVENTS, "datadog": MANY, "cloudwatch": LONG, "elasticsearch": EVENTS}
"""The events that each kind sends in three chunks."""

LONGEST_CHUNK = {"splunk": 100, "datadog": 1_000, "cloudwatch": 90, "elasticsearch": 0}
"""Rows of a chunk, which is how many may arrive again after a lost answer; documents are replaced."""

SERVICES = {
    "splunk": receivers.splunk,
    "datadog": receivers.datadog,
    "cloudwatch": receivers.cloudwatch,
}

TIMEOUT_S = 0.4
"""Seconds that a sender waits for an answer of a receiver that hangs or drips; with other faults it waits long.

A busy machine can need this time for an honest answer, and then rows arrive again without a fault.
"""


@dataclass
class Faulty:
    """A receiver that has a fault.

    Attributes:
        fault: the fault, a row of `FAULTS`; empty for none.
        chunk: number of the first request with events that meets it.
        left: requests that meet it.
        seen: requests with events until now.
        lost: requests whose events were stored, and whose answer was lost or late.
        is_hasty: the sender waits for `TIMEOUT_S` only.
        url: its address.
    """

    kind: str
    received: Received
    upstream: str = ""
    fault: str = ""
    chunk: int = 0
    left: int = 0
    seen: int = 0
    lost: int = 0
    is_hasty: bool = False
    url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, fault: str = "", chunk: int = 0, *, stays: bool = False) -> None:
        """Have this fault from the next delivery on."""
        self.fault, self.chunk, self.seen, self.lost = fault, chunk, 0, 0
        self.left = 1_000_000 if stays else 1
        self.is_hasty = fault in ("hang", "drip")

    def meets(self) -> str:
        """The fault that the next request with events meets."""
        with self.lock:
            number, self.seen = self.seen, self.seen + 1
            if not self.fault or number < self.chunk or not self.left:
                return ""
            self.left -= 1
            return self.fault

    def store(self, path: str, headers: Any, body: bytes) -> tuple[int, bytes]:
        """Take a request as the receiver does."""
        if self.upstream:
            answer = requests.request(
                headers["X-Method"],
                f"{self.upstream}{path}",
                data=body,
                headers={"Content-Type": headers.get("Content-Type", "application/json")},
                timeout=30,
            )
            return answer.status_code, answer.content
        text = gzip.decompress(body) if headers.get("Content-Encoding") == "gzip" else body
        with self.lock:
            status, _, content = SERVICES[self.kind](self.received, path, headers, text)
        return status, content

    def arrived(self) -> Counter[str]:
        """Identities of the rows at the receiver."""
        events = self.received.events
        match self.kind:
            case "splunk":
                return Counter(event["fields"]["row_uid"] for event in events)
            case "cloudwatch":
                texts = [json.loads(event["message"]) for event in events]
                return Counter(text["_obs"]["row_uid"] for text in texts)
        return Counter(log["row_uid"] for log in events)


@contextmanager
def faulty(kind: str, upstream: str = "") -> Iterator[Faulty]:
    """A running receiver."""
    state = Faulty(kind, Received(), upstream)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _handle(self) -> None:
            began = time.monotonic()
            length = int(self.headers.get("Content-Length", 0))
            path = self.path
            target = self.headers.get("X-Amz-Target", path)
            has_events = target.endswith(("/event", "/logs", "/_bulk", ".PutLogEvents"))
            fault = state.meets() if has_events else ""
            if fault == "reset in the body":
                self.rfile.read(length // 2)
                self._reset()
                return
            body = self.rfile.read(length)
            self.headers["X-Method"] = self.command
            if fault[:3].isdecimal():
                wait = {"Retry-After": "1"} if "Retry-After" in fault else {}
                self._answer(int(fault[:3]), b"{}", wait)
                return
            if fault == "hang":
                time.sleep(2 * TIMEOUT_S)
                self._reset()
                return
            if fault == "part stored":
                self._store_part(body)
                self._reset()
                return
            status, content = state.store(path, self.headers, body)
            if has_events and state.is_hasty and time.monotonic() - began > TIMEOUT_S / 2:
                state.lost += 1
            if fault == "answer lost":
                state.lost += 1
                self._reset()
                return
            self._answer(status, content, {}, drips=fault == "drip")

        do_GET = do_PUT = do_POST = do_DELETE = _handle  # noqa: N815 - http.server's names

        def _store_part(self, body: bytes) -> None:
            """Splunk stores events singly, Elasticsearch documents; the others take all or nothing."""
            if state.kind in ("datadog", "cloudwatch"):
                return
            state.lost += 1
            is_packed = self.headers.get("Content-Encoding") == "gzip"
            lines = (gzip.decompress(body) if is_packed else body).rstrip(b"\n").split(b"\n")
            part = b"\n".join(lines[: len(lines) // 4 * 2]) + b"\n"
            state.store(self.path, self.headers, gzip.compress(part) if is_packed else part)

        def _reset(self) -> None:
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.close_connection = True
            self.connection.close()

        def _answer(
            self, status: int, content: bytes, headers: dict[str, str], *, drips: bool = False
        ) -> None:
            lines = [f"HTTP/1.1 {status} Answer", f"Content-Length: {len(content)}"]
            lines += [f"{name}: {value}" for name, value in headers.items()]
            text = "\r\n".join([*lines, "", ""]).encode() + content
            step = max(1, len(text) // 8) if drips else len(text)
            for start in range(0, len(text), step):
                self.wfile.write(text[start : start + step])
                if drips:
                    time.sleep(TIMEOUT_S / 8)

        def log_message(self, *_: object) -> None:
            pass

        def handle(self) -> None:
            # The connection was reset on purpose.
            with suppress(OSError):
                super().handle()

        def finish(self) -> None:
            with suppress(OSError, ValueError):
                super().finish()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def destination_of(
    kind: str, url: str, server: PostgresSettings, name: str, **options: Any
) -> Destination:
    """A destination that gives up after three attempts."""
    common = {"max_retries": 2, "timeout_s": 30, **options}
    if kind == "elasticsearch":
        # As the others by default: the number of a request is the number of its chunk.
        common = {"connections": 1, **common}
        config = ElasticsearchConfig(index=name, request_size_mb=0.05, **common)
        settings = ElasticsearchSettings(url=SecretStr(url))
        return ElasticsearchDestination(config, settings, utc_now, sleep=lambda _: None)
    make: dict[str, Callable[..., Any]] = {
        "splunk": partial(splunk_sender, request_size_kb=30),
        "datadog": datadog_sender,
        "cloudwatch": cloudwatch_sender,
    }
    sender = make[kind](url, **common)
    clock = HOUR.next.start
    return AppendingDestination(name, sender.config, server, sender, lambda: clock)


def check_case(
    state: Faulty,
    server: PostgresSettings,
    duck: duckdb.DuckDBPyConnection,
    frame: Frame,
    case: Case,
) -> None:
    """Deliver with the fault, then without it, and count at the receiver."""
    fault, chunk, stays = case
    name = f"case-{EVERY.index(case)}"
    url = state.url
    if fault == "refused":
        with socket.create_server(("127.0.0.1", 0)) as unused:
            url = f"http://127.0.0.1:{unused.getsockname()[1]}"
    elif fault == "wrong TLS":
        url = url.replace("http://", "https://")
    state.received.events.clear()
    state.begin(fault, chunk, stays=stays)
    try:
        timeout_s = TIMEOUT_S if state.is_hasty else 30
        hasty = destination_of(state.kind, url, server, name, timeout_s=timeout_s)
        hasty.deliver(offer_of(frame))
        failed = False
    except ObsError:
        failed = True
    always_fails = {"refused", "wrong TLS", "400", "401", "403", "413"}
    assert failed == (fault in always_fails or (stays and fault != "drip")), case
    lost = state.lost
    state.begin()
    ours = destination_of(state.kind, state.url, server, name)
    ours.deliver(offer_of(frame))
    offered = [uid for (uid,) in frame.project("row_uid").fetchall()]
    arrived = Counter(uid for uid, _ in ours.read_back(duck, HOUR).fetchall())
    if state.kind != "elasticsearch":
        assert arrived == Counter(offered), case
        arrived = state.arrived()
    assert set(arrived) == set(offered), case
    doubles = arrived.total() - len(offered)
    assert 0 <= doubles <= lost * LONGEST_CHUNK[state.kind], case
    if not state.is_hasty:
        # However often they arrived, and although the fault stayed: these are the rows of a single chunk.
        arrived_again = sum(times > 1 for times in arrived.values())
        assert arrived_again <= LONGEST_CHUNK[state.kind], case


@pytest.fixture(scope="module")
def cluster() -> Iterator[OsmemServer]:
    started = OsmemServer.start()
    yield started
    started.close()
    if started.process.stdout:
        started.process.stdout.close()


def check_cases(
    kind: str,
    cases: list[Case],
    cluster: OsmemServer,
    settings: Settings,
    duck: duckdb.DuckDBPyConnection,
) -> None:
    assert settings.postgres
    # Computed once, not by each of hundreds of deliveries.
    frame = duck.from_arrow(frame_of(duck, OFFERED[kind]).to_arrow_table())
    upstream = cluster.url if kind == "elasticsearch" else ""
    with faulty(kind, upstream) as state:
        for case in cases:
            check_case(state, settings.postgres, duck, frame, case)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_share_of_the_faults(
    kind: str, cluster: OsmemServer, settings: Settings, duck: duckdb.DuckDBPyConnection
) -> None:
    """Each fault with a chunk and a duration that differ from kind to kind."""
    turn = KINDS.index(kind)
    cases = [
        # A `Retry-After` that stays is waited for in earnest.
        (fault, (number + turn) % 3, (number + turn) % 2 == 0 and "Retry" not in fault)
        for number, fault in enumerate(FAULTS)
    ]
    check_cases(kind, cases, cluster, settings, duck)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", KINDS)
def test_every_fault(
    kind: str, cluster: OsmemServer, settings: Settings, duck: duckdb.DuckDBPyConnection
) -> None:
    """Every fault with every chunk, passing and staying."""
    check_cases(kind, EVERY, cluster, settings, duck)


# -- random kills


def deliver_in_child(
    kind: str, url: str, server: PostgresSettings, name: str, connections: int
) -> None:
    """Deliver the events; the parent kills this process at any moment."""
    with duckdb.connect() as connection:
        frame = frame_of(connection, OFFERED[kind])
        # A slow receiver: time for a kill between two chunks.
        destination_of(kind, url, server, name, connections=connections).deliver(
            offer_of(frame)
        )


Plan = tuple[str, int, int]
"""Kind, number of kills, and connections of a delivery."""


def kill_at_random(
    plan: Plan,
    cluster: OsmemServer,
    settings: Settings,
    duck: duckdb.DuckDBPyConnection,
) -> None:
    """Kill deliveries at random moments; afterwards every row is there, as often as it may be."""
    kind, kills, connections = plan
    assert settings.postgres
    processes = multiprocessing.get_context("fork")
    chance = random.Random(kills)
    frame = frame_of(duck, OFFERED[kind])
    offered = [uid for (uid,) in frame.project("row_uid").fetchall()]
    upstream = cluster.url if kind == "elasticsearch" else ""
    with faulty(kind, upstream) as state:
        state.begin("drip", stays=True)
        killed = rounds = most_doubles = 0

        def begin(name: str) -> Any:
            given = (kind, state.url, settings.postgres, name, connections)
            child = processes.Process(target=deliver_in_child, args=given)
            child.start()
            return child

        # Kills fall into the whole of a delivery: on a busy machine its begin alone takes seconds.
        began = time.monotonic()
        begin("undisturbed").join(60)
        longest_s = time.monotonic() - began
        while killed < kills:
            rounds += 1
            assert rounds < 5 * kills + 10
            name = f"kill-{rounds}"
            state.received.events.clear()
            deaths = 0
            for _ in range(chance.randint(1, 3)):
                began = time.monotonic()
                child = begin(name)
                child.join(chance.uniform(0, longest_s))
                child.kill()
                child.join(60)
                if child.exitcode == 0:
                    longest_s = time.monotonic() - began
                    break
                assert child.exitcode == -signal.SIGKILL
                deaths += 1
            killed += deaths
            ours = destination_of(kind, state.url, settings.postgres, name)
            repaired = _deliver_when_free(ours, frame)
            arrived = Counter(uid for uid, _ in ours.read_back(duck, HOUR).fetchall())
            assert arrived == Counter(offered)
            if kind == "elasticsearch":
                continue
            arrived = state.arrived()
            assert set(arrived) == set(offered)
            doubles = arrived.total() - len(offered)
            assert doubles <= deaths * connections * LONGEST_CHUNK[kind]
            # A run that was killed has no receipt: the figures of the run right behind it say all.
            if deaths == 1 and child.exitcode:
                assert doubles <= repaired.stats.get(SENT_AGAIN, 0)
            most_doubles = max(most_doubles, doubles)
    print(f"{kind}, {connections} connections: {killed} kills, at most {most_doubles} doubles")


SENT_AGAIN = "sent again after an interruption"


def _deliver_when_free(ours: Destination, frame: Frame) -> Delivery:
    """PostgreSQL needs a moment to see that the connection of a dead process is gone."""
    for _ in range(1_200):
        try:
            return ours.deliver(offer_of(frame))
        except ObsError:
            time.sleep(0.05)
    raise AssertionError("the hour stays busy")


@pytest.mark.slow
@pytest.mark.parametrize(
    "plan", [("splunk", 2, 1), ("datadog", 2, 8), ("cloudwatch", 2, 1), ("elasticsearch", 2, 1)]
)
def test_killed_at_random(
    plan: Plan, cluster: OsmemServer, settings: Settings, duck: duckdb.DuckDBPyConnection
) -> None:
    """Nothing is lost; a killed run leaves at most a chunk for each connection that arrives twice, and counts it."""
    kill_at_random(plan, cluster, settings, duck)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("connections", [1, 8])
@pytest.mark.parametrize("kind", KINDS)
def test_killed_two_hundred_times(
    kind: str,
    connections: int,
    cluster: OsmemServer,
    settings: Settings,
    duck: duckdb.DuckDBPyConnection,
) -> None:
    """The same with two hundred kills of each kind."""
    kill_at_random((kind, 200, connections), cluster, settings, duck)
