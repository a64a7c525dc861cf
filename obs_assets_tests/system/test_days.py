"""Webserver, daemon and code server as three plain processes: a normal day, and hours that were missed.

Every test has hours of its own, and ends with `obs verify` green and each written event where it belongs.
"""

from datetime import UTC, datetime, timedelta

import pytest

from obs_assets.hours import first_open_hour
from obs_assets_tests import harness
from obs_assets_tests.system.deployment import Deployment, wait_for
from obs_assets_tests.system.steps import heal, hours_of_day, land, write

pytestmark = [pytest.mark.system, pytest.mark.timeout(1200)]


def test_a_normal_day(deployment: Deployment) -> None:
    """Files grow and are landed; the hour that closed is the schedule's, older ones their sensor's; all are whole."""
    closed = first_open_hour(datetime.now(UTC), timedelta(minutes=5)).previous
    older = closed.previous
    for hour in (older, closed):
        write(deployment, hour)
    land(deployment, older, closed)
    deployment.let_schedules_tick()
    wait_for("the schedule asks for the hour", lambda: deployment.runs(closed))
    assert (
        deployment.runs(closed)[0].tags["dagster/schedule_name"] == "hourly_pipeline_schedule"
    )
    heal(deployment, older, closed)
    assert [run.tags.get("dagster/sensor_name") for run in deployment.runs(older)] == [
        "stale_hour_sensor"
    ]

    write(deployment, older, 1, "late")
    (last_week,) = hours_of_day(7, 1)
    write(deployment, last_week)
    before = len(deployment.runs(closed))
    heal(deployment, last_week, older, closed)
    assert len(deployment.runs(older)) == 2, "a late event reopens its hour"
    assert len(deployment.runs(closed)) == before, "and only its hour"


def test_twelve_hours_without_a_daemon(deployment: Deployment) -> None:
    """Events were written all the time; once it runs again, everything is landed and built, oldest first."""
    hours = hours_of_day(5, 12)
    deployment.kill("daemon")
    for hour in hours:
        write(deployment, hour)
    deployment.start("daemon")
    heal(deployment, *hours)
    asked = [key for run in deployment.runs(*hours) for key in run.keys]
    assert asked == [hour.key for hour in hours]


def test_a_run_that_is_lost_at_its_launch(deployment: Deployment) -> None:
    """The daemon has handed it over, and the code server dies before it begins: it is given up and asked for again."""
    (hour,) = hours_of_day(2, 1, first=3)
    write(deployment, hour)
    land(deployment, hour)
    run_id = deployment.launch(hour)
    deployment.wait_for_run(run_id, "STARTING")
    deployment.kill("daemon")
    deployment.kill("code", with_children=True)
    for name in ("code", "daemon"):
        deployment.start(name)
    assert deployment.status(run_id) == "STARTING"
    deployment.let_pass(timedelta(minutes=30), run_id)
    deployment.wait_for_run(run_id, "FAILURE")
    heal(deployment, hour)


def test_an_hour_that_was_deleted_by_hand(deployment: Deployment) -> None:
    """Its run was a success under a run key that Dagster remembers for ever; it is built again under another."""
    (hour,) = hours_of_day(2, 1, first=4)
    write(deployment, hour)
    heal(deployment, hour)
    harness.ask(deployment.machine.postgres, "DELETE FROM events WHERE hour = %s", hour.start)
    deployment.let_pass(timedelta(minutes=30), deployment.runs(hour)[0].run_id)
    heal(deployment, hour)
    first, second = deployment.runs(hour)
    assert first.status == "SUCCESS"
    assert first.tags["obs/version"] == second.tags["obs/version"]
    assert first.tags["dagster/run_key"] != second.tags["dagster/run_key"]
