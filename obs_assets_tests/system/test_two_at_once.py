"""Webserver, daemon and code server as three plain processes: several runs at the same hours.

Every test has hours of its own, and ends with `obs verify` green and each written event where it belongs.
"""

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from fcntl import LOCK_EX, flock
from pathlib import Path

import psutil
import pytest

from obs_assets.hours import Hour
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


def test_two_runs_of_one_hour(deployment: Deployment) -> None:
    """The queue lets one wait for the other; a command that passes the queue by waits at the hour's lock."""
    (hour,) = hours_of_day(2, 1, first=5)
    write(deployment, hour)
    land(deployment, hour)
    command = (
        "asset",
        "materialize",
        "-m",
        "obs_assets.definitions",
        "--select",
        "*",
        "--partition",
        hour.key,
    )
    with ThreadPoolExecutor(3) as pool:
        launched = [pool.submit(deployment.launch, hour) for _ in range(2)]
        beside = pool.submit(harness.run, "dagster", *command, env=deployment.env)
    assert beside.result().code == 0, beside.result().said
    for run in launched:
        deployment.wait_for_run(run.result(), "SUCCESS")
    (_, first_end), (second_start, _) = deployment.times(*[run.result() for run in launched])
    assert first_end <= second_start, "the queue lets both run at once"
    heal(deployment, hour)


def test_a_backfill_beside_an_hourly_run(deployment: Deployment) -> None:
    """A range has no partition tag that a queue could count, so that both are at the same hours."""
    hours = hours_of_day(6, 4)
    for hour in hours:
        write(deployment, hour)
    land(deployment, *hours)
    deployment.restart("code")  # older hours are shown once the code is loaded again
    deployment.backfill(*hours)
    hourly = [deployment.launch(hour) for hour in hours[1:3]]
    ranges = wait_for("the backfill starts one run", deployment.range_runs)
    for run_id in (ranges[0].run_id, *hourly):
        deployment.wait_for_run(run_id, "SUCCESS")
    heal(deployment, *hours)


def test_a_newer_run_waits_for_an_orphan(deployment: Deployment) -> None:
    """The code server alone is killed, a late event comes, and two runs of the hour are alive at once: one waits."""
    (hour,) = hours_of_day(2, 1, first=2)
    with run_held_at_postgres(deployment, hour, dagster__max_retries="0") as (orphaned, orphan):
        orphan.suspend()
    built = deployment.hourly.store.receipt_path("raw_events", hour)
    before = built.stat()
    give_up(deployment, orphaned)
    write(deployment, hour, 1, "late")
    land(deployment, hour)

    def second() -> psutil.Process | None:
        deployment.wake("stale_hour_sensor")
        return next(
            (process for process in at_lock(deployment, hour) if process != orphan), None
        )

    waiting = wait_for("a second run is at the hour's lock", second)
    time.sleep(1)
    assert waiting in at_lock(deployment, hour)
    assert built.stat() == before, "it went on beside the first"
    orphan.resume()
    heal(deployment, hour)
    assert deployment.hourly.landed().hour(hour).rows == 6


def test_an_orphan_does_not_overwrite_what_is_newer(deployment: Deployment) -> None:
    """It works in a folder that was left, as after a move to another machine, where no lock keeps it waiting."""
    (hour,) = hours_of_day(2, 1, first=7)
    write(deployment, hour)
    land(deployment, hour)
    left = replace(
        deployment,
        machine=deployment.machine.model_copy(update={"data_dir": deployment.logs / "left"}),
    )
    shutil.copytree(deployment.hourly.store.root, left.hourly.store.root)
    with held_here(left, hour):
        deployment.restart("code", OBS_DATA_DIR=str(left.machine.data_dir))
        orphaned = deployment.launch(hour)
        orphan = wait_for("it is at work there", lambda: next(at_lock(left, hour), None))
        orphan.suspend()
    give_up(deployment, orphaned)
    write(deployment, hour, 1, "late")
    heal(deployment, hour)

    orphan.resume()
    wait_for(
        "the orphan ends",
        lambda: not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE,
    )
    assert_whole(deployment, hour)
    assert deployment.refused(orphaned, "newer than the offered") == set(
        deployment.hourly.destination_names
    )


def give_up(deployment: Deployment, run_id: str) -> None:
    """Kill the code server, the worker of this run lives on, and let the time of the run be over."""
    deployment.restart("code")
    deployment.let_pass(timedelta(hours=7), run_id)
    deployment.wait_for_run(run_id, "FAILURE")


@contextlib.contextmanager
def held_here(deployment: Deployment, hour: Hour) -> Iterator[None]:
    """Keep whoever builds this hour waiting before the first stage."""
    path = lock_of(deployment, hour)
    path.parent.mkdir(exist_ok=True)
    with path.open("w") as handle:
        flock(handle, LOCK_EX)
        yield


def at_lock(deployment: Deployment, hour: Hour) -> Iterator[psutil.Process]:
    """The processes that hold the hour's lock or wait for it, but for this one."""
    path = str(lock_of(deployment, hour))
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid != os.getpid() and path in (
                file.path for file in process.open_files()
            ):
                yield process


def lock_of(deployment: Deployment, hour: Hour) -> Path:
    return deployment.hourly.store.root / "locks" / f"{hour.stamp}.lock"
