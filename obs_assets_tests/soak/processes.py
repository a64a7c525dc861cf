"""What runs in processes of its own, each of which may be killed: the sensors, and the runs that they ask for."""

import os
import signal
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import dagster as dg

from obs_assets import settings
from obs_assets.components import automation, pipeline_definitions
from obs_assets.embedded.dagster_home import dagster_home
from obs_assets.hourly.pipeline import PipelineConfig
from obs_assets_tests import harness

SENSORS = ("event_file_sensor", "stale_hour_sensor")

# Forked from a server that has imported everything: a real process for each run, and no seconds of imports.
processes = get_context("forkserver")
processes.set_forkserver_preload(
    [__name__, "boto3", "pandas", "pyarrow.compute", "obs_assets_tests.soak.writers"]
)


def config_of(env: Mapping[str, str]) -> PipelineConfig:
    """The pipeline: nothing is filtered or sampled, so that what was written can be counted at the destinations."""
    others = {"filter": None, "on_config_change": "rebuild", "allowed_lateness_minutes": 0}
    return harness.everything_kept(Path(env["OBS_EVENTS_DIR"]), env["WEBHOOK_URL"], **others)


def definitions_of(env: Mapping[str, str]) -> dg.Definitions:
    """All that Dagster knows of it."""
    return pipeline_definitions(config_of(env), machine=settings.load(env))


def instance_of(env: Mapping[str, str]) -> dg.DagsterInstance:
    """The instance, its PostgreSQL started again if it was killed."""
    os.environ.update(dagster_home(Path(env["OBS_DATA_DIR"])))
    return dg.DagsterInstance.get()


def tick_for_ever(env: Mapping[str, str], requests: "Connection[Any, Any]") -> None:
    """What the daemon does: evaluate sensors and schedule, and hand on what they ask for; time goes by faster."""
    _begin(env)
    automation.FIRST_PAUSE, automation.LONGEST_PAUSE = (
        timedelta(seconds=0.5),
        timedelta(seconds=5),
    )
    definitions = definitions_of(env)
    repository = definitions.get_repository_def()
    with instance_of(env) as instance:
        while True:
            for name in SENSORS:
                with dg.build_sensor_context(
                    instance=instance, definitions=definitions
                ) as context:
                    data = definitions.resolve_sensor_def(name).evaluate_tick(context)
                requests.send((name, _plain(data.run_requests)))
            with dg.build_schedule_context(
                instance, datetime.now(UTC), repository_def=repository
            ) as at:
                scheduled = repository.get_schedule_def(
                    "hourly_pipeline_schedule"
                ).evaluate_tick(at)
            requests.send(("hourly_pipeline_schedule", _plain(scheduled.run_requests)))
            time.sleep(0.3)


def _plain(requests: Any) -> list[dict[str, Any]]:
    return [
        {
            "run_key": request.run_key,
            "partition_key": request.partition_key,
            "tags": dict(request.tags),
            "run_config": request.run_config,
            "asset_selection": [key.path for key in request.asset_selection]
            if request.asset_selection
            else None,
        }
        for request in requests or []
    ]


def execute(env: Mapping[str, str], job: str, run_id: str, request: Mapping[str, Any]) -> None:
    """What a run worker does; ends with 1 unless the run was a success."""
    _begin(env)
    selection = request["asset_selection"]
    with instance_of(env) as instance:
        done = (
            definitions_of(env)
            .resolve_job_def(job)
            .execute_in_process(
                run_config=request["run_config"],
                instance=instance,
                partition_key=request["partition_key"],
                asset_selection=[dg.AssetKey(path) for path in selection]
                if selection
                else None,
                tags=request["tags"],
                run_id=run_id,
                raise_on_error=False,
            )
        )
    raise SystemExit(not done.success)


def _begin(env: Mapping[str, str]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    log = os.open(
        Path(env["OBS_DATA_DIR"]).parent / "processes.log",
        os.O_CREAT | os.O_APPEND | os.O_WRONLY,
    )
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.clear()
    os.environ.update(env)
