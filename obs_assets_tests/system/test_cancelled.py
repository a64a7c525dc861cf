"""Runs that are cancelled while they work, by Terminate in the UI and by signals: each asset, alone and in a range.

Each run ends as cancelled within ten seconds, leaves nothing behind, and exactly the hours that it lacked are built.
"""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial

import psutil
import pytest

from obs_assets.hourly.stage_rows import STAGES
from obs_assets.hours import Hour
from obs_assets_tests import harness
from obs_assets_tests.conftest import connect_postgres
from obs_assets_tests.system.deployment import Deployment, wait_for
from obs_assets_tests.system.steps import (
    heal,
    held_at_postgres,
    hours_of_day,
    land,
    write,
)

pytestmark = [pytest.mark.system, pytest.mark.timeout(1800)]

WITHIN_S = 10.0
"""On an idle machine, the end of the process included."""

SHORTER_THAN_LOCKS_S = 25.0
"""On any machine: a run that waited for its lock to time out would take 30 seconds."""

_TERMINATE = """
mutation Terminate($id: String!) { terminateRun(runId: $id) { __typename ... on PythonError { message } } }"""


@contextmanager
def held_outbox(deployment: Deployment) -> Iterator[None]:
    """Keep whoever writes to the outbox waiting."""
    assert deployment.machine.postgres
    with connect_postgres(deployment.machine.postgres) as connection:
        connection.execute(
            "SELECT pg_advisory_lock(hashtextextended('outbox webhook_alerts', 0))"
        )
        yield


@contextmanager
def held_stage(deployment: Deployment, hour: Hour) -> Iterator[None]:
    """Keep whoever builds this hour waiting at its lock."""
    with deployment.hourly.locks.hold(hour, alone=True):
        yield


def worker_of(deployment: Deployment, run_id: str) -> psutil.Process:
    """The process of a run, by what it told Dagster."""
    query = "SELECT event FROM event_logs WHERE run_id = %s AND strpos(event, 'Executing steps in process (pid: ') > 0"
    (text,) = wait_for("the run executes", lambda: deployment.sql(query, run_id))[0]
    return psutil.Process(int(text.partition("(pid: ")[2].partition(")")[0]))


def cancel(deployment: Deployment, run_id: str, how: str) -> float:
    """Cancel a run that waits; the seconds until it has ended, its process too."""
    worker = worker_of(deployment, run_id)
    began = time.monotonic()
    if how == "Terminate":
        answer = deployment.graphql(_TERMINATE, id=run_id)["terminateRun"]
        assert answer["__typename"] == "TerminateRunSuccess", answer
    else:
        worker.send_signal(getattr(signal, how))
    status = deployment.wait_for_run(run_id, "CANCELED", "FAILURE", "SUCCESS", timeout_s=60)
    assert status == "CANCELED"
    wait_for(
        "the process ends",
        lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE,
        30,
    )
    return time.monotonic() - began


def within_s() -> float:
    """The seconds that a run may take to end, on a machine as busy as this one was in the last minute."""
    busy = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    return min(SHORTER_THAN_LOCKS_S, WITHIN_S * busy)


def steps_repeated(deployment: Deployment, run_id: str) -> list[tuple[str]]:
    query = "SELECT step_key FROM event_logs WHERE run_id = %s AND dagster_event_type LIKE 'STEP_UP_FOR_RETRY%%'"
    return deployment.sql(query, run_id)


@pytest.mark.parametrize(
    ("how", "count", "days_ago"),
    [("Terminate", 1, 9), ("Terminate", 3, 10), ("SIGTERM", 3, 11)],
)
def test_cancelled_runs(deployment: Deployment, how: str, count: int, days_ago: int) -> None:
    """While they wait in a stage, at PostgreSQL, at the outbox; then missing hours are built, once.

    An interrupt that nothing announced (SIGINT) is sent in components/test_cancel.py; Terminate sends the same signal.
    """
    hours = hours_of_day(days_ago, count)
    holds = {
        "webhook_alerts": lambda: held_outbox(deployment),
        "postgres_events": lambda: held_at_postgres(deployment, hours[-1]),
        STAGES[0]: lambda: held_stage(deployment, hours[-1]),
    }
    for hour in hours:
        write(deployment, hour)
    for number, (step, hold) in enumerate(holds.items()):
        write(deployment, hours[-1], 1, f"of-{number}")  # what is built already needs no lock
        land(deployment, *hours)
        with hold():
            run_id = deployment.launch(*hours)
            wait_for("it waits there", partial(_is_at, deployment, run_id, step))
            time.sleep(1)
            seconds = cancel(deployment, run_id, how)
        assert seconds < within_s(), step
        assert steps_repeated(deployment, run_id) == []
        assert harness.leftovers(deployment.machine) == []
    assert hours[-1] in deployment.hourly.staleness().hours
    before = {run.run_id for run in deployment.runs(*hours)}
    heal(deployment, *hours)
    later = [run for run in deployment.runs(*hours) if run.run_id not in before]
    assert len([run for run in later if hours[-1].key in run.keys]) == 1
    for name in deployment.hourly.destination_names:
        assert known(deployment, name) >= {hour.key for hour in hours}


ASSETS = [*STAGES, "postgres_events", "s3_archive", "webhook_alerts"]
SOAK = pytest.mark.soak


@pytest.mark.parametrize(
    ("asset", "count"),
    [
        pytest.param(
            asset,
            count,
            marks=() if (asset, count) in {(STAGES[1], 3), ("s3_archive", 1)} else SOAK,
        )
        for asset in ASSETS
        for count in (1, 3)
    ],
)
def test_terminate_of_each_asset(deployment: Deployment, asset: str, count: int) -> None:
    """While it waits for an hour: it ends CANCELED, nothing is left, and exactly what is missing is built, once."""
    hours = hours_of_day(12 if count == 1 else 13, count, first=3 * ASSETS.index(asset))
    for hour in hours:
        write(deployment, hour)
    land(deployment, *hours)
    hourly = deployment.hourly
    for hour in hours:
        for stage in STAGES[: STAGES.index(asset)] if asset in STAGES else STAGES:
            hourly.build(stage, hour)
        for name in hourly.destination_names if asset not in STAGES else ():
            if name not in {asset, "webhook_alerts"}:  # this process would not send old alerts
                hourly.deliver(name, hour)
    with held_stage(deployment, hours[-1]):
        run_id = deployment.launch(*hours, asset=asset)
        wait_for("it waits there", partial(_is_at, deployment, run_id, asset))
        time.sleep(1)
        seconds = cancel(deployment, run_id, "Terminate")
    assert seconds < within_s()
    assert steps_repeated(deployment, run_id) == []
    assert harness.leftovers(deployment.machine) == []
    missing = deployment.hourly.staleness().missing
    for hour in hours:
        found = {
            name: hourly.destination(name).holding(hour) for name in hourly.destination_names
        }
        lacking = sorted(name for name, holding in found.items() if not holding)
        assert sorted(missing.get(hour, ())) == lacking
    heal(deployment, *hours)
    if asset in hourly.destination_names:
        assert known(deployment, asset) >= {hour.key for hour in hours}


def _is_at(deployment: Deployment, run_id: str, step: str) -> bool:
    """Whether the run has begun the step that is held up."""
    query = "SELECT 1 FROM event_logs WHERE run_id = %s AND step_key = %s AND dagster_event_type = 'STEP_START'"
    return bool(deployment.sql(query, run_id, step))


def known(deployment: Deployment, asset: str) -> set[str]:
    """The hours of an asset of which the UI knows a materialization."""
    query = "SELECT DISTINCT partition FROM event_logs WHERE asset_key = %s AND dagster_event_type = %s"
    return {key for (key,) in deployment.sql(query, f'["{asset}"]', "ASSET_MATERIALIZATION")}


def test_hours_of_a_range_whose_worker_was_killed_are_known(deployment: Deployment) -> None:
    """SIGKILL leaves nobody to report: the reconciler tells Dagster what the ledgers hold."""
    hours = hours_of_day(20, 3)
    for hour in hours:
        write(deployment, hour)
    land(deployment, *hours)
    with held_at_postgres(deployment, hours[-1]):
        run_id = deployment.launch(*hours)
        wait_for(
            "hours are held",
            lambda: hours[0] in deployment.hourly.destination("postgres_events").holdings(),
        )
        worker_of(deployment, run_id).kill()
        deployment.wait_for_run(run_id, "FAILURE")
    assert hours[0].key not in known(deployment, "postgres_events")

    def reported() -> bool:
        deployment.let_pass(timedelta(minutes=30))
        deployment.wake("stale_hour_sensor")
        return hours[0].key in known(deployment, "postgres_events")

    wait_for("the hour is known", reported, pause_s=1)
    heal(deployment, *hours)
