"""Landing as the UI shows it: dead letters by reason, and a replay that materializes the hours that it fills."""

from dataclasses import replace

import dagster as dg

from obs_assets_tests import harness
from obs_assets_tests.components.conftest import DAGSTER_WARNINGS, Deployment
from obs_assets_tests.frames import HOUR

pytestmark = DAGSTER_WARNINGS
FILES, LANDED = dg.AssetKey("event_files"), dg.AssetKey("landed_events")


def run(deployment: Deployment, job: str, **config: object) -> dg.ExecuteInProcessResult:
    found = deployment.definitions.resolve_job_def(job)
    return found.execute_in_process(
        instance=deployment.instance, run_config={"ops": config} if config else None
    )


def table(deployment: Deployment) -> str:
    """What stands under "open dead letters" on the newest observation of the files."""
    (record,) = deployment.instance.fetch_observations(FILES, limit=1).records
    assert record.asset_observation
    return str(record.asset_observation.metadata["open dead letters"].value)


def test_dead_letters_show_by_reason_until_they_are_replayed(deployment: Deployment) -> None:
    """All that are open, also those of earlier passes; a replay lands what it can, and its hours are materialized."""
    long = harness.at(HOUR, 7, {"id": "long", "text": "x" * 3000})
    harness.write_events(deployment.events_dir / "a.jsonl", [*harness.an_hour(), long])
    with (deployment.events_dir / "a.jsonl").open("a") as file:
        file.write("what?\nand what?\n")
    source = {"events_dir": str(deployment.events_dir), "max_event_bytes": 2048}
    small = replace(
        deployment, config=harness.everything_kept(deployment.events_dir, source=source)
    )
    assert run(small, "land_event_files").success
    (deployment.events_dir / "b.jsonl").write_text("no event\n")
    assert run(small, "land_event_files").success
    shown = table(small)
    assert "| `not_json` | 2 | " in shown
    assert "| `too_long` | 1 | " in shown
    assert shown.index("not_json") < shown.index("too_long")
    assert "what" not in shown

    result = run(deployment, "replay_dead_letters", replay={"config": {"reason": "too_long"}})
    (event,) = result.get_asset_materialization_events()
    assert event.asset_key == LANDED
    assert event.partition == HOUR.key
    assert event.materialization.metadata["events now"].value == 1
    version = deployment.hourly.landed().version(HOUR).landing
    assert version.startswith("3-")
    assert event.materialization.tags == {"dagster/data_version": version}
    assert "too_long" not in table(deployment)
    assert not run(deployment, "replay_dead_letters").get_asset_materialization_events()


def test_landing_says_what_it_noticed(deployment: Deployment) -> None:
    """Remarks, and files by name, on the files' observation; a pass of dead letters alone fails the pass's check."""
    deployment.events_dir.mkdir(exist_ok=True)
    (deployment.events_dir / "a.jsonl").write_text('{"n": 1}\n{"n": 2, "n": 3}\n')
    (deployment.events_dir / "b.jsonl").write_bytes(b"\xfd7zXZ\0")
    assert run(deployment, "land_event_files").success
    (record,) = deployment.instance.fetch_observations(FILES, limit=1).records
    assert record.asset_observation
    shown = record.asset_observation.metadata
    assert "| time_missing | 2 |" in str(shown["remarks"].value)
    assert "| duplicate_keys | 1 |" in str(shown["remarks"].value)
    assert "`b.jsonl`" in str(shown["files with warnings"].value)
    assert evaluation(deployment).passed
    (deployment.events_dir / "c.jsonl").write_text("no event\n" * 3)
    assert run(deployment, "land_event_files").success
    assert not evaluation(deployment).passed
    hourly = deployment.hourly
    assert hourly.landed().remarks == {"time_missing": 2, "duplicate_keys": 1}
    assert hourly.log.last_counts() == (1, 0)


def evaluation(deployment: Deployment) -> dg.AssetCheckEvaluation:
    """The newest evaluation of the check that each pass makes."""
    key = dg.AssetCheckKey(FILES, "dead_letter_share")
    (record,) = deployment.instance.event_log_storage.get_asset_check_execution_history(key, 1)
    assert record.event
    found = record.event.dagster_event
    assert found
    return found.asset_check_evaluation_data
