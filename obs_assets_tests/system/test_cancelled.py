"""Runs that are cancelled while they work, by Terminate in the UI and by signals: each asset, alone and in a range.

Each run ends as cancelled within ten seconds, leaves nothing behind, and exactly the hours that it lacked are built.
"""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import psutil
import pytest

from obs_assets.hourly.stage_rows import STAGES
from obs_assets.hours import Hour
from obs_assets_tests import harness
from obs_assets_tests.conftest import connect_postgres
from obs_assets_tests.system.deployment import Deployment, wait_for
from obs_assets_tests.system.steps import (
    assert_whole,
    heal,
    held_at_postgres,
    hours_of_day,
    land,
    write,
)

pytestmark = [pytest.mark.system, pytest.mark.timeout(1800)]

WITHIN_S = 10.0
HOW = ("Terminate", "SIGINT", "SIGTERM")
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
    seconds = time.monotonic() - began
    assert status == "CANCELED"
    wait_for(
        "the process ends",
        lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE,
        30,
    )
    return seconds


def steps_repeated(deployment: Deployment, run_id: str) -> list[tuple[str]]:
    query = "SELECT step_key FROM event_logs WHERE run_id = %s AND dagster_event_type LIKE 'STEP_UP_FOR_RETRY%%'"
    return deployment.sql(query, run_id)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("ranged", [False, True], ids=["alone", "range"])
@pytest.mark.parametrize("asset", ["stage", "postgres_events", "webhook_alerts"])
def test_a_cancelled_run(deployment: Deployment, asset: str, ranged: bool, how: str) -> None:
    """While it waits in a stage, at PostgreSQL, or at the outbox; the reconciler builds what is missing, once."""
    number = 4 * (
        ["stage", "postgres_events", "webhook_alerts"].index(asset) + 3 * HOW.index(how)
    )
    hours = hours_of_day(9 + number // 20 + 3 * ranged, 3 if ranged else 1, first=number % 20)
    for hour in hours:
        write(deployment, hour)
    land(deployment, *hours)
    holds = {
        "stage": lambda: held_stage(deployment, hours[-1]),
        "postgres_events": lambda: held_at_postgres(deployment, hours[-1]),
        "webhook_alerts": lambda: held_outbox(deployment),
    }
    with holds[asset]():
        run_id = launch(deployment, hours)
        wait_for("it waits there", lambda: _is_at(deployment, run_id, asset), pause_s=0.5)
        time.sleep(1)
        seconds = cancel(deployment, run_id, how)
    assert seconds < WITHIN_S
    assert steps_repeated(deployment, run_id) == []
    assert harness.leftovers(deployment.machine) == []
    missing = set(deployment.hourly.staleness().hours) & set(hours)
    before = {run.run_id for run in deployment.runs()}
    heal(deployment, *hours)
    later = [
        run
        for run in deployment.runs()
        if run.run_id not in before and run.job == "hourly_pipeline"
    ]
    assert later, "nobody asked for the missing hours"
    assert_whole(deployment, *hours)
    for name in deployment.hourly.destination_names:
        assert known(deployment, name) >= {hour.key for hour in hours}
    assert missing


def launch(deployment: Deployment, hours: list[Hour]) -> str:
    if len(hours) == 1:
        return deployment.launch(hours[0])
    before = {run.run_id for run in deployment.range_runs()}
    deployment.backfill(*hours)
    found = wait_for(
        "the backfill starts a run",
        lambda: [run for run in deployment.range_runs() if run.run_id not in before],
    )
    return str(found[0].run_id)


def _is_at(deployment: Deployment, run_id: str, asset: str) -> bool:
    """Whether the run has begun the step that is held up."""
    step = STAGES[0] if asset == "stage" else asset
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
        run_id = launch(deployment, hours)
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
