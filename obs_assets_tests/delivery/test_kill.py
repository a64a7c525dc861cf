"""Kill -9 anywhere between match and record, at random: nothing is lost and nothing changes its id."""

import json
import os
import random
import signal
import subprocess
import sys
from collections import defaultdict

import pytest
from pytest_httpserver import HTTPServer

from obs_assets.settings import PostgresSettings, Settings
from obs_assets_tests.delivery.test_alert_delivery import FAILURES, Place
from obs_assets_tests.delivery.test_outbox import CRASH_POINTS, FakeClock, then

RULES = [FAILURES, {"name": "errors"}]
RUN = """
import json, sys
from types import SimpleNamespace
from obs_assets import crash
from obs_assets.settings import PostgresSettings
from obs_assets_tests.delivery import test_kill as tests

server, port, hour, point = json.loads(sys.stdin.read())
crash.arm(point)
tests.place(PostgresSettings(**server), SimpleNamespace(port=port)).build(hour, tests.failed(hour))
"""


def place(server: PostgresSettings, receiver: HTTPServer) -> Place:
    return Place(server, receiver, FakeClock(), rules=RULES, batch_size=3)


def failed(hour: int) -> dict[str, int]:
    return {"a": 4, "b": 3 * (hour % 2)}


@pytest.mark.parametrize(
    "runs",
    [pytest.param(6, marks=pytest.mark.slow), pytest.param(200, marks=[pytest.mark.soak, pytest.mark.timeout(3600)])],
)
def test_killed_at_random(runs: int, settings: Settings, httpserver: HTTPServer) -> None:
    """Hours are built by processes that die at random points: every event and alert arrives, each under one id."""
    server = settings.postgres
    assert server
    then(httpserver)
    chance = random.Random(runs)
    password = server.password and server.password.get_secret_value()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OBS_")}
    hours = max(2, runs // 20)
    for _ in range(runs):
        point = f"{chance.choice(CRASH_POINTS)}:{chance.randint(1, 3)}"
        told = json.dumps(
            [{**server.model_dump(), "password": password}, httpserver.port, chance.randrange(hours), point]
        )
        done = subprocess.run(
            [sys.executable, "-c", RUN], input=told, text=True, env=environment, timeout=60, check=False
        )
        assert done.returncode in (0, -signal.SIGKILL)
    whole = place(server, httpserver)
    for hour in range(hours):
        whole.build(hour, failed(hour))
    assert {dispatch.state for dispatch in whole.webhook.dispatches(limit=10_000)} == {"sent"}
    bodies: dict[str, set[bytes]] = defaultdict(set)
    for request, _ in httpserver.log:
        bodies[request.headers["webhook-id"]].add(request.get_data())
    assert all(len(found) == 1 for found in bodies.values())
    assert set(bodies) == {dispatch.webhook_id for dispatch in whole.webhook.dispatches(limit=10_000)}
    messages = [json.loads(body) for found in bodies.values() for body in found]
    events = sum(len(message) for message in messages if isinstance(message, list))
    assert events == sum(sum(failed(hour).values()) for hour in range(hours))
    alerts = [
        (message["data"]["status"], message["data"]["hour"], alert["fingerprint"])
        for message in messages
        if isinstance(message, dict)
        for alert in message["data"]["alerts"]
    ]
    assert alerts
    assert len(alerts) == len(set(alerts))
