"""A day on which no file grows: what Dagster's history shows of it."""

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path

import dagster as dg
import pytest

from obs_assets.components import pipeline_definitions
from obs_assets_tests import harness
from obs_assets_tests.components.conftest import DAGSTER_WARNINGS, Deployment
from obs_assets_tests.components.ticks import Clock, clock, scheduled, tick
from obs_assets_tests.frames import HOUR

pytestmark = [
    *DAGSTER_WARNINGS,
    pytest.mark.usefixtures("clock"),
    pytest.mark.slow,
    pytest.mark.timeout(900),
]
__all__ = ["clock"]

RULES = [
    {"levels": ["error"]},
    {"name": "failing", "types": ["task_failed"], "above": 2},
    {"name": "silent", "types": ["task_completed"], "below": 1},
]
STEP = timedelta(minutes=15)


class Loaded(Deployment):
    """A deployment whose code is loaded once, as a code server does it."""

    @cached_property
    def definitions(self) -> dg.Definitions:
        return pipeline_definitions(self.config, machine=self.machine, clock=Clock.now)


def execute(deployment: Deployment, job: str, request: dg.RunRequest) -> None:
    """Run what was asked for in code that is loaded anew, as the process of a run does it."""
    definitions = pipeline_definitions(
        deployment.config, machine=deployment.machine, clock=Clock.now
    )
    done = definitions.resolve_job_def(job).execute_in_process(
        instance=deployment.instance,
        run_config=request.run_config,
        partition_key=request.partition_key,
        tags={**request.tags, "dagster/run_key": request.run_key or ""},
        raise_on_error=False,
    )
    assert done.success


def test_an_idle_day_is_24_hourly_runs(
    deployment: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each hour is built once, empty, and alerts are judged; landing, retention and upkeep leave no run."""
    webhook = {
        "type": "webhook",
        "url": deployment.receiver.url,
        "allow_hosts": ["127.0.0.1"],
        "rules": RULES,
    }
    destinations = [{"type": "postgres", "retention_days": 60}, webhook]
    (home := tmp_path / "dagster").mkdir()
    config = harness.everything_kept(
        deployment.events_dir, destinations=destinations, checks={"enabled": False}
    )
    with dg.DagsterInstance.local_temp(str(home)) as instance:
        quiet = Loaded(
            config, deployment.machine, deployment.events_dir, instance, deployment.receiver
        )
        harness.write_events(quiet.events_dir / "a.jsonl", harness.an_hour())
        Clock.moment = HOUR.end + timedelta(minutes=6)
        assert let_pass(quiet, timedelta(hours=1)) == {
            "land_event_files": 1,
            "hourly_pipeline": 1,
        }
        assert let_pass(quiet, timedelta(days=1)) == {"hourly_pipeline": 24}
        assert tick(quiet, "stale_hour_sensor")[:2] == ([], "no hour is stale")
        assert quiet.hourly.first_open_hour().start == HOUR.end + timedelta(days=1)


def let_pass(deployment: Deployment, time: timedelta) -> Counter[str]:
    """Let time pass, tick by tick; the runs of each job."""
    before = Counter(run.job_name for run in deployment.instance.get_runs())
    sensors = [sensor.name for sensor in deployment.definitions.sensors or []]
    keys: set[str | None] = set()
    until = Clock.moment + time
    while Clock.moment < until:
        for name in sensors:
            job = deployment.definitions.resolve_sensor_def(name).job_name
            for request in tick(deployment, name)[0]:
                execute(deployment, job, request)
        for request in scheduled(deployment)[0]:
            if request.run_key not in keys:
                execute(deployment, "hourly_pipeline", request)
            keys.add(request.run_key)
        Clock.moment += STEP
    return Counter(run.job_name for run in deployment.instance.get_runs()) - before


def test_what_is_due_is_asked_for(deployment: Deployment) -> None:
    """A dispatch that waits, a leaf that expired, landed events beyond retention_days: each its own run, once."""
    webhook = {
        "type": "webhook",
        "url": "http://127.0.0.1:1/",
        "allow_hosts": ["127.0.0.1"],
        "rules": RULES,
    }
    destinations = [
        {"type": "postgres", "retention_days": 2},
        {**webhook, "max_retries": 1, "max_age_hours": None},
    ]
    config = harness.everything_kept(
        deployment.events_dir, destinations=destinations, retention_days=3
    )
    kept = replace(deployment, config=config)
    kept.events_dir.mkdir()
    Clock.moment = HOUR.end + timedelta(minutes=20)
    names = ("dispatch_alerts", "postgres_upkeep", "remove_expired_events")
    assert [tick(kept, f"{name}_sensor")[:2] for name in names] == [([], "nothing is due")] * 3
    harness.write_events(kept.events_dir / "a.jsonl", harness.an_hour())
    kept.hourly.land(now=HOUR.end + timedelta(minutes=6))
    harness.build(kept.hourly, HOUR)
    later = "UPDATE obs.webhook_dispatches SET next_attempt_at = now() + interval '1 hour' RETURNING 1"
    assert harness.ask(kept.machine.postgres, later)
    assert [tick(kept, f"{name}_sensor")[1] for name in names] == ["nothing is due"] * 3

    due = "UPDATE obs.webhook_dispatches SET next_attempt_at = now() - interval '1 day' RETURNING 1"
    assert harness.ask(kept.machine.postgres, due)
    Clock.moment = datetime.now(UTC) + timedelta(days=1)
    asked = {name: tick(kept, f"{name}_sensor")[0] for name in names}
    assert {
        name: [request.tags["obs/due"] for request in found] for name, found in asked.items()
    } == {
        "dispatch_alerts": ["webhook_alerts: a dispatch is due"],
        "postgres_upkeep": ["1 leaves have expired or are to be rolled up"],
        "remove_expired_events": ["1 hours have expired"],
    }
    for name in names[1:]:
        execute(kept, name, asked[name][0])
        assert tick(kept, f"{name}_sensor")[:2] == ([], "nothing is due")
    Clock.moment = datetime.now(UTC)
    kept.instance.add_run(
        dg.DagsterRun(job_name="dispatch_alerts", status=dg.DagsterRunStatus.STARTED)
    )
    assert (
        tick(kept, "dispatch_alerts_sensor")[1]
        == "webhook_alerts: a dispatch is due; a run is under way"
    )
