"""What the checks of an hour say, seen through Dagster on real servers."""

import contextlib
from dataclasses import replace

import dagster as dg
import pytest

from obs_assets.audit.review import review
from obs_assets.hourly.checks_config import ChecksConfig
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.hourly.stage_rows import STAGES
from obs_assets.hours import Hour
from obs_assets_tests import harness
from obs_assets_tests.components.conftest import DAGSTER_WARNINGS, Deployment
from obs_assets_tests.conftest import connect_postgres, connect_s3
from obs_assets_tests.detecting import only
from obs_assets_tests.frames import HOUR

pytestmark = DAGSTER_WARNINGS

HOURS = [HOUR]
for _ in range(8):
    HOURS.append(HOURS[-1].next)


def evaluations(
    result: dg.ExecuteInProcessResult, name: str
) -> dict[tuple[str, str | None], dg.AssetCheckEvaluation]:
    """Asset and hour → what the check of that name found."""
    found = [
        evaluation
        for evaluation in result.get_asset_check_evaluations()
        if evaluation.check_name == name
    ]
    return {(each.asset_key.to_user_string(), each.partition): each for each in found}


def test_each_hour_has_its_checks(deployment: Deployment) -> None:
    """In a range and alone: every check has an evaluation an hour with a sentence; good hours pass them all."""
    for hour in HOURS[:3]:
        harness.write_events(deployment.events_dir / "a.jsonl", harness.an_hour(hour))
    deployment.land()
    for first, last in ((HOURS[0], HOURS[1]), (HOURS[2], None)):
        result = deployment.materialize(first, last)
        found = [
            e for e in result.get_asset_check_evaluations() if e.check_name != "dispatches_move"
        ]
        hours = 1 if last is None else 2
        assert len(found) == hours * (len(STAGES) + 2 + 3 + 3 + 3)
        assert all(evaluation.passed and evaluation.description for evaluation in found)
        assert all(e.partition in {hour.key for hour in HOURS[:3]} for e in found)
    agree = evaluations(result, "destinations_agree")
    assert {asset: e.description for (asset, _), e in agree.items()} == {
        "postgres_events": "All 28 rows of sampled_events are in postgres_events.",
        "s3_archive": "All 28 rows of sampled_events are in s3_archive.",
        "webhook_alerts": ("All 5 rows of redacted_events that match are in webhook_alerts."),
    }


def test_an_odd_hour_is_told(deployment: Deployment) -> None:
    """Far more events, a new field, a changed type and unreadable lines: warnings, with what and where; all arrives."""
    for hour in HOURS[:8]:
        harness.write_events(deployment.events_dir / "a.jsonl", harness.an_hour(hour))
    deployment.land()
    assert deployment.materialize(HOURS[5], HOURS[7]).success

    odd = HOURS[8]
    more = [
        harness.at(
            odd, n, {"type": "task", "level": "info", "data": {"status": n}, "extra": ["x"]}
        )
        for n in range(99)
    ]
    for part in range(3):
        with (deployment.events_dir / "b.jsonl").open("a") as file:
            file.write("no JSON, by ana@example.com\n")
        harness.write_events(deployment.events_dir / "b.jsonl", more[part::3])
    harness.write_events(
        deployment.events_dir / "a.jsonl", harness.an_hour(odd.next)
    )  # which closes it
    deployment.land()
    result = deployment.materialize(odd)
    assert result.success
    warned = [e for e in result.get_asset_check_evaluations() if not e.passed]
    assert {(e.asset_key.to_user_string(), e.check_name) for e in warned} == {
        ("raw_events", "volume"),
        ("raw_events", "dead_letter_share"),
        ("redacted_events", "schema_drift"),
    }
    assert {e.severity for e in warned} == {dg.AssetCheckSeverity.WARN}
    said = {e.check_name: str(e.description) for e in warned}
    assert (
        "99 events, far more than usual: the median is 34 in the hours before" in said["volume"]
    )
    assert (
        "3 of 136 records of the landing passes of this hour (2.21%)"
        in said["dead_letter_share"]
    )
    assert said["schema_drift"].startswith(
        "2 fields are new and 1 field is of another type than before: extra, extra[]"
    )
    (drift,) = [e for e in warned if e.check_name == "schema_drift"]
    assert drift.metadata["new fields"].value == "extra (array), extra[] (string)"
    assert drift.metadata["changed fields"].value == "data.status (string → number)"
    assert not any("ana@example.com" in str(e) for e in result.get_asset_check_evaluations())


@pytest.mark.parametrize("enabled", [True, False])
def test_an_hour_that_lacks_an_event_is_red(deployment: Deployment, *, enabled: bool) -> None:
    """The redactor fails on 1 event of 35: an error, not a warning, even with ``checks: {enabled: false}``."""
    odd = {"name": "odd", "regex": "odd-[0-9]", "validator": f"{__name__}.broken"}
    deployment = replace(
        deployment,
        config=harness.everything_kept(
            deployment.events_dir, deployment.receiver.url, redact={"patterns": [odd]}
        ),
    )
    bad = harness.at(HOUR, 5, {"note": "odd-1 of ana@example.com"})
    harness.write_events(deployment.events_dir / "a.jsonl", [*harness.an_hour(), bad])
    deployment.land()
    result = deployment.materialize(HOUR)
    assert result.success
    (found,) = evaluations(result, "all_redacted").values()
    assert (found.passed, found.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert "1 of 35 events could not be redacted and reach no destination" in str(
        found.description
    )
    config = deployment.hourly.config.model_copy(
        update={"checks": ChecksConfig(enabled=enabled)}
    )
    hourly = HourlyPipeline(config, deployment.machine, deployment.hourly.name)
    receipt = hourly.store.read_receipt("redacted_events", HOUR)
    assert not review(hourly, "redacted_events", HOUR, receipt)["all_redacted"].passed
    assert not any("ana@example.com" in str(e) for e in result.get_asset_check_evaluations())


def broken(value: str) -> bool:
    """A validator of a user's that fails."""
    raise RuntimeError(f"{value} of ana@example.com")


def test_what_redaction_left_is_told(deployment: Deployment) -> None:
    """With type, path and number, as an error; not with a value, and not in the way of the hour."""
    harness.write_events(deployment.events_dir / "a.jsonl", harness.an_hour())
    deployment.land()
    with only():
        result = deployment.materialize(HOUR)
    assert result.success
    (found,) = evaluations(result, "redaction_leftovers").values()
    assert (found.passed, found.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert found.description == (
        "Independent rules find personal data in 34 redacted events: 20 email at data.note; "
        f"5 ip_address at error; 5 phone at data.owner. `obs scan {HOUR.key}` searches every event "
        "of the hour."
    )
    assert not any("example.com" in str(e) for e in result.get_asset_check_evaluations())


@pytest.mark.parametrize("store", ["postgres_events", "s3_archive", "webhook_alerts"])
def test_what_is_gone_from_a_store_is_told(deployment: Deployment, store: str) -> None:
    """`destinations_agree` counts what is there: a row, an object or a dispatch's row that somebody deleted."""
    harness.write_events(deployment.events_dir / "a.jsonl", harness.an_hour())
    hourly = deployment.hourly
    hourly.land()
    harness.build(hourly, HOUR)
    assert _agrees(deployment, store, HOUR)
    match store:
        case "postgres_events":
            _delete(
                deployment, "DELETE FROM events WHERE ctid = (SELECT ctid FROM events LIMIT 1)"
            )
        case "webhook_alerts":
            _delete(deployment, "DELETE FROM obs.webhook_rows")
        case _:
            assert deployment.machine.s3
            key = next(
                key for key in harness.objects(deployment.machine) if "_manifests" not in key
            )
            with contextlib.closing(connect_s3(deployment.machine.s3)) as client:
                client.delete_object(Bucket=deployment.machine.s3.bucket, Key=key)
    assert not _agrees(deployment, store, HOUR)


def _agrees(deployment: Deployment, store: str, hour: Hour) -> bool:
    receipt = deployment.hourly.store.read_receipt(store, hour)
    return review(deployment.hourly, store, hour, receipt)["destinations_agree"].passed


def _delete(deployment: Deployment, query: "str") -> None:
    assert deployment.machine.postgres
    with connect_postgres(deployment.machine.postgres) as connection:
        assert connection.execute(query.encode()).rowcount >= 1


def test_a_check_that_cannot_be_made_fails_no_hour(deployment: Deployment) -> None:
    """A destination that does not answer the question afterwards: the check says so, in a sentence."""
    harness.write_events(deployment.events_dir / "a.jsonl", harness.an_hour())
    hourly = deployment.hourly
    hourly.land()
    harness.build(hourly, HOUR)
    receipt = hourly.store.read_receipt("s3_archive", HOUR)
    hourly.store.receipt_path("sampled_events", HOUR).unlink()
    found = review(hourly, "s3_archive", HOUR, receipt)["destinations_agree"]
    assert not found.passed
    assert found.sentence.startswith("This could not be checked: sampled_events has no receipt")
