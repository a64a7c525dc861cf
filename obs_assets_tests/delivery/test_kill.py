"""Kill -9 anywhere between match and record, at random: nothing is lost and nothing changes its id."""

import json
import multiprocessing
import random
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import duckdb
import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from obs_assets import crash
from obs_assets.delivery.outbox import WebhookAlerts
from obs_assets.destinations.webhook import WebhookConfig
from obs_assets.hours import Hour
from obs_assets.settings import PostgresSettings, Settings, WebhookSettings
from obs_assets_tests.conftest import breakers_of
from obs_assets_tests.delivery.test_outbox import CRASH_POINTS, FakeClock
from obs_assets_tests.frames import HOUR, frame_of, offer_of

RULES = [
    {
        "name": "failing",
        "types": ["task_failed"],
        "above": 2,
        "by": ["worker"],
        "cooldown_hours": 3,
    },
    {"name": "errors"},
]


def webhook(server: PostgresSettings, url: str, clock: FakeClock) -> WebhookAlerts:
    config = WebhookConfig.model_validate(
        {"url": url, "rules": RULES, "batch_size": 3, "max_retries": 2}
    )
    environment = WebhookSettings(allow_private=True)
    breakers = breakers_of(server)
    return WebhookAlerts(
        "hook", config, server, environment, breakers, clock=clock, sleep=clock.sleep
    )


def hour_of(number: int) -> Hour:
    return Hour(HOUR.start + timedelta(hours=number))


def events_of(number: int, attempt: int) -> list[dict[str, Any]]:
    """An hour's events; each attempt finds one more, which came late."""
    workers = ["b"] * (3 * (number % 2)) + ["a"] * (4 + attempt)
    return [
        {"type": "task_failed", "level": "error", "worker": worker, "id": f"{number}-{n}"}
        for n, worker in enumerate(workers)
    ]


def build(
    server: PostgresSettings, url: str, number: int, attempt: int, point: str | None
) -> None:
    """Deliver an hour; dies at the crash point, if it comes by."""
    crash.arm(point)
    hour = hour_of(number)
    with duckdb.connect() as connection:
        offer = offer_of(frame_of(connection, events_of(number, attempt), hour), hour, attempt)
        webhook(server, url, FakeClock(hour.end + timedelta(minutes=6))).deliver(offer)


@dataclass
class Receiver:
    """Takes what it is sent, as a whole request or not at all, and now and then has a bad moment."""

    chance: random.Random
    bodies: dict[str, Counter[bytes]] = field(default_factory=lambda: defaultdict(Counter))

    def __call__(self, request: Request) -> Response:
        body = request.get_data()
        if len(body) != int(request.headers["content-length"]):
            return Response(status=400)  # the sender died in mid-sentence
        if self.chance.random() < 0.05:
            return Response(status=503)
        self.bodies[request.headers["webhook-id"]][body] += 1
        return Response("ok")


@pytest.fixture
def receiver(request: pytest.FixtureRequest) -> Iterator[tuple[Receiver, str]]:
    with HTTPServer(host="127.0.0.1", threaded=True) as http:
        taking = Receiver(random.Random(7))
        http.expect_request("/in").respond_with_handler(taking)
        yield taking, http.url_for("/in")


@pytest.mark.parametrize(
    "kills",
    [
        pytest.param(10, marks=pytest.mark.slow),
        pytest.param(200, marks=[pytest.mark.soak, pytest.mark.timeout(1800)]),
    ],
)
def test_killed_at_random(
    kills: int, settings: Settings, receiver: tuple[Receiver, str]
) -> None:
    """Processes that build hours die at random: every event and alert arrives, each under one id and with one body."""
    server, (taken, url) = settings.postgres, receiver
    assert server
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(
        [__name__, "pandas"]
    )  # the imports cost more than a delivery
    chance, hours = random.Random(kills), max(2, kills // 10)
    attempts: Counter[int] = Counter()
    deaths: Counter[str] = Counter()
    longest_s = 0.1
    while deaths.total() < kills:
        number = chance.randrange(hours)
        attempts[number] += 1
        where = chance.choice([*CRASH_POINTS, "any moment"])
        point = None if where == "any moment" else f"{where}:{chance.randint(1, 3)}"
        process = processes.Process(
            target=build, args=(server, url, number, attempts[number], point)
        )
        began = time.monotonic()
        process.start()
        if point is None:
            process.join(chance.uniform(0, longest_s))
            process.kill()
        process.join(60)
        longest_s = max(longest_s, time.monotonic() - began)
        assert process.exitcode in (0, -signal.SIGKILL)
        deaths[where] += process.exitcode != 0
        assert attempts.total() < 10 * kills
    for number in range(hours):
        build(server, url, number, attempts[number] + 1, None)
    assert set(deaths) == {*CRASH_POINTS, "any moment"}
    check(server, url, taken, {n: len(events_of(n, attempts[n] + 1)) for n in range(hours)})


def check(
    server: PostgresSettings, url: str, taken: Receiver, expected: dict[int, int]
) -> None:
    """Drain what is left; then the receiver has everything, as often as it may."""
    clock = FakeClock(HOUR.end + timedelta(days=30))
    whole = webhook(server, url, clock)
    while whole.drain(clock())["pending"]:
        clock.pass_time(3600)
    dispatches = whole.dispatches(limit=100_000)
    assert {dispatch.state for dispatch in dispatches} == {"sent"}
    assert {dispatch.webhook_id: {dispatch.body} for dispatch in dispatches} == {
        webhook_id: set(bodies) for webhook_id, bodies in taken.bodies.items()
    }
    messages = [json.loads(dispatch.body) for dispatch in dispatches]
    forwarded = Counter(
        event["id"] for message in messages if isinstance(message, list) for event in message
    )
    assert forwarded == Counter(
        f"{number}-{n}" for number, size in expected.items() for n in range(size)
    )
    told = Counter(
        (
            message["data"]["rule"],
            message["data"]["status"],
            message["data"]["hour"],
            alert["fingerprint"],
        )
        for message in messages
        if isinstance(message, dict)
        for alert in message["data"]["alerts"]
    )
    assert set(told.values()) == {1}
    assert "firing" in {status for _, status, _, _ in told}
