"""Alerts as Dagster shows them: figures, a table, a check that warns, and the job that sends what is due."""

from dataclasses import replace
from typing import Any

import dagster as dg
import pytest

from obs_assets_tests import harness
from obs_assets_tests.components.conftest import DAGSTER_WARNINGS, Deployment
from obs_assets_tests.harness import HOUR

pytestmark = [*DAGSTER_WARNINGS, pytest.mark.slow]

RULES = [
    {"levels": ["error"]},
    {"name": "failing", "types": ["task_failed"], "above": 2, "by": ["event_level"]},
]


def watching(deployment: Deployment, url: str) -> Deployment:
    """The deployment with a webhook alone, whose rules forward and measure."""
    webhook = {
        "type": "webhook",
        "url": url,
        "rules": RULES,
        "max_retries": 1,
        "max_age_hours": None,
    }
    config = harness.everything_kept(
        deployment.events_dir,
        destinations=[{**webhook, "allow_hosts": ["127.0.0.1"], "retry_delay_s": 0}],
    )
    harness.write_events(deployment.events_dir / "a.jsonl", harness.an_hour())
    return replace(deployment, config=config)


def run(deployment: Deployment, job: str, hour: str | None = None) -> dg.ExecuteInProcessResult:
    result = deployment.definitions.resolve_job_def(job).execute_in_process(
        instance=deployment.instance, partition_key=hour, raise_on_error=False
    )
    assert result.success
    return result


def metadata_of(result: dg.ExecuteInProcessResult, asset: str) -> dict[str, Any]:
    (event,) = result.asset_materializations_for_node(asset)
    return dict(event.metadata)


def moves(result: dg.ExecuteInProcessResult) -> dg.AssetCheckEvaluation:
    (found,) = [
        e for e in result.get_asset_check_evaluations() if e.check_name == "dispatches_move"
    ]
    return found


def test_an_hour_shows_what_fired_and_what_was_sent(deployment: Deployment) -> None:
    """Fired, suppressed, resolved, sent and failed are figures of the materialization, beside a table of the alerts."""
    watched = watching(deployment, deployment.receiver.url)
    run(watched, "land_event_files")
    result = run(watched, "hourly_pipeline", HOUR.key)
    shown = str(
        {name: value.value for name, value in metadata_of(result, "webhook_alerts").items()}
    )
    figures = (
        "fired",
        "suppressed",
        "resolved",
        "total_events_sent",
        "total_requests_failed",
        "failed",
        "pending",
    )
    assert [figure for figure in figures if figure not in shown] == []
    assert "failing · error" in shown
    assert f"firing since {HOUR.key}" in shown
    assert len(deployment.receiver.requests) == 2
    assert moves(result).passed
    again = run(watched, "hourly_pipeline", HOUR.key)
    assert moves(again).passed
    assert len(deployment.receiver.requests) == 2


def test_dispatches_that_do_not_move_are_warned_of_and_sent_by_the_job(
    deployment: Deployment,
) -> None:
    """A receiver that is away leaves dispatches; after an hour the check warns; the job sends them later."""
    away = watching(deployment, "http://127.0.0.1:1/")
    run(away, "land_event_files")
    assert moves(run(away, "hourly_pipeline", HOUR.key)).passed
    older = "UPDATE obs.webhook_dispatches SET created_at = created_at - interval '2 hours', next_attempt_at = now()"
    harness.ask(deployment.machine.postgres, older + " RETURNING 1")
    check = moves(run(away, "hourly_pipeline", HOUR.key))
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert check.metadata["stuck"].value == 2

    back = replace(
        away,
        config=harness.everything_kept(
            away.events_dir, destinations=[_with_url(away, deployment.receiver.url)]
        ),
    )
    harness.ask(
        deployment.machine.postgres,
        "UPDATE obs.webhook_dispatches SET next_attempt_at = now() RETURNING 1",
    )
    run(back, "dispatch_alerts")
    assert len(deployment.receiver.requests) == 2
    assert moves(run(back, "hourly_pipeline", HOUR.key)).passed


def _with_url(deployment: Deployment, url: str) -> dict[str, Any]:
    (block,) = deployment.config.destinations
    said = {name: getattr(block, name) for name in block.model_fields_set}
    return {**said, "type": "webhook", "url": url}
