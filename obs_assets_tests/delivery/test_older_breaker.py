"""The breaker of a webhook that an older release kept in PostgreSQL."""

from contextlib import closing
from datetime import timedelta

from pytest_httpserver import HTTPServer

from obs_assets.delivery.breaker import hash_of
from obs_assets.settings import PostgresSettings
from obs_assets.storage.postgres import connect
from obs_assets_tests import harness
from obs_assets_tests.delivery.test_alert_delivery import Place, clock
from obs_assets_tests.delivery.test_outbox import FakeClock, then

__all__ = ["clock"]


def test_a_breaker_of_an_older_release_is_taken_over(
    server: PostgresSettings, httpserver: HTTPServer, clock: FakeClock
) -> None:
    """A row of `obs.webhook_endpoints` becomes the state of the address, once."""
    then(httpserver)
    place = Place(server, httpserver, clock)
    assert place.webhook.breaker
    assert place.webhook.config.url
    place.webhook.states()
    address = hash_of(place.webhook.config.url)
    with closing(connect(server, autocommit=True)) as connection:
        connection.execute(
            "INSERT INTO obs.webhook_endpoints VALUES (%s, 7, %s, NULL)",
            [address, clock() + timedelta(seconds=60)],
        )
    place.build(0, {"a": 3})
    state = place.webhook.breaker.state()
    assert (state.failures, state.stage(clock()), len(httpserver.log)) == (7, "open", 0)
    assert harness.ask(server, "SELECT count(*) FROM obs.webhook_endpoints") == [(0,)]
    clock.pass_time(61)
    place.webhook.drain(clock())
    assert (len(httpserver.log), place.webhook.breaker.state().stage(clock())) == (1, "closed")
