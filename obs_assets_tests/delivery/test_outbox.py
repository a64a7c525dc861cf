"""The outbox: each matching event is sent, with one id, whatever dies in between."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from pydantic import SecretStr
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from obs_assets.delivery import drain, outbox
from obs_assets.delivery.outbox import NO_RULE, OFF, WebhookAlerts
from obs_assets.destinations.base import Delivery, Offer
from obs_assets.destinations.postgres import connect
from obs_assets.destinations.webhook import WebhookConfig
from obs_assets.errors import ConfigurationError, HourBusyError, StaleHourError, TransientError
from obs_assets.events import CONTENT_HASH, LINEAGE, PROMOTED, Frame, with_columns
from obs_assets.hours import parse_hour
from obs_assets.receipts import InputVersion
from obs_assets.settings import PostgresSettings, WebhookSettings
from obs_assets.storage.postgres import lock
from obs_assets_tests.conftest import breakers_of

HOUR = parse_hour("2025-12-04-10:00")
NAME = "webhook_alerts"
CANARY = "CANARY_9f32"
CRASH_POINTS = (
    "webhook.before_outbox",
    "webhook.after_outbox",
    "webhook.before_send",
    "webhook.after_send",
)


@dataclass
class FakeClock:
    """Time that passes only when it is slept, and what was slept."""

    now: datetime = datetime(2025, 12, 4, 11, 5, tzinfo=UTC)
    slept: list[float] = field(default_factory=list)

    def __call__(self) -> datetime:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += timedelta(seconds=seconds)

    def pass_time(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@dataclass
class Outbox:
    """Makes destinations that share a database, a receiver and a clock."""

    server: PostgresSettings
    url: str
    clock: FakeClock
    name: str = NAME
    busy_after_s: float = 30

    def __call__(self, **options: Any) -> WebhookAlerts:
        config = WebhookConfig.model_validate({"url": self.url, **options})
        environment = WebhookSettings(allow_private=True)
        return WebhookAlerts(
            self.name,
            config,
            self.server,
            environment,
            breakers_of(self.server),
            clock=self.clock,
            busy_after_s=self.busy_after_s,
            sleep=self.clock.sleep,
            jitter=lambda: 1.0,
        )


@pytest.fixture
def alerts(server: PostgresSettings, httpserver: HTTPServer, clock: FakeClock) -> Outbox:
    return Outbox(server, f"http://127.0.0.1:{httpserver.port}/in", clock)


def event(number: int, level: str = "error") -> str:
    """An event's text with a number that no JSON parser keeps."""
    return f'{{"id": "e{number}", "level": "{level}", "type": "task", "n": 1{number}00000000000000000000000000001.10}}'


def frame_of(connection: duckdb.DuckDBPyConnection, events: list[str]) -> Frame:
    rows = [
        {
            "row_uid": f"{position:032x}",
            "event_time": HOUR.start,
            "file_id": "f",
            "file_offset": position,
            "landed_at": HOUR.end,
            "weight": 1.0,
            "event": text,
        }
        for position, text in enumerate(events)
    ]
    columns = ", ".join([*LINEAGE, *PROMOTED, "weight", "event"])
    return with_columns(connection.from_arrow(pa.Table.from_pylist(rows)), "weight").project(
        columns
    )


def offer_of(
    connection: duckdb.DuckDBPyConnection, events: list[str], generation: int = 1
) -> Offer:
    frame = frame_of(connection, events)
    ((content_hash,),) = frame.aggregate(CONTENT_HASH).fetchall()
    return Offer(
        frame, HOUR, InputVersion(generation, "c", "1"), len(events), content_hash, run_id="r"
    )


def adds_up(delivery: Delivery, offered: int) -> bool:
    return offered == delivery.written + delivery.already_there + sum(delivery.refused.values())


def at_once(work: Callable[[], object]) -> None:
    """Do it in two threads."""
    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)


def then(httpserver: HTTPServer, *answers: Response) -> None:
    """Answer with these, one request each, and 200 from then on."""
    script = iter(answers)
    httpserver.expect_request("/in").respond_with_handler(
        lambda _: next(script, Response("ok"))
    )


def status(code: int, **headers: str) -> Response:
    return Response(
        CANARY,
        status=code,
        headers={name.replace("_", "-"): value for name, value in headers.items()},
    )


def received(httpserver: HTTPServer) -> list[tuple[str, bytes]]:
    """``webhook-id`` and body of every request, in order."""
    return [
        (request.headers["webhook-id"], request.get_data()) for request, _ in httpserver.log
    ]


def event_ids(httpserver: HTTPServer) -> list[str]:
    """The ids of the events that arrived, in order, repetitions included."""
    bodies = [json.loads(body) for _, body in received(httpserver)]
    return [
        found["id"] for body in bodies for found in (body if isinstance(body, list) else [body])
    ]


# ── each event once ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_an_hour_sent_twice_is_sent_once(
    alerts: Outbox, httpserver: HTTPServer, connection: duckdb.DuckDBPyConnection
) -> None:
    """Matching events go out in batches, in order; offering the hour again sends nothing and counts them as there."""
    then(httpserver)
    events = [event(n, "info" if n % 3 == 0 else "error") for n in range(30)]
    expected = [f"e{n}" for n in range(30) if n % 3]
    first = alerts(batch_size=8).deliver(offer_of(connection, events))
    assert (first.written, first.already_there, dict(first.refused)) == (20, 0, {NO_RULE: 10})
    assert event_ids(httpserver) == expected
    assert [len(json.loads(body)) for _, body in received(httpserver)] == [8, 8, 4]
    assert first.size_bytes == sum(len(body) for _, body in received(httpserver))

    second = alerts(batch_size=8).deliver(offer_of(connection, events, generation=2))
    assert (second.written, second.already_there, dict(second.refused)) == (
        0,
        20,
        {NO_RULE: 10},
    )
    assert event_ids(httpserver) == expected
    assert adds_up(first, 30)
    assert adds_up(second, 30)


def test_a_late_event_is_sent_alone(
    alerts: Outbox, httpserver: HTTPServer, connection: duckdb.DuckDBPyConnection
) -> None:
    """An event that joins an hour goes out by itself, digits untouched; the others are not sent again."""
    then(httpserver)
    destination = alerts()
    destination.deliver(offer_of(connection, [event(0), event(1)]))
    late = destination.deliver(
        offer_of(connection, [event(0), event(1), event(2)], generation=2)
    )
    assert (late.written, late.already_there) == (1, 2)
    assert received(httpserver)[-1][1].decode() == f"[{event(2)}]"
    assert event_ids(httpserver) == ["e0", "e1", "e2"]


def test_individual_sends_every_event(
    alerts: Outbox, httpserver: HTTPServer, connection: duckdb.DuckDBPyConnection
) -> None:
    """One request an event, for all of them: the original posted the first of each batch only."""
    then(httpserver)
    delivery = alerts(payload_format="individual").deliver(
        offer_of(connection, [event(n) for n in range(12)])
    )
    assert [body.decode() for _, body in received(httpserver)] == [event(n) for n in range(12)]
    assert delivery.stats["total_events_sent"] == delivery.stats["total_requests_sent"] == 12


def test_an_event_of_two_rules_is_sent_once(
    alerts: Outbox, httpserver: HTTPServer, connection: duckdb.DuckDBPyConnection
) -> None:
    """The first rule takes it; batches do not mix rules, and the counts add up."""
    then(httpserver)
    rules = [{"name": "fatal", "levels": ["fatal"]}, {"name": "bad"}]
    events = [event(0), event(1, "fatal"), event(2), event(3, "info")]
    destination = alerts(rules=rules)
    delivery = destination.deliver(offer_of(connection, events))
    assert sorted(event_ids(httpserver)) == ["e0", "e1", "e2"]
    assert {dispatch.rule: dispatch.events for dispatch in destination.dispatches()} == {
        "fatal": 1,
        "bad": 2,
    }
    assert adds_up(delivery, 4)


@pytest.mark.slow
def test_many_events_come_in_order(
    alerts: Outbox, httpserver: HTTPServer, connection: duckdb.DuckDBPyConnection
) -> None:
    """More events than are held at a time leave no batch short and none out."""
    then(httpserver)
    count = 2 * outbox.CHUNK_ROWS + 7
    delivery = alerts(batch_size=300).deliver(
        offer_of(connection, [event(n) for n in range(count)])
    )
    assert delivery.written == count
    assert event_ids(httpserver) == [f"e{n}" for n in range(count)]
    assert [len(json.loads(body)) for _, body in received(httpserver)] == [300] * (
        count // 300
    ) + [count % 300]


def test_an_hour_without_matches_is_still_held(
    alerts: Outbox, httpserver: HTTPServer, connection: duckdb.DuckDBPyConnection
) -> None:
    """That nothing alerts is knowledge too: the ledger says which version of the hour said so."""
    offer = offer_of(connection, [event(0, "info")])
    destination = alerts()
    assert destination.holding(HOUR) is None
    delivery = destination.deliver(offer)
    assert (delivery.written, dict(delivery.refused)) == (0, {NO_RULE: 1})
    holding = destination.holding(HOUR)
    assert holding
    assert (holding.version, holding.rows, holding.content_hash) == (
        offer.version,
        0,
        offer.content_hash,
    )
    assert httpserver.log == []


def test_what_is_there_can_be_read_back(
    alerts: Outbox, httpserver: HTTPServer, connection: duckdb.DuckDBPyConnection
) -> None:
    """The rows of an hour that are in a dispatch, as many as the ledger says."""
    then(httpserver)
    destination = alerts()
    destination.deliver(offer_of(connection, [event(0), event(1, "info"), event(2)]))
    holding = destination.holding(HOUR)
    rows = destination.read_back(connection, HOUR).order("row_uid").fetchall()
    assert rows == [(f"{0:032x}", ""), (f"{2:032x}", "")]
    assert holding
    assert holding.rows == 2
    assert destination.read_back(connection, HOUR.next).fetchall() == []


@pytest.mark.slow
def test_a_smaller_generation_is_turned_away(
    alerts: Outbox, httpserver: HTTPServer, connection: duckdb.DuckDBPyConnection
) -> None:
    """A run that has seen less than an earlier one writes and sends nothing."""
    then(httpserver)
    destination = alerts()
    destination.deliver(offer_of(connection, [event(0)], generation=5))
    with pytest.raises(StaleHourError, match="generation 5"):
        destination.deliver(offer_of(connection, [event(0), event(1)], generation=4))
    assert event_ids(httpserver) == ["e0"]
    assert len(destination.dispatches()) == 1


# ── whatever dies in between ─────────────────────────────────────────────────────────────────────────────────────────

RUN = """
import json, sys
import duckdb
from obs_assets import crash
from obs_assets.settings import PostgresSettings
from obs_assets_tests.delivery import test_outbox as tests

server, url, point = json.loads(sys.stdin.read())
crash.arm(point)
with duckdb.connect() as connection:
    destination = tests.Outbox(PostgresSettings(**server), url, tests.FakeClock())(batch_size=2)
    destination.deliver(tests.offer_of(connection, [tests.event(n) for n in range(5)]))
"""


def run_and_crash(alerts: Outbox, point: str) -> int:
    """Deliver five events in another process that dies at a crash point; returns its exit code."""
    password = alerts.server.password and alerts.server.password.get_secret_value()
    arguments = json.dumps(
        [{**alerts.server.model_dump(), "password": password}, alerts.url, point]
    )
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("OBS_")
    }
    command = [sys.executable, "-c", RUN]
    return subprocess.run(
        command, input=arguments, text=True, env=environment, timeout=60, check=False
    ).returncode


@pytest.mark.slow
@pytest.mark.parametrize(
    "point", [*CRASH_POINTS, "webhook.before_send:2", "webhook.after_send:3"]
)
def test_a_crash_loses_nothing_and_renames_nothing(
    alerts: Outbox, httpserver: HTTPServer, connection: duckdb.DuckDBPyConnection, point: str
) -> None:
    """Killed anywhere, a re-run completes the hour: every event arrives, each always under one id and in one body."""
    then(httpserver)
    assert run_and_crash(alerts, point) == -signal.SIGKILL
    delivery = alerts(batch_size=2).deliver(offer_of(connection, [event(n) for n in range(5)]))
    assert adds_up(delivery, 5)
    assert set(event_ids(httpserver)) == {f"e{n}" for n in range(5)}
    bodies = set(received(httpserver))
    assert len(bodies) == len({webhook_id for webhook_id, _ in bodies}) == 3
    repeated = sum(Counter(received(httpserver)).values()) - len(bodies)
    assert repeated == (1 if "after_send" in point else 0)
    assert delivery.stats["pending"] == 0


@pytest.mark.slow
def test_two_drains_share_the_work(
    connection: duckdb.DuckDBPyConnection, server: PostgresSettings
) -> None:
    """Drains that run at the same time take different dispatches: none is sent twice, and they are two at once."""
    together = threading.Barrier(2, timeout=10)

    def both_at_once(request: Request) -> Response:
        together.wait()
        return Response("ok")

    with HTTPServer(host="127.0.0.1", threaded=True) as receiver:
        receiver.expect_request("/in").respond_with_handler(both_at_once)
        alerts = Outbox(server, receiver.url_for("/in"), FakeClock())
        off = alerts(url=None, batch_size=1)
        off.deliver(offer_of(connection, [event(n) for n in range(6)]))
        for dispatch in off.dispatches():
            off.retry(dispatch.webhook_id)
        at_once(lambda: alerts().drain(alerts.clock()))
        assert sorted(event_ids(receiver)) == [f"e{n}" for n in range(6)]
        assert {dispatch.state for dispatch in alerts().dispatches()} == {"sent"}


@pytest.mark.slow
def test_two_runs_of_an_hour_send_it_once(
    alerts: Outbox, httpserver: HTTPServer, server: PostgresSettings
) -> None:
    """Two runs that deliver the same hour at the same time put each event into one dispatch."""
    then(httpserver)
    together = threading.Barrier(2, timeout=10)
    deliveries: list[Delivery] = []

    def run() -> None:
        with duckdb.connect() as connection:
            offer = offer_of(connection, [event(n) for n in range(50)])
            together.wait()
            deliveries.append(alerts().deliver(offer))

    at_once(run)
    assert sorted(delivery.written for delivery in deliveries) == [0, 50]
    assert sorted(event_ids(httpserver)) == sorted(f"e{n}" for n in range(50))


def test_a_run_that_has_to_wait_too_long_says_so(
    alerts: Outbox,
    connection: duckdb.DuckDBPyConnection,
    server: PostgresSettings,
) -> None:
    """While another run writes to the outbox, this one waits a while and then leaves it to a later attempt."""
    destination = replace(alerts, busy_after_s=0.2)()
    destination.check()
    with closing(connect(server, autocommit=True)) as other, other.transaction():
        lock(other, f"outbox {NAME}")
        with pytest.raises(HourBusyError):
            destination.deliver(offer_of(connection, [event(0)]))
    assert destination.dispatches() == []


# ── what the receiver answers ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("asked", ["90", "Thu, 04 Dec 2025 11:06:30 GMT"])
def test_retry_after_is_waited_for_outside_the_run(
    alerts: Outbox,
    httpserver: HTTPServer,
    connection: duckdb.DuckDBPyConnection,
    clock: FakeClock,
    asked: str,
) -> None:
    """429 with Retry-After moves everything that is pending to then: nothing sleeps, and nothing is sent before."""
    then(httpserver, status(429, Retry_After=asked))
    destination = alerts(batch_size=1)
    delivery = destination.deliver(offer_of(connection, [event(n) for n in range(3)]))
    assert (delivery.stats["pending"], delivery.stats["total_rate_limited"]) == (3, 1)
    assert delivery.written == 3
    assert clock.slept == []
    assert {dispatch.next_attempt_at for dispatch in destination.dispatches("pending")} == {
        clock() + timedelta(seconds=90)
    }

    clock.pass_time(89)
    destination.drain(clock())
    assert len(httpserver.log) == 1
    clock.pass_time(2)
    stats = destination.drain(clock())
    assert (stats["pending"], stats["total_events_sent"], stats["success_rate"]) == (0, 3, 1.0)
    assert Counter(event_ids(httpserver)) == {"e0": 2, "e1": 1, "e2": 1}


def test_a_long_wait_is_cut_to_an_hour(
    alerts: Outbox,
    httpserver: HTTPServer,
    connection: duckdb.DuckDBPyConnection,
    clock: FakeClock,
) -> None:
    """A receiver that asks for days is tried again after an hour."""
    then(httpserver, status(503, Retry_After="100000"))
    destination = alerts()
    destination.deliver(offer_of(connection, [event(0)]))
    assert destination.dispatches()[0].next_attempt_at == clock() + timedelta(hours=1)


def test_a_server_error_is_tried_again_in_the_run(
    alerts: Outbox,
    httpserver: HTTPServer,
    connection: duckdb.DuckDBPyConnection,
    clock: FakeClock,
) -> None:
    """A passing 500 costs seconds and a retry; each retry waits longer, and the counts tell."""
    then(httpserver, status(500), status(503))
    stats = alerts().deliver(offer_of(connection, [event(0)])).stats
    assert clock.slept == [1.0, 2.0]
    assert [
        stats[name]
        for name in ("total_requests_sent", "total_requests_succeeded", "total_requests_failed")
    ] == [
        3,
        1,
        2,
    ]
    assert (stats["total_retries"], stats["total_rate_limited"], stats["pending"]) == (2, 0, 0)
    assert stats["success_rate"] == pytest.approx(1 / 3)


def test_a_later_drain_sends_the_same_bytes(
    alerts: Outbox,
    httpserver: HTTPServer,
    connection: duckdb.DuckDBPyConnection,
    clock: FakeClock,
) -> None:
    """What three attempts did not bring through is sent later: same id, same metadata, byte for byte."""
    then(httpserver, *[status(500)] * 3)
    destination = alerts(payload_format="object", hmac_secret="s")
    delivery = destination.deliver(offer_of(connection, [event(0), event(1)]))
    assert (delivery.stats["pending"], delivery.stats["total_events_sent"]) == (1, 0)
    created_at = destination.dispatches()[0].created_at
    clock.pass_time(1000)
    assert destination.drain(clock())["total_events_sent"] == 2
    assert len(set(received(httpserver))) == 1
    (webhook_id, body), *_ = received(httpserver)
    assert datetime.fromisoformat(json.loads(body)["metadata"]["timestamp"]) == created_at
    dispatch = destination.dispatches()[0]
    assert (dispatch.webhook_id, dispatch.body, dispatch.state) == (webhook_id, body, "sent")
    assert (dispatch.attempts, dispatch.sent_at, dispatch.last_error) == (4, clock(), None)
    timestamps = [request.headers["webhook-timestamp"] for request, _ in httpserver.log]
    assert int(timestamps[-1]) - int(timestamps[0]) >= 1000


def test_waiting_grows_from_drain_to_drain(
    alerts: Outbox,
    httpserver: HTTPServer,
    connection: duckdb.DuckDBPyConnection,
    clock: FakeClock,
) -> None:
    """A receiver that stays down is asked ever less often, but at least every hour."""
    httpserver.expect_request("/in").respond_with_data("", status=500)
    destination = alerts()
    destination.deliver(offer_of(connection, [event(0)]))
    waits = []
    for _ in range(5):
        due = destination.dispatches()[0].next_attempt_at
        waits.append((due - clock()).total_seconds())
        clock.now = due
        destination.drain(due)
    assert waits == [4.0, 32.0, 256.0, 2048.0, 3600.0]


def test_a_refusal_is_final_and_is_not_repeated(
    alerts: Outbox,
    httpserver: HTTPServer,
    connection: duckdb.DuckDBPyConnection,
    clock: FakeClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """400 fails one dispatch and not the next; it is logged without event, answer or address, and can be retried."""
    caplog.set_level(logging.DEBUG)
    then(httpserver, status(400))
    destination = alerts(batch_size=1)
    delivery = destination.deliver(offer_of(connection, [event(0), event(1)]))
    assert (
        delivery.stats["failed"],
        delivery.stats["pending"],
        delivery.stats["total_retries"],
    ) == (1, 0, 0)
    assert clock.slept == []
    (failed,) = destination.dispatches("failed")
    assert failed.last_error == "the webhook answered 400"
    clock.pass_time(100_000)
    destination.drain(clock())
    assert event_ids(httpserver) == ["e0", "e1"]
    own = [record for record in caplog.records if record.name == drain.__name__]
    assert [record.levelname for record in own] == ["ERROR"]
    assert failed.webhook_id in own[0].getMessage()

    assert destination.retry(failed.webhook_id)
    assert destination.drain(clock())["total_events_sent"] == 1
    assert received(httpserver)[0] == received(httpserver)[2]
    assert not destination.retry(failed.webhook_id)
    assert not destination.retry("msg_unknown")


@pytest.mark.slow
def test_an_indigestible_dispatch_holds_up_no_other(
    alerts: Outbox,
    httpserver: HTTPServer,
    connection: duckdb.DuckDBPyConnection,
    clock: FakeClock,
) -> None:
    """A body on which the receiver always fails waits behind new alerts, for ever if need be."""

    def poisoned(request: Request) -> Response:
        return Response(status=500 if b'"e0"' in request.get_data() else 200)

    httpserver.expect_request("/in").respond_with_handler(poisoned)
    destination = alerts(batch_size=1, max_retries=1)
    destination.deliver(offer_of(connection, [event(0)]))
    for number in range(1, 4):
        clock.pass_time(3600)
        destination.deliver(
            offer_of(connection, [event(n) for n in range(number + 1)], generation=number + 1)
        )
    assert [dispatch.webhook_id for dispatch in destination.dispatches("pending")] == [
        received(httpserver)[0][0]
    ]
    assert Counter(event_ids(httpserver)) == {"e0": 4, "e1": 1, "e2": 1, "e3": 1}


def test_a_receiver_that_is_down_ends_the_drain(
    alerts: Outbox, httpserver: HTTPServer, connection: duckdb.DuckDBPyConnection
) -> None:
    """One dispatch finds out that nobody answers; the others are not tried against a wall."""
    httpserver.expect_request("/in").respond_with_data("", status=502)
    delivery = alerts(batch_size=1).deliver(offer_of(connection, [event(n) for n in range(20)]))
    assert len(httpserver.log) == 3
    assert delivery.stats["pending"] == 20


# ── sending that is off, and secrets ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_without_an_address_it_is_recorded_what_would_be_sent(
    alerts: Outbox,
    httpserver: HTTPServer,
    connection: duckdb.DuckDBPyConnection,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Sending is off, said once; a later address does not send the past on its own, `retry` does."""
    then(httpserver)
    alerts = replace(alerts, name="quiet")  # a process says it once for a name
    off = alerts(url=None)
    for generation in (1, 2):
        delivery = off.deliver(offer_of(connection, [event(0), event(1)], generation))
    assert (delivery.stats["unsent"], delivery.stats["success_rate"]) == (1, 1.0)
    assert [record.getMessage() for record in caplog.records].count(
        f"{alerts.name}: {OFF}; dispatches are recorded"
    ) == 1
    assert off.check() == OFF

    on = alerts()
    on.deliver(offer_of(connection, [event(0), event(1), event(2)], generation=3))
    assert event_ids(httpserver) == ["e2"]
    on.retry(on.dispatches("unsent")[0].webhook_id)
    on.drain(alerts.clock())
    assert event_ids(httpserver) == ["e2", "e0", "e1"]


def test_the_environment_names_the_receiver(
    server: PostgresSettings, httpserver: HTTPServer, connection: duckdb.DuckDBPyConnection
) -> None:
    """An address and a token that the pipeline file leaves open come from the environment."""
    then(httpserver)
    environment = WebhookSettings(
        url=SecretStr(httpserver.url_for("/in")),
        auth_token=SecretStr("t"),
        allow_private=True,
        send_old=True,
    )
    config = WebhookConfig(auth_type="bearer")
    WebhookAlerts(NAME, config, server, environment, breakers_of(server)).deliver(
        offer_of(connection, [event(0)])
    )
    assert httpserver.log[0][0].headers["Authorization"] == "Bearer t"


def test_a_check_reaches_both_ends(
    alerts: Outbox, httpserver: HTTPServer, server: PostgresSettings
) -> None:
    """The receiver's host and port are named; what cannot be reached is an error that names the setting."""
    assert alerts().check() == f"webhook 127.0.0.1:{httpserver.port} can be reached"
    with pytest.raises(ConfigurationError, match="WEBHOOK_URL"):
        alerts(url=f"http://127.0.0.1:9/{CANARY}").check()
    with pytest.raises(ConfigurationError, match="POSTGRES_HOST"):
        Outbox(server.model_copy(update={"port": 9}), alerts.url, alerts.clock)().check()
    assert httpserver.log == []


def test_secrets_and_events_are_in_no_record(
    alerts: Outbox,
    httpserver: HTTPServer,
    connection: duckdb.DuckDBPyConnection,
    server: PostgresSettings,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Neither the logs nor any column but the body holds address, credentials, answer or event."""
    caplog.set_level(logging.DEBUG)
    httpserver.expect_request(f"/{CANARY}").respond_with_data(CANARY, status=500)
    secretive = {
        "url": httpserver.url_for(f"/{CANARY}"),
        "headers": {"X": CANARY},
        "hmac_secret": CANARY,
    }
    destination = alerts(auth_type="bearer", auth_token=CANARY, **secretive)
    delivery = destination.deliver(
        offer_of(connection, [f'{{"level": "error", "message": "{CANARY}"}}'])
    )
    assert httpserver.log[0][0].headers["X"] == CANARY
    own_records = "".join(
        record.getMessage() for record in caplog.records if record.name != "werkzeug"
    )
    assert CANARY not in own_records + repr(delivery) + repr(destination.dispatches()) + repr(
        destination
    )
    with closing(connect(server, autocommit=True)) as other:
        columns = "webhook_id, destination, hour, rule, content_type, state, last_error"
        assert CANARY not in str(
            other.execute(f"SELECT {columns} FROM obs.webhook_dispatches").fetchall()
        )


def test_an_outbox_out_of_reach_is_transient(
    alerts: Outbox, connection: duckdb.DuckDBPyConnection, server: PostgresSettings
) -> None:
    """Without PostgreSQL nothing is sent: an alert that cannot be written down could not be remembered."""
    unreachable = Outbox(
        server.model_copy(update={"port": 9, "password": SecretStr(CANARY)}),
        alerts.url,
        alerts.clock,
    )
    with pytest.raises(TransientError, match="PostgreSQL at ") as caught:
        unreachable().deliver(offer_of(connection, [event(0)]))
    assert CANARY not in str(caught.value)


def test_a_connection_lost_while_sending_only_repeats(
    alerts: Outbox,
    httpserver: HTTPServer,
    connection: duckdb.DuckDBPyConnection,
    server: PostgresSettings,
) -> None:
    """When PostgreSQL goes away between claim and mark, the dispatch stays pending and is sent again under its id."""

    def cut(request: Request) -> Response:
        if len(httpserver.log) == 0:
            with closing(connect(server, autocommit=True)) as other:
                other.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE application_name = 'obs_assets outbox' AND pid <> pg_backend_pid() AND datname = %s",
                    [server.database],
                )
        return Response("ok")

    httpserver.expect_request("/in").respond_with_handler(cut)
    with pytest.raises(TransientError, match="PostgreSQL at "):
        alerts().deliver(offer_of(connection, [event(0)]))
    delivery = alerts().deliver(offer_of(connection, [event(0)]))
    assert (delivery.already_there, delivery.stats["pending"]) == (1, 0)
    assert len(received(httpserver)) == 2
    assert len(set(received(httpserver))) == 1
