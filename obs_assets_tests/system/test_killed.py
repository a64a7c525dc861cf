"""Webserver, daemon and code server as three plain processes: what is killed while runs are at work.

Every test has hours of its own, and ends with `obs verify` green and each written event where it belongs.
"""

from collections import Counter
from datetime import timedelta

import psutil
import pytest

from obs_assets import embedded
from obs_assets_tests import harness
from obs_assets_tests.system.deployment import Deployment, wait_for
from obs_assets_tests.system.steps import (
    assert_whole,
    heal,
    hours_of_day,
    land,
    run_held_at_postgres,
    write,
)

pytestmark = [pytest.mark.system, pytest.mark.timeout(1200)]

PLACES = [
    "frame.before_rename:3",
    "postgres.before_commit",
    "s3.after_object",
    "webhook.after_send",
]


def test_a_run_whose_worker_is_killed_is_run_again(deployment: Deployment) -> None:
    """Kill -9 of the worker, which runs the steps itself; the daemon repeats the run by itself."""
    (hour,) = hours_of_day(2, 1)
    with run_held_at_postgres(deployment, hour) as (run_id, worker):
        worker.kill()
        deployment.wait_for_run(run_id, "FAILURE")
    again = wait_for(
        "the run is repeated",
        lambda: [run for run in deployment.runs(hour) if run.run_id != run_id],
    )
    assert again[0].tags["dagster/parent_run_id"] == run_id
    deployment.wait_for_run(again[0].run_id, "SUCCESS")
    assert_whole(deployment, hour)


def test_runs_that_are_killed_at_named_places_are_healed(deployment: Deployment) -> None:
    """A real run dies in a stage and in each destination; the reconciler repairs what it left."""
    hours = hours_of_day(3, 1 + len(PLACES))
    write(deployment, hours[-1])
    deployment.restart("code", OBS_CRASH_AT="landing.before_commit")
    wait_for(
        "a landing run dies",
        lambda: (
            deployment.wake("event_file_sensor"),
            [
                run
                for run in deployment.runs()
                if run.job == "land_event_files" and run.status == "FAILURE"
            ],
        )[1],
        pause_s=1,
    )
    deployment.restart("code")
    for hour in hours[:-1]:
        write(deployment, hour)
    land(deployment, *hours)
    for hour, place in zip(hours, PLACES, strict=False):
        deployment.restart("code", OBS_CRASH_AT=place)
        run_id = deployment.launch(hour, dagster__max_retries="0")
        assert deployment.wait_for_run(run_id, "FAILURE", "SUCCESS") == "FAILURE"
    deployment.restart("code")
    heal(deployment, *hours)
    repeated = Counter(request.webhook_id for request in deployment.receiver.requests)
    assert sum(count > 1 for count in repeated.values()) == 1, (
        "sent, not recorded, and sent again under the same id"
    )
    assert harness.leftovers(deployment.machine) == []


def test_a_run_ends_when_code_server_and_worker_are_killed(deployment: Deployment) -> None:
    """Nobody is left to say that the run is dead; its time runs out, and the hour is built."""
    (hour,) = hours_of_day(2, 1, first=1)
    with run_held_at_postgres(deployment, hour) as (run_id, worker):
        deployment.kill("code")
        worker.kill()
    deployment.start("code")
    assert deployment.status(run_id) == "STARTED"
    deployment.let_pass(timedelta(hours=7), run_id)
    deployment.wait_for_run(run_id, "FAILURE")
    heal(deployment, hour)


def test_a_daemon_that_is_killed_within_a_tick(deployment: Deployment) -> None:
    """Between what it has decided and what it has launched; each hour is run, and none twice."""
    hours = hours_of_day(4, 3)
    for hour in hours:
        write(deployment, hour)
    land(deployment, *hours)
    with deployment.held_runs():
        deployment.wake("stale_hour_sensor")
        wait_for("the tick has reserved its runs", deployment.reserved_runs, pause_s=0.02)
        deployment.kill("daemon")
    assert deployment.runs(*hours) == []
    deployment.start("daemon")
    heal(deployment, *hours)
    assert sorted(key for run in deployment.runs(*hours) for key in run.keys) == [
        hour.key for hour in hours
    ]


def test_dagsters_database_is_lost_during_a_run(deployment: Deployment) -> None:
    """The destinations are served, nobody writes down that they were; the hour is whole after one more run."""
    (hour,) = hours_of_day(2, 1, first=6)
    with run_held_at_postgres(deployment, hour) as (run_id, worker):
        deployment.kill_database()
    wait_for(
        "the worker gives up",
        lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE,
    )
    embedded.postgres(deployment.machine.data_dir)
    deployment.restart(
        "code"
    )  # the thread that looks after its workers has ended, as docs/orchestration.md says
    deployment.supervise()
    assert not deployment.run(run_id).ended
    deployment.let_pass(timedelta(hours=7), run_id)
    deployment.wait_for_run(run_id, "FAILURE")
    heal(deployment, hour)
