"""Sensors and schedules, evaluated by hand at a moment that a test chooses."""

from collections.abc import Iterator
from datetime import timedelta

import dagster as dg
import pytest

from obs_assets.components.automation import ATTEMPT_TAG, VERSION_TAG
from obs_assets.components.runs import (
    PARTITION_TAG,
    PIPELINE_TAG,
    RANGE_END_TAG,
    RANGE_START_TAG,
)
from obs_assets.hours import Hour, parse_hours
from obs_assets_tests.components.conftest import Clock, Deployment
from obs_assets_tests.frames import HOUR

CLOSED = HOUR.end + timedelta(minutes=6)
"""A landing pass that begins now closes `HOUR`: five minutes of lateness are allowed."""

SETTLED = HOUR.end + timedelta(minutes=20)
"""No longer is the hour the schedule's alone."""


@pytest.fixture
def clock() -> Iterator[None]:
    """Let the clock stand at `SETTLED` until a test moves it."""
    Clock.moment = SETTLED
    yield
    Clock.moment = None


def tick(
    deployment: Deployment, name: str, cursor: str | None = None
) -> tuple[list[dg.RunRequest], str, str | None]:
    """Evaluate a sensor: its requests, or why there are none, and its cursor."""
    definitions = deployment.definitions
    with dg.build_sensor_context(
        instance=deployment.instance, cursor=cursor, definitions=definitions
    ) as context:
        data = definitions.resolve_sensor_def(name).evaluate_tick(context)
    return list(data.run_requests or []), data.skip_message or "", data.cursor


def scheduled(deployment: Deployment) -> tuple[list[dg.RunRequest], str]:
    """Evaluate the schedule: its requests, or why there are none."""
    repository = deployment.definitions.get_repository_def()
    with dg.build_schedule_context(
        deployment.instance, Clock.moment, repository_def=repository
    ) as context:
        data = repository.get_schedule_def("hourly_pipeline_schedule").evaluate_tick(context)
    return list(data.run_requests or []), data.skip_message or ""


def hours_of(requests: list[dg.RunRequest]) -> list[str]:
    """The hours that are asked for, in the order of the requests."""
    return [hour.key for request in requests for hour in parse_hours(span_of(request))]


def span_of(request: dg.RunRequest) -> str:
    """The hour or the range of hours of a request."""
    if RANGE_START_TAG in request.tags:
        return f"{request.tags[RANGE_START_TAG]}...{request.tags[RANGE_END_TAG]}"
    return request.partition_key or request.tags[PARTITION_TAG]


def landing_of(deployment: Deployment, hour: Hour = HOUR) -> str:
    """What has landed for an hour, as tags and run keys name it."""
    return deployment.hourly.landed().version(hour).landing


def run_of(
    deployment: Deployment,
    job: str,
    status: dg.DagsterRunStatus,
    hour: Hour | None = None,
    attempt: int = 1,
) -> None:
    """Let the instance know of a run."""
    tags = {}
    if hour:
        tags = {PARTITION_TAG: hour.key, VERSION_TAG: landing_of(deployment, hour)}
    tags |= {ATTEMPT_TAG: str(attempt), PIPELINE_TAG: "pipeline"}
    deployment.instance.add_run(dg.DagsterRun(job_name=job, status=status, tags=tags))


def launched(
    deployment: Deployment, request: dg.RunRequest, status: dg.DagsterRunStatus
) -> dg.DagsterRun:
    """Let the instance know of the run that a request asks for."""
    tags = dict(request.tags)
    if request.partition_key:
        tags[PARTITION_TAG] = request.partition_key
    run = dg.DagsterRun(job_name="hourly_pipeline", status=status, tags=tags)
    deployment.instance.add_run(run)
    return run
