"""Retention and roll-up happen without anybody asking for them."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import dagster as dg

from obs_assets.hours import Hour
from obs_assets_tests import harness
from obs_assets_tests.components.conftest import DAGSTER_WARNINGS, Deployment
from obs_assets_tests.conftest import connect_postgres

pytestmark = DAGSTER_WARNINGS

TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def run(deployment: Deployment) -> dg.ExecuteInProcessResult:
    job = deployment.definitions.resolve_job_def("postgres_upkeep")
    return job.execute_in_process(instance=deployment.instance, raise_on_error=False)


def keeping(deployment: Deployment, destination: dict[str, object]) -> Deployment:
    """The same with one destination, and a beginning that hours of this week come after."""
    config = harness.everything_kept(deployment.events_dir, destinations=[destination])
    return replace(deployment, config=config)


def test_a_run_drops_what_has_expired(deployment: Deployment) -> None:
    """The job drops the leaf that `retention_days` no longer keeps and no other; a second run finds nothing to do."""
    kept = keeping(deployment, {"type": "postgres", "retention_days": 2})
    hours = [Hour.of(TODAY - timedelta(days=days)) for days in (4, 1)]
    harness.write_events(
        kept.events_dir / "a.jsonl",
        [event for hour in hours for event in harness.an_hour(hour)],
    )
    kept.hourly.land()
    harness.build(kept.hourly, *hours)
    for _ in range(2):
        assert run(kept).success
        assert kept.machine.postgres
        with connect_postgres(kept.machine.postgres) as connection:
            left = connection.execute("SELECT hour FROM obs.hour_loads").fetchall()
            leaves = connection.execute(
                "SELECT DISTINCT tableoid::regclass::text FROM events"
            ).fetchall()
        assert left == [(hours[1].start,)]
        assert leaves == [(f"events_d{hours[1].start:%Y%m%d}",)]


def test_a_server_that_is_down_fails_the_run_in_one_sentence(deployment: Deployment) -> None:
    """The run is red and names the server; no stack of ours, no password."""
    down = keeping(deployment, {"type": "postgres", "port": 1})
    result = run(down)
    assert not result.success
    (failure,) = [
        event for event in result.all_events if event.event_type_value == "STEP_FAILURE"
    ]
    assert "127.0.0.1:1" in (failure.message + str(failure.event_specific_data))


def test_the_sensor_is_enabled_from_the_start(deployment: Deployment) -> None:
    """Users do not have to enable it; where no table is, there is neither job nor sensor."""
    sensor = deployment.definitions.resolve_sensor_def("postgres_upkeep_sensor")
    assert sensor.default_status == dg.DefaultSensorStatus.RUNNING
    assert sensor.job_name == "postgres_upkeep"
    without = keeping(deployment, {"type": "s3"}).definitions
    assert "postgres_upkeep" not in [job.name for job in without.jobs or ()]
    assert [found.name for found in without.schedules or ()] == ["hourly_pipeline_schedule"]
    assert [found.name for found in without.sensors or ()] == [
        "event_file_sensor",
        "stale_hour_sensor",
        "remove_expired_events_sensor",
    ]


def test_a_run_removes_what_is_kept_no_longer(deployment: Deployment) -> None:
    """The job lets the hour expire; a run that would build it again is red, says why, and changes nothing."""
    config = harness.everything_kept(
        deployment.events_dir, destinations=[{"type": "s3"}], retention_days=1
    )
    kept = replace(deployment, config=config)
    hour = Hour.of(TODAY - timedelta(days=3))
    harness.write_events(kept.events_dir / "a.jsonl", harness.an_hour(hour))
    kept.hourly.land(now=TODAY - timedelta(days=2))
    harness.build(kept.hourly, hour)
    job = kept.definitions.resolve_job_def("remove_expired_events")
    assert job.execute_in_process(instance=kept.instance).success
    assert kept.hourly.landed().hour(hour).expired
    assert not kept.hourly.store.frame_path("raw_events", hour).exists()
    before = kept.hourly.store.read_receipt("sampled_events", hour)
    pipeline = kept.definitions.resolve_job_def("hourly_pipeline")
    result = pipeline.execute_in_process(
        instance=kept.instance, partition_key=hour.key, raise_on_error=False
    )
    (failure,) = [
        event for event in result.all_events if event.event_type_value == "STEP_FAILURE"
    ]
    assert "has expired" in (failure.message + str(failure.event_specific_data))
    assert kept.hourly.store.read_receipt("sampled_events", hour) == before


def test_what_is_kept_for_ever_needs_no_job(deployment: Deployment) -> None:
    """retention_days: null."""
    config = harness.everything_kept(deployment.events_dir, retention_days=None)
    without = replace(deployment, config=config).definitions
    assert "remove_expired_events" not in [job.name for job in without.jobs or ()]
