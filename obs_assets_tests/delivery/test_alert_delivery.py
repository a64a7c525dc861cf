"""Alerts that are measured, on a real PostgreSQL and a real receiver: told once, in order, and none is lost."""

import itertools
import json
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from typing import Any

import duckdb
import pytest
from pytest_httpserver import HTTPServer

from obs_assets.delivery.outbox import ALERTS, MEASURED, WebhookAlerts
from obs_assets.destinations.base import Delivery
from obs_assets.destinations.webhook import WebhookConfig
from obs_assets.hours import Hour
from obs_assets.settings import PostgresSettings, WebhookSettings
from obs_assets.storage.postgres import LEDGER, connect, migrate
from obs_assets_tests import harness
from obs_assets_tests.conftest import breakers_of
from obs_assets_tests.delivery.test_outbox import FakeClock, status, then
from obs_assets_tests.frames import HOUR, frame_of, offer_of

FAILURES = {
    "name": "failures",
    "types": ["task_failed"],
    "above": 2,
    "by": ["worker"],
    "cooldown_hours": 3,
}
SILENCE = {
    "name": "silence",
    "types": ["task_completed"],
    "absent_hours": 2,
    "severity": "critical",
}


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(now=HOUR.end + timedelta(minutes=6))


class Place:
    """A webhook, its receiver, its clock, and hours that are built one after the other."""

    def __init__(
        self, server: PostgresSettings, http: HTTPServer, clock: FakeClock, **options: Any
    ) -> None:
        self.receiver, self.clock = http, clock
        url = f"http://127.0.0.1:{http.port}/in"
        config = WebhookConfig.model_validate(
            {"url": url, "rules": [FAILURES], "max_retries": 1, **options}
        )
        self.webhook = WebhookAlerts(
            "hook",
            config,
            server,
            WebhookSettings(allow_private=True),
            breakers_of(server),
            clock=clock,
            sleep=clock.sleep,
            jitter=lambda: 1.0,
        )
        self.connection = duckdb.connect()

    def build(
        self, hours: int, failed: dict[str, int], generation: int = 1, *, completed: int = 1
    ) -> Delivery:
        """Deliver the hour so many hours after the first."""
        hour = Hour(HOUR.start + timedelta(hours=hours))
        events = [
            {"type": "task_failed", "worker": w, "level": "error", "hour": hours}
            for w, n in failed.items()
            for _ in range(n)
        ]
        events += [{"type": "task_completed"}] * completed
        self.clock.now = max(self.clock.now, hour.end + timedelta(minutes=6))
        return self.webhook.deliver(
            offer_of(frame_of(self.connection, events, hour), hour, generation)
        )

    def said(self) -> list[tuple[str, str, list[Any]]]:
        """Kind, hour and groups of every request."""
        bodies = [json.loads(request.get_data()) for request, _ in self.receiver.log]
        return [
            (
                b["data"]["status"],
                b["data"]["hour"][-5:],
                [list(a["group"].values()) for a in b["data"]["alerts"]],
            )
            for b in bodies
        ]


@pytest.fixture
def place(
    server: PostgresSettings, httpserver: HTTPServer, clock: FakeClock
) -> Iterator[Place]:
    found = Place(server, httpserver, clock)
    with found.connection:
        yield found


@pytest.mark.slow
def test_an_alert_is_told_when_it_fires_after_its_cooldown_and_when_it_ends(
    place: Place,
) -> None:
    """One message for the groups of an hour; silence in between; figures and a table for the UI."""
    then(place.receiver)
    first = place.build(0, {"a": 3, "b": 4, "c": 1})
    assert (first.stats["fired"], first.stats["suppressed"], first.refused) == (
        2,
        0,
        {MEASURED: 9},
    )
    assert list(first.tables["alerts after this hour"]) == ["failures · a", "failures · b"]
    assert place.build(1, {"a": 5}).stats["suppressed"] == 1
    place.build(2, {"a": 5})
    place.build(3, {"a": 5})
    last = place.build(4, {})
    assert last.stats["resolved"] == 1
    assert place.said() == [
        ("firing", "10:00", [["b"], ["a"]]),
        ("resolved", "11:00", [["b"]]),
        ("firing", "13:00", [["a"]]),
        ("resolved", "14:00", [["a"]]),
    ]


@pytest.mark.slow
def test_rebuilding_sends_nothing_again(place: Place) -> None:
    """The same hour, an hour in the middle, and a late event that changes nothing: no request."""
    then(place.receiver)
    for hours in range(3):
        place.build(hours, {"a": 3})
    sent = len(place.receiver.log)
    for hours in (1, 0, 2):
        place.build(hours, {"a": 4}, generation=2)
    assert len(place.receiver.log) == sent == 1


@pytest.mark.slow
def test_any_order_of_hours_ends_in_one_state(
    server: PostgresSettings, httpserver: HTTPServer, clock: FakeClock
) -> None:
    """Four hours in eight of their 24 orders, through the database: the same rows of state."""
    then(httpserver)
    counts = [{"a": 3}, {"a": 1, "b": 5}, {"a": 3, "b": 3}, {"b": 3}]
    found = set()
    orders = [*itertools.permutations(range(4))][::3]
    for number, order in enumerate(orders):
        place = Place(server, httpserver, FakeClock(), name=f"n{number}")
        place.webhook.name = f"hook{number}"
        for hours in order:
            place.build(hours, counts[hours])
        found.add(
            json.dumps(
                [
                    {k: v for k, v in row.items() if k != "destination"}
                    for row in place.webhook.alerts()
                ],
                default=str,
            )
        )
        firing = [
            group for kind, hour, groups in place.said() for group in groups if kind == "firing"
        ]
        assert {"a", "b"} == {group for (group,) in firing}
        httpserver.clear_log()
    assert len(found) == 1


@pytest.mark.slow
def test_silence_is_noticed_without_a_single_event(
    place: Place, server: PostgresSettings
) -> None:
    """No hour is built any more, since nothing happens: the minutely job sees it, once hours have closed."""
    then(place.receiver)
    place = Place(server, place.receiver, place.clock, rules=[SILENCE])
    place.build(0, {}, completed=2)

    def dispatch(closed_hours: int) -> Any:
        return place.webhook.dispatch(
            Hour(HOUR.start + timedelta(hours=closed_hours)), lambda _: True
        )

    assert dispatch(2)["fired"] == 0
    place.clock.pass_time(7200)
    assert dispatch(3)["fired"] == 1
    assert dispatch(3)["fired"] == 0
    assert place.said() == [("firing", "12:00", [[]])]
    place.build(3, {}, completed=1)
    assert place.said()[-1][:2] == ("resolved", "13:00")


def test_an_hour_that_was_not_built_is_not_silence(
    place: Place, server: PostgresSettings
) -> None:
    """Bytes have landed for the hour and wait to be built: nothing is known of it."""
    then(place.receiver)
    place = Place(server, place.receiver, place.clock, rules=[SILENCE])
    place.build(0, {}, completed=2)
    assert (
        place.webhook.dispatch(Hour(HOUR.start + timedelta(hours=5)), lambda _: False)["fired"]
        == 0
    )


def test_a_backfill_is_silent_and_recorded(place: Place) -> None:
    """Hours that ended more than a day ago send nothing, and record what they would have sent."""
    then(place.receiver)
    place.clock.now = HOUR.end + timedelta(days=3)
    assert place.build(0, {"a": 3}).stats["fired"] == 1
    assert len(place.receiver.log) == 0
    (dispatch,) = place.webhook.dispatches("unsent")
    assert "max_age_hours" in (dispatch.last_error or "")
    assert json.loads(dispatch.body)["data"]["rule"] == "failures"


@pytest.mark.slow
def test_the_end_never_overtakes_the_beginning(place: Place) -> None:
    """A receiver that refused for a while hears of an alert before it hears of its end."""
    then(place.receiver, status(503))
    place.build(0, {"a": 3})
    place.build(1, {})
    assert [kind for kind, _, _ in place.said()] == ["firing"] or place.said()[1][0] == "firing"
    place.clock.pass_time(7200)
    place.webhook.drain(place.clock())
    assert [kind for kind, _, _ in place.said()] == ["firing", "firing", "resolved"]


@pytest.mark.slow
def test_gone_switches_an_address_off(place: Place) -> None:
    """After 410 nothing more is called, whatever is due; a retry of a dispatch switches it on again."""
    then(place.receiver, status(410))
    place.build(0, {"a": 3})
    place.build(1, {"b": 3})
    place.clock.pass_time(7200)
    place.webhook.drain(place.clock())
    assert len(place.receiver.log) == 1
    (failed,) = place.webhook.dispatches("failed")
    assert place.webhook.retry(failed.webhook_id)
    place.webhook.drain(place.clock())
    assert len(place.receiver.log) >= 3


@pytest.mark.slow
def test_a_failing_endpoint_is_left_alone(
    server: PostgresSettings, httpserver: HTTPServer, clock: FakeClock
) -> None:
    """Five failures in a row open the breaker; its state is in the store; one call after the pause closes it."""
    then(httpserver, *[status(500)] * 5)
    place = Place(
        server, httpserver, clock, retry_delay_s=0, rules=[{"name": "errors"}], batch_size=1
    )
    place.build(0, {"a": 7})
    for _ in range(20):
        place.webhook.drain(clock())
    assert len(httpserver.log) == 5
    other = Place(server, httpserver, clock, retry_delay_s=0, rules=[{"name": "errors"}])
    other.webhook.drain(clock())
    assert len(httpserver.log) == 5
    clock.pass_time(31)
    other.webhook.drain(clock())
    assert len(httpserver.log) == 12


def test_what_cannot_be_sent_for_a_day_is_given_up(place: Place) -> None:
    """It fails with the reason, counts as stuck, and is sent by a retry."""
    then(place.receiver, *[status(500)] * 2)
    place.build(0, {"a": 3})
    assert place.webhook.stuck(timedelta(hours=1)) == 0
    place.clock.pass_time(25 * 3600)
    place.webhook.drain(place.clock())
    (failed,) = place.webhook.dispatches("failed")
    assert "given up" in (failed.last_error or "")
    assert place.webhook.stuck(timedelta(hours=1)) == 1
    assert place.webhook.retry(failed.webhook_id)
    place.webhook.drain(place.clock())
    assert place.webhook.dispatches("sent")[0].webhook_id == failed.webhook_id


@pytest.mark.slow
def test_pagerduty_gets_one_event_an_alert_and_its_key_is_not_stored(
    server: PostgresSettings, httpserver: HTTPServer, clock: FakeClock
) -> None:
    """Trigger and resolve carry one dedup key; the routing key is in the request and in no row."""
    then(httpserver)
    place = Place(server, httpserver, clock, receiver="pagerduty", routing_key="CANARY_routing")
    place.build(0, {"a": 3, "b": 3})
    place.build(1, {})
    bodies = [json.loads(request.get_data()) for request, _ in httpserver.log]
    assert [body["event_action"] for body in bodies] == [
        "trigger",
        "trigger",
        "resolve",
        "resolve",
    ]
    assert len({body["dedup_key"] for body in bodies}) == 2
    assert {body["routing_key"] for body in bodies} == {"CANARY_routing"}
    assert all(b"CANARY" not in dispatch.body for dispatch in place.webhook.dispatches())


@pytest.mark.slow
def test_what_is_old_is_forgotten(place: Place, server: PostgresSettings) -> None:
    """After history_days measurements, states, notices and dispatches go; an old hour that is built again is silent."""
    then(place.receiver)
    place = Place(
        server,
        place.receiver,
        place.clock,
        history_days=60,
        rules=[FAILURES, {"name": "errors"}],
    )
    place.build(0, {"a": 3})
    place.build(1, {})
    place.webhook.dispatch(Hour(HOUR.start + timedelta(hours=2)), lambda _: False)
    sent = len(place.receiver.log)
    kept = "SELECT (SELECT count(*) FROM obs.alert_evaluations), (SELECT count(*) FROM obs.alert_notices), "
    kept += (
        "(SELECT count(*) FROM obs.webhook_dispatches), (SELECT count(*) FROM obs.webhook_rows)"
    )
    assert harness.ask(server, kept) == [(2, 2, 3, 3)]
    place.clock.pass_time(70 * 86400)
    later = Hour.of(place.clock())
    place.webhook.dispatch(later, lambda _: False)
    assert harness.ask(server, kept) == [(0, 0, 0, 3)]
    again = place.build(0, {"a": 4}, generation=2)
    assert (
        again.stats["fired"],
        again.written,
        again.already_there,
        len(place.receiver.log),
    ) == (0, 1, 3, sent)


@pytest.mark.slow
def test_an_older_hour_is_folded_a_few_hours_forward(
    place: Place, server: PostgresSettings
) -> None:
    """A late event in a long history writes the states of few hours anew, and leaves those that nothing changes."""
    then(place.receiver)
    place = Place(
        server, place.receiver, place.clock, rules=[{**FAILURES, "cooldown_hours": 0}]
    )
    for hours in range(8):
        place.build(hours, {"a": 3 * (hours > 4)})
    versions = (
        "SELECT extract(hour FROM hour)::int, xmin::text FROM obs.alert_states ORDER BY hour"
    )
    before = harness.ask(server, versions)
    assert [hour for hour, _ in before] == [15, 16, 17]
    told = place.build(0, {"b": 5}, generation=2)
    assert (told.stats["fired"], told.stats["resolved"]) == (1, 1)
    assert harness.ask(server, versions)[-3:] == before
    assert [row["rule"] for row in place.webhook.alerts()] == ["failures"]


@pytest.mark.slow
def test_changed_rules_are_folded_to_the_end(place: Place, server: PostgresSettings) -> None:
    """An hour that is built under other rules takes back what only the old ones said, in all hours after it."""
    then(place.receiver)
    for hours in range(6):
        place.build(hours, {"a": 3})
    assert len(place.webhook.alerts()) == 1
    other = Place(server, place.receiver, place.clock, rules=[{**FAILURES, "above": 100}])
    other.build(0, {"a": 3}, generation=2)
    assert other.webhook.alerts() == []


def test_the_tables_of_an_older_version_are_brought_up(
    place: Place, server: PostgresSettings
) -> None:
    """What an older version kept stays, and a newer one goes on from there."""
    then(place.receiver)
    with closing(connect(server)) as connection, connection:
        migrate(connection, "ledger", LEDGER)
        migrate(connection, "alerts", ALERTS[:1])
    assert harness.ask(
        server, "SELECT max(version) FROM obs.migrations WHERE subject = 'alerts'"
    ) == [(1,)]
    place.build(0, {"a": 3})
    assert harness.ask(
        server, "SELECT max(version) FROM obs.migrations WHERE subject = 'alerts'"
    ) == [(len(ALERTS),)]
    assert [kind for kind, _, _ in place.said()] == ["firing"]
