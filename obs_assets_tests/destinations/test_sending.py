"""Senders that nest: retries, the number of requests at the same time, bytes in memory, and doors."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from obs_assets.delivery.breaker import Breakers
from obs_assets.destinations.posting import Poster
from obs_assets.destinations.sending import (
    Doors,
    Limit,
    Request,
    UnansweredError,
    balanced,
    flow,
    limited,
    retried,
)
from obs_assets.destinations.splunk import SplunkConfig
from obs_assets.errors import ConfigurationError, ObsError, PermanentError, TransientError
from obs_assets.hourly import pipeline


@dataclass
class SlowReceiver:
    """Answers after a while, and takes a number of requests a second.

    Attributes:
        answers_after_s: seconds to an answer.
        rate: requests a second.
        queues: requests above the rate wait; otherwise they are answered with 429.
    """

    answers_after_s: float
    rate: float
    queues: bool
    url: str = ""
    taken: int = 0
    most_at_once: int = 0
    _next_at: float = 0.0
    _under_way: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self) -> int:
        """Wait as the receiver does; the status of the answer."""
        with self._lock:
            now = time.monotonic()
            # Refusals are by a bucket of ten requests, as rate limits of services are.
            start = max(now - (0 if self.queues else 10 / self.rate), self._next_at)
            if start > now and not self.queues:
                return 429
            self._next_at = start + 1 / self.rate
            self._under_way += 1
            self.most_at_once = max(self.most_at_once, self._under_way)
        time.sleep(max(0.0, start - now) + self.answers_after_s)
        with self._lock:
            self._under_way -= 1
            self.taken += 1
        return 202


@contextmanager
def slow_receiver(
    answers_after_s: float, rate: float, *, queues: bool
) -> Iterator[SlowReceiver]:
    """A running receiver."""
    receiver = SlowReceiver(answers_after_s, rate, queues)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(receiver.take())
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    receiver.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def requests_a_second(receiver: SlowReceiver, limit: Limit, number: int) -> float:
    """Rate at which the receiver takes a number of requests; waits are as short as its answers."""
    scale = receiver.answers_after_s / 2

    def sleep(seconds: float) -> None:
        time.sleep(seconds * scale)

    poster = Poster(Doors([receiver.url]), "URL", 60, 50, limit, sleep=sleep)
    before, began = receiver.taken, time.monotonic()
    bodies = (b"x" * 1000 for _ in range(number))
    for _ in flow(bodies, lambda body: poster.send(Request(body=body)), limit, len):
        pass
    assert receiver.taken - before == number
    return number / (time.monotonic() - began)


def compare(
    answers_after_s: float,
    rate: float,
    number: int,
    sweep: Sequence[int],
    share: float,
    *,
    queues: bool,
) -> None:
    """Hold the adaptive number of requests against the best of a sweep of fixed numbers."""
    with slow_receiver(answers_after_s, rate, queues=queues) as receiver:
        fixed = {
            most: requests_a_second(receiver, Limit(most, is_fixed=True), number)
            for most in sweep
        }
        adaptive = requests_a_second(receiver, Limit(16), number)
    best = max(fixed.values())
    print(f"fixed {fixed}, adaptive {adaptive:.2f}/s, {adaptive / best:.0%} of the best")
    assert adaptive >= share * best


@pytest.mark.slow
@pytest.mark.parametrize("queues", [False, True])
def test_the_number_of_requests_follows_a_slow_receiver(queues: bool) -> None:
    """Ten times as fast as in soak, where the begin weighs more: three quarters of what the receiver can take.

    No fixed number of requests is faster than the receiver, so that no sweep is needed here.
    """
    rate = 2000 / 60
    with slow_receiver(0.2, rate, queues=queues) as receiver:
        adaptive = requests_a_second(receiver, Limit(16), 150)
    print(f"adaptive {adaptive:.1f}/s of {rate:.1f}/s")
    assert adaptive >= 0.75 * rate


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("queues", [False, True])
def test_two_seconds_and_two_hundred_a_minute(queues: bool) -> None:
    """A receiver that answers in 2 s at 200 requests a minute: within 15 % of the best fixed number."""
    compare(2.0, 200 / 60, 200, (4, 5, 6, 7, 8, 12), 0.85, queues=queues)


def test_a_limit_shrinks_once_for_answers_to_the_same_number() -> None:
    """Ten requests that were under way when the receiver had no time count as a single sign."""
    now = [0.0]
    full = Limit(16, lambda: now[0])
    slots = [full.slot() for _ in range(full.allowed)]
    for _ in range(40):
        for slot in slots:
            slot.__enter__()
        now[0] += 1
        for slot in slots:
            slot.__exit__(None, None, None)
        slots = [full.slot() for _ in range(full.allowed)]
    assert full.allowed == 16
    for slot in slots:
        slot.__enter__()
    now[0] += 1
    error = TransientError("429")
    for slot in slots:
        assert not slot.__exit__(TransientError, error, None)
    assert full.allowed == 14


def test_a_pause_that_the_receiver_asks_for_holds_all_requests() -> None:
    """After ``Retry-After`` no other request is made until the pause is over."""
    limit = Limit(8)
    with pytest.raises(TransientError), limit.slot():
        raise TransientError("429", retry_after_s=0.3)
    began = time.monotonic()
    with limit.slot():
        assert time.monotonic() - began >= 0.25


@pytest.mark.parametrize(("size", "most"), [(1, 8), (4_000, 2), (20_000, 1)])
def test_few_things_are_in_memory(size: int, most: int) -> None:
    """Things are taken when there is room: twice as many as the limit allows, or as many as have room in bytes."""
    lock = threading.Lock()
    alive = [0, 0]

    def things() -> Iterator[bytes]:
        for _ in range(60):
            with lock:
                alive[0] += 1
                alive[1] = max(alive)
            yield b"x" * size

    def work(thing: bytes) -> int:
        time.sleep(0.002)
        with lock:
            alive[0] -= 1
        return len(thing)

    limit = Limit(4, is_fixed=True)
    assert sum(flow(things(), limited(work, limit), limit, len, most_bytes=10_000)) == 60 * size
    # The thing that was taken last waits for its place.
    assert alive[1] <= most + 2


def test_an_error_ends_the_flow_after_the_things_under_way() -> None:
    """No further thing is begun, and the results of the others are not lost: they are done when it is raised."""
    begun: list[int] = []
    ended: list[int] = []

    def work(number: int) -> int:
        begun.append(number)
        if number == 5:
            raise PermanentError("refused")
        time.sleep(0.02)
        ended.append(number)
        return number

    with pytest.raises(PermanentError):
        list(flow(range(1000), work, Limit(4, is_fixed=True), lambda _: 1))
    assert len(begun) < 20
    assert sorted([*ended, 5]) == sorted(begun)


def test_attempts_that_may_have_arrived_are_counted() -> None:
    """An attempt without an answer is counted; an attempt without a connection is not."""
    errors: list[Exception] = [
        UnansweredError("reset"),
        TransientError("refused"),
        UnansweredError("timeout"),
    ]
    request = Request(path="event")
    waits: list[float] = []

    def send(_: Request) -> str:
        if errors:
            raise errors.pop(0)
        return "taken"

    assert retried(send, 3, waits.append)(request) == "taken"
    assert (request.lost, len(waits)) == (2, 3)


class Nodes:
    """Two doors to the same store; some are down."""

    def __init__(self, folder: Path) -> None:
        self.now = datetime(2025, 12, 4, 10, tzinfo=UTC)
        self.down: set[str] = set()
        self.error: type[ObsError] = UnansweredError
        self.asked: list[str] = []
        breakers = Breakers(folder)
        gates = [breakers.of_door("events", url) for url in "ab"]
        self.doors = Doors("ab", gates, lambda: self.now)

    def send_to(self, url: str, request: Request) -> str:
        self.asked.append(url)
        if url in self.down:
            raise self.error(f"{url} cannot be reached")
        return url

    def send(self, number: int = 1) -> list[str]:
        """The doors that took requests, one after the other."""
        self.asked.clear()
        send = retried(balanced(self.send_to, self.doors), 3, lambda _: None)
        return [send(Request(body=b"1")) for _ in range(number)]


@pytest.fixture
def nodes(tmp_path: Path) -> Nodes:
    return Nodes(tmp_path)


def test_a_door_that_fails_is_set_aside_and_probed(nodes: Nodes) -> None:
    """After two failures it gets no request for a while; a single probe brings it back."""
    nodes.down = {"a"}
    assert set(nodes.send(10)) == {"b"}
    assert nodes.asked.count("a") == 2
    nodes.now += timedelta(seconds=31)
    assert set(nodes.send(5)) == {"b"}
    assert nodes.asked.count("a") == 1
    nodes.down.clear()
    nodes.now += timedelta(seconds=61)
    nodes.send(5)
    assert nodes.asked.count("a") == 5


def test_if_every_door_fails_they_are_tried_all_the_same(nodes: Nodes) -> None:
    """The error is that of a door, and the store is asked as soon as it is back."""
    nodes.down = {"a", "b"}
    for _ in range(3):
        with pytest.raises(TransientError, match="cannot be reached"):
            nodes.send()
    nodes.down = {"a"}
    assert nodes.send() == ["b"]


def test_a_door_that_is_set_up_wrongly_is_set_aside_too(nodes: Nodes) -> None:
    """A wrong certificate of a single node stops no request; if all are wrong, the setting is the error."""
    nodes.error, nodes.down = ConfigurationError, {"a"}
    assert set(nodes.send(10)) == {"b"}
    assert nodes.asked.count("a") == 2
    nodes.down = {"a", "b"}
    nodes.now += timedelta(seconds=31)
    with pytest.raises(ConfigurationError, match="cannot be reached"):
        nodes.send()


def test_a_door_that_refuses_the_credentials_is_set_aside() -> None:
    """One of two doors answers with 403: the other takes all requests; both: an error names the setting."""
    statuses = {"a": 403, "b": 202}

    class Door(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(statuses[self.path[1]])
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Door) as server, TemporaryDirectory() as folder:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        urls = [f"http://127.0.0.1:{server.server_port}/{name}" for name in "ab"]
        breakers = Breakers(Path(folder))
        doors = Doors(urls, [breakers.of_door("events", url) for url in urls])
        poster = Poster(doors, "endpoints", 10, 5, Limit(1), sleep=lambda _: None)
        answers = [poster.send(Request(body=b"1")).status_code for _ in range(4)]
        assert answers == [202] * 4
        statuses["b"] = 401
        with pytest.raises(ConfigurationError, match="all addresses in endpoints"):
            poster.send(Request(body=b"1"))
        server.shutdown()


def test_requests_go_to_the_door_with_the_least_outstanding_bytes(nodes: Nodes) -> None:
    """A door that is slow with a large request gets no further request while the other is free."""
    with nodes.doors.taken(5_000_000) as first:
        others = nodes.send(20)
    assert set(others) == {"a", "b"} - {first}


WITH_SECRETS = (
    "https://user:CANARY@node.example.com:9200",
    "https://CANARY@node.example.com",
    "https://node.example.com/?token=CANARY",
    "https://node.example.com#CANARY",
    "node.example.com:9200/CANARY",
    "ftp://node.example.com/CANARY",
    "https://:9200/CANARY",
    "https://node.example.com:CANARY",
)
"""Addresses that no message may show, or that are none."""


@pytest.mark.parametrize("address", WITH_SECRETS)
@pytest.mark.parametrize("kind", ["elasticsearch", "splunk", "datadog"])
def test_an_address_in_the_pipeline_file_has_no_secret(kind: str, address: str) -> None:
    """Messages and breakers' files show the addresses of doors: credentials come from the environment."""
    with pytest.raises(ConfigurationError, match="without a user or a query") as caught:
        pipeline.parse({"destinations": [{"type": kind, "endpoints": [address]}]})
    assert "endpoints" in str(caught.value)
    assert "CANARY" not in str(caught.value)


def test_the_address_of_a_proxy_has_no_secret() -> None:
    """Datadog's ``url`` is shown as the endpoints are."""
    with pytest.raises(ConfigurationError, match="without a user or a query") as caught:
        pipeline.parse({"destinations": [{"type": "datadog", "url": WITH_SECRETS[0]}]})
    assert "CANARY" not in str(caught.value)


def test_a_message_names_the_setting_of_its_address() -> None:
    """The variable, or ``endpoints`` where they take its place."""
    block = {
        "type": "splunk",
        "endpoints": ["http://127.0.0.1:9/collector", "https://[::1]:8088"],
    }
    doors, alone = SplunkConfig.model_validate(block), SplunkConfig()
    assert doors.address_setting("SPLUNK_HEC_URL") == "endpoints"
    assert alone.address_setting("SPLUNK_HEC_URL") == "SPLUNK_HEC_URL"
