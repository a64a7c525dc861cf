"""Hours as Dagster builds them: whole, again, in ranges, and when one of them is bad."""

import json
import logging
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from psycopg import sql
from pydantic import SecretStr

from obs_assets.audit.review import RECEIPT_CHECK
from obs_assets.components import stages
from obs_assets.errors import PermanentError, TransientError
from obs_assets.hourly import hourly_pipeline as hourly
from obs_assets.hourly.stage_rows import STAGES
from obs_assets.hourly.stages import Stages
from obs_assets.hours import Hour
from obs_assets.receipts import Receipt
from obs_assets.settings import Settings
from obs_assets_tests import harness
from obs_assets_tests.components.conftest import DAGSTER_WARNINGS, Deployment
from obs_assets_tests.conftest import connect_postgres
from obs_assets_tests.frames import HOUR

pytestmark = DAGSTER_WARNINGS

DESTINATIONS = ("postgres_events", "s3_archive", "webhook_alerts")
ALL = (*STAGES, *DESTINATIONS)
HOURS = (HOUR, HOUR.next, HOUR.next.next)


def materialized(result: dg.ExecuteInProcessResult) -> dict[str, list[str]]:
    """Asset → the hours reported."""
    found: dict[str, list[str]] = {}
    for event in result.all_events:
        if event.is_step_materialization:
            assert event.asset_key
            found.setdefault(event.asset_key.to_user_string(), []).append(str(event.partition))
    return found


def metadata(result: dg.ExecuteInProcessResult, asset: str) -> Mapping[str, Any]:
    """What one asset's materialization says, as plain values."""
    (event,) = result.asset_materializations_for_node(asset)
    return {name: value.value for name, value in event.metadata.items()}


def failures(result: dg.ExecuteInProcessResult) -> dict[str, str]:
    """Failed step → what it says."""
    found = {}
    for event in result.all_events:
        if event.is_step_failure:
            error = event.step_failure_data.user_failure_data or event.step_failure_data.error
            found[str(event.step_key)] = str(
                getattr(error, "description", None) or getattr(error, "message", "")
            )
    return found


def checks(result: dg.ExecuteInProcessResult, asset: str) -> dict[str | None, bool]:
    """Hour → whether its receipt added up, by the check's evaluations."""
    found = [
        evaluation
        for evaluation in result.get_asset_check_evaluations()
        if evaluation.asset_key.path == [asset]
    ]
    return {e.partition: e.passed for e in found if e.check_name == RECEIPT_CHECK}


def rows(deployment: Deployment, hour: Hour) -> list[tuple[Any, ...]]:
    """An hour's rows, with when and where PostgreSQL wrote them."""
    query = "SELECT xmin::text, ctid::text, created_at, row_uid FROM events WHERE hour = %s ORDER BY row_uid"
    return harness.ask(deployment.machine.postgres, query, hour.start)


def test_an_hour_goes_from_files_to_all_destinations(deployment: Deployment) -> None:
    """Two commands, and the hour is in PostgreSQL, in S3 and at the webhook; `obs verify` agrees."""
    harness.write_events(deployment.events_dir / "a.jsonl", harness.an_hour())
    assert deployment.land().success
    result = deployment.materialize(HOUR)
    assert result.success
    assert materialized(result) == {asset: [HOUR.key] for asset in ALL}
    assert all(checks(result, asset) == {HOUR.key: True} for asset in ALL)
    assert harness.wrong(deployment.hourly) == []
    assert (
        len(rows(deployment, HOUR)) == 28
    )  # but for three heartbeats and three of level debug
    assert sorted(harness.objects(deployment.machine)) == [
        "cortex-events/_manifests/2025120410.json",
        "cortex-events/year=2025/month=12/day=04/hour=10/events-2025120410.jsonl.gz",
    ]
    (alert,) = deployment.receiver.requests
    assert [event["id"] for event in json.loads(alert.body)["events"]] == [
        f"err-{number}" for number in range(5)
    ]


def test_landing_reports_each_hour_that_it_touched(deployment: Deployment) -> None:
    """An observation and a materialization an hour, the landing generation as data version; none when nothing came."""
    harness.write_events(
        deployment.events_dir / "a.jsonl", harness.an_hour() + harness.an_hour(HOUR.next)
    )
    result = deployment.land()
    kinds = ("ASSET_OBSERVATION", "ASSET_MATERIALIZATION")
    seen = [event for event in result.all_events if event.event_type_value in kinds]
    assert [
        (event.asset_key.to_user_string(), event.partition) for event in seen if event.asset_key
    ] == [
        ("event_files", None),
        ("landed_events", HOUR.key),
        ("landed_events", HOUR.key),
        ("landed_events", HOUR.next.key),
        ("landed_events", HOUR.next.key),
    ]
    latest = deployment.instance.get_latest_materialization_event(dg.AssetKey("landed_events"))
    assert latest
    assert latest.asset_materialization
    version = deployment.hourly.landed().version(HOUR).landing
    assert version.startswith("1-")
    assert latest.asset_materialization.tags == {"dagster/data_version": version}
    assert latest.asset_materialization.metadata["dagster/partition_row_count"].value == 34
    again = [event for event in deployment.land().all_events if event.event_type_value in kinds]
    assert [event.partition for event in again] == [None]


def test_the_same_hour_again_changes_nothing(deployment: Deployment) -> None:
    """No row is written again, the one object stays the same version of itself, nobody is alerted twice."""
    harness.write_events(deployment.events_dir / "a.jsonl", harness.an_hour())
    deployment.land()
    deployment.materialize(HOUR)
    before = (
        harness.snapshot(deployment.hourly, deployment.receiver.requests),
        rows(deployment, HOUR),
    )
    assert deployment.materialize(HOUR).success
    again = deployment.materialize(HOUR)
    assert again.success
    assert (
        harness.snapshot(deployment.hourly, deployment.receiver.requests),
        rows(deployment, HOUR),
    ) == before
    assert len(deployment.receiver.requests) == 1
    for name, held in {"postgres_events": 28, "s3_archive": 28, "webhook_alerts": 5}.items():
        shown = metadata(again, name)
        assert "kept" not in shown, "0 kept reads like loss"
        assert [shown[figure] for figure in ("held", "written", "unchanged")] == [held, 0, held]
        assert shown["dagster/partition_row_count"] == held
        assert f"| held | {held} |\n| written | 0 |\n| unchanged | {held} |" in shown["receipt"]


def test_an_hour_in_which_nothing_happened_is_built(deployment: Deployment) -> None:
    """Empty is a result: the hour is whole everywhere, and holds nothing."""
    harness.write_events(deployment.events_dir / "a.jsonl", harness.an_hour())
    deployment.land()
    result = deployment.materialize(HOUR.next)
    assert result.success
    assert "nothing has landed for this hour" in metadata(result, "s3_archive")["receipt"]
    assert metadata(result, "redacted_events")["events by minute"] == "no events"
    assert harness.wrong(deployment.hourly, HOUR.next) == []
    assert rows(deployment, HOUR.next) == []
    assert deployment.receiver.requests == []


def test_a_range_is_one_run_that_reports_each_hour(deployment: Deployment) -> None:
    """Every hour of a range has its own materialization, receipt and check."""
    for hour in HOURS:
        harness.write_events(deployment.events_dir / "a.jsonl", harness.an_hour(hour))
    deployment.land()
    result = deployment.materialize(HOURS[0], HOURS[-1])
    assert result.success
    keys = [hour.key for hour in HOURS]
    assert {
        asset: sorted(found) for asset, found in materialized(result).items()
    } == dict.fromkeys(ALL, keys)
    for asset in ALL:
        assert checks(result, asset) == dict.fromkeys(keys, True)
    counted = {
        event.partition: event.metadata["dagster/partition_row_count"].value
        for event in result.asset_materializations_for_node("postgres_events")
    }
    assert counted == dict.fromkeys(keys, 28)
    for hour in HOURS:
        assert harness.wrong(deployment.hourly, hour) == []
        assert len(rows(deployment, hour)) == 28
    assert len(deployment.receiver.requests) == 3


def test_a_late_event_changes_its_hour_alone(deployment: Deployment) -> None:
    """A run over both hours writes the one that got an event, and leaves the other's rows and object untouched."""
    file = harness.write_events(
        deployment.events_dir / "a.jsonl", harness.an_hour() + harness.an_hour(HOUR.next)
    )
    deployment.land()
    deployment.materialize(HOUR, HOUR.next)
    before = {hour: rows(deployment, hour) for hour in HOURS[:2]}
    objects = harness.objects(deployment.machine)
    late = harness.at(
        HOUR, 3599, {"id": "late", "type": "task_failed", "level": "error", "error": "too late"}
    )
    harness.write_events(file, [late])

    deployment.land()
    assert deployment.materialize(HOUR, HOUR.next).success
    assert rows(deployment, HOUR.next) == before[HOUR.next]
    assert len(rows(deployment, HOUR)) == len(before[HOUR]) + 1
    now = harness.objects(deployment.machine)
    assert sorted(key for key in now if now[key] != objects.get(key)) == [
        "cortex-events/_manifests/2025120410.json",
        "cortex-events/year=2025/month=12/day=04/hour=10/events-2025120410.jsonl.gz",
    ]
    (alert,) = deployment.receiver.requests[2:]
    assert [event["id"] for event in json.loads(alert.body)["events"]] == ["late"]
    assert harness.wrong(deployment.hourly) == []


def test_one_bad_hour_does_not_take_the_range_down(deployment: Deployment) -> None:
    """The others are whole at every destination; the bad one is nowhere, and the red run names it and why."""
    for hour in HOURS:
        harness.write_events(deployment.events_dir / "a.jsonl", harness.an_hour(hour))
    deployment.land()
    for chunk in deployment.hourly.log.chunk_paths(deployment.hourly.landed().hour(HOUR.next)):
        chunk.unlink()

    result = deployment.materialize(HOURS[0], HOURS[-1])
    assert not result.success
    said = failures(result)
    assert sorted(said) == sorted(DESTINATIONS)
    assert all(f"1 of 3 hours failed: {HOUR.next}" in text for text in said.values())
    good = [HOURS[0].key, HOURS[2].key]
    for name in DESTINATIONS:
        assert sorted(materialized(result)[name]) == good
        assert all(
            event.metadata["taken"] for event in result.asset_materializations_for_node(name)
        )
    for hour in (HOURS[0], HOURS[2]):
        assert harness.wrong(deployment.hourly, hour) == []
    assert rows(deployment, HOUR.next) == []
    assert not any("2025120411" in key for key in harness.objects(deployment.machine))
    held = {
        event.partition: event for event in result.asset_materializations_for_node("raw_events")
    }[HOUR.next.key]
    assert "2025120411-0.parquet" in str(held.metadata["held back"].value)
    for asset in ALL:
        assert checks(result, asset) == {
            HOURS[0].key: True,
            HOUR.next.key: False,
            HOURS[2].key: True,
        }


def test_a_bad_hour_alone_fails_in_one_sentence(deployment: Deployment) -> None:
    """A run of one hour fails where the trouble is, says what it is, and nothing after that runs."""
    harness.write_events(deployment.events_dir / "a.jsonl", harness.an_hour())
    deployment.land()
    for chunk in deployment.hourly.log.chunk_paths(deployment.hourly.landed().hour(HOUR)):
        chunk.unlink()
    result = deployment.materialize(HOUR)
    (said,) = failures(result).items()
    assert said[0] == "raw_events"
    assert HOUR.key in said[1]
    assert "\n" not in said[1]
    assert materialized(result) == {}


@pytest.fixture
def unbalanced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Enrichment loses a row in the second hour's count."""

    def miscount(self: Stages, connection: Any, stage: str, given: Any) -> dict[Hour, Receipt]:
        receipts = build(self, connection, stage, given)
        if stage == "enriched_events" and (receipt := receipts.get(HOUR.next)):
            receipts[HOUR.next] = replace(receipt, kept=receipt.kept - 1)
        return receipts

    build: Any = Stages.build
    monkeypatch.setattr(Stages, "build", miscount)


@pytest.mark.usefixtures("unbalanced")
def test_a_receipt_that_does_not_add_up_blocks(deployment: Deployment) -> None:
    """The check fails, nothing after the stage runs, and nothing of the hour reaches a destination."""
    harness.write_events(deployment.events_dir / "a.jsonl", harness.an_hour(HOUR.next))
    deployment.land()
    result = deployment.materialize(HOUR.next)
    assert not result.success
    assert checks(result, "enriched_events") == {HOUR.next.key: False}
    assert sorted(materialized(result)) == ["enriched_events", "raw_events"]
    assert "1 unaccounted for" in metadata(result, "enriched_events")["receipt"]
    assert harness.ask(deployment.machine.postgres, "SELECT 1 FROM events") == []
    assert harness.objects(deployment.machine) == {}
    assert deployment.receiver.requests == []


@pytest.mark.usefixtures("unbalanced")
def test_a_receipt_that_does_not_add_up_holds_back_its_hour_in_a_range(
    deployment: Deployment,
) -> None:
    """The same in a range: that hour stops there and is named, the others arrive."""
    for hour in HOURS:
        harness.write_events(deployment.events_dir / "a.jsonl", harness.an_hour(hour))
    deployment.land()
    result = deployment.materialize(HOURS[0], HOURS[-1])
    assert not result.success
    assert checks(result, "raw_events") == dict.fromkeys([hour.key for hour in HOURS], True)
    assert checks(result, "enriched_events") == {
        HOURS[0].key: True,
        HOUR.next.key: False,
        HOURS[2].key: True,
    }
    assert all(HOUR.next.key in text for text in failures(result).values())
    held = {
        event.partition: event
        for event in result.asset_materializations_for_node("enriched_events")
    }
    assert "leave 1 unaccounted for" in str(held[HOUR.next.key].metadata["held back"].value)
    assert rows(deployment, HOUR.next) == []
    assert len(rows(deployment, HOURS[2])) == 28


def test_a_destination_that_fails_for_a_moment_is_tried_again(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What may succeed later is repeated within the run; what will not is not."""

    def deliver(
        self: hourly.HourlyPipeline, name: str, *arguments: Any, **options: Any
    ) -> Receipt:
        calls.append(name)
        if name == "postgres_events" and calls.count(name) == 1:
            raise TransientError("the server is starting")
        if name == "s3_archive":
            raise PermanentError("the server refused")
        return really(self, name, *arguments, **options)

    calls: list[str] = []
    really = hourly.HourlyPipeline.deliver
    monkeypatch.setattr(hourly.HourlyPipeline, "deliver", deliver)
    monkeypatch.setattr(stages, "RETRY", dg.RetryPolicy(max_retries=2))
    harness.write_events(deployment.events_dir / "a.jsonl", harness.an_hour())
    deployment.land()
    result = deployment.materialize(HOUR)
    assert failures(result) == {"s3_archive": "the server refused"}
    assert sorted(calls) == [
        "postgres_events",
        "postgres_events",
        "s3_archive",
        "webhook_alerts",
    ]
    assert len(rows(deployment, HOUR)) == 28


def test_what_landing_passed_over_is_said(deployment: Deployment) -> None:
    """A file that cannot be read does not stop the others, and a warning names the setting."""
    file = harness.write_events(deployment.events_dir / "a.jsonl", harness.an_hour())
    (file.parent / "broken.jsonl.gz").write_bytes(b"\x1f\x8bthis is not gzip")
    result = deployment.land()
    assert result.success
    said = [entry.user_message for entry in deployment.instance.all_logs(result.run_id)]
    (warning,) = [text for text in said if "passed over" in text]
    assert str(deployment.events_dir) in warning
    assert "OBS_EVENTS_DIR" in warning


def test_receipts_are_metadata(deployment: Deployment) -> None:
    """What was taken, kept and set aside, by reason, with bytes and seconds, stands on each materialization."""
    harness.write_events(deployment.events_dir / "a.jsonl", harness.an_hour())
    deployment.land()
    result = deployment.materialize(HOUR)
    for asset in ALL:
        said = metadata(result, asset)
        passed_on = said["kept"] if asset in STAGES else said["held"]
        assert said["taken"] == passed_on + said["set aside"]
        assert said["dagster/partition_row_count"] == passed_on
        assert said["landing generation"] == 1
        assert {
            "seconds",
            "bytes",
            "events per second",
            "input version",
            "content hash",
        } <= said.keys()
    assert "| filtered:low_value | 3 |" in metadata(result, "sampled_events")["receipt"]
    assert "| filtered:level | 3 |" in metadata(result, "sampled_events")["receipt"]
    assert "| email | 20 |" in metadata(result, "redacted_events")["redacted values"]
    assert "total_events_sent" in metadata(result, "webhook_alerts")["figures"]
    assert metadata(result, "postgres_events")["explorer"] == (
        "http://127.0.0.1:3001/?from=2025-12-04T10:00:00Z&to=2025-12-04T11:00:00Z"
    )
    assert "explorer" not in metadata(result, "s3_archive")


# -- nothing personal, no secret ---------------------------------------------------------------------------------------

CANARY = "CANARY_9f3c1e"
TRACE = CANARY[:8]
"""What is left of it in a message that was cut."""


@pytest.fixture
def secretive(
    settings: Settings, postgres_admin: "psycopg.Connection[tuple[object]]"
) -> Iterator[Settings]:
    """Settings in which every secret holds the canary, the password of PostgreSQL included."""
    assert settings.postgres
    role = f"canary_{secrets.token_hex(4)}"
    postgres_admin.execute(
        sql.SQL("CREATE ROLE {} SUPERUSER LOGIN PASSWORD {}").format(
            sql.Identifier(role), sql.Literal(CANARY)
        )
    )
    server = settings.postgres.model_copy(update={"user": role, "password": SecretStr(CANARY)})
    webhook = settings.webhook.model_copy(
        update={
            name: SecretStr(f"{name}{CANARY}")
            for name in ("auth_token", "api_key", "hmac_secret")
        }
    )
    yield settings.model_copy(
        update={"postgres": server, "webhook": webhook, "hash_key": SecretStr(CANARY)}
    )
    with connect_postgres(settings.postgres) as connection:
        connection.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(role)))
    postgres_admin.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


WATCHING: dict[str, Any] = {
    "type": "webhook",
    "max_retries": 1,
    "max_age_hours": None,
    "allow_hosts": ["127.0.0.1"],
    "headers": {"X-Key": CANARY},
    "rules": [
        {"levels": ["error"]},
        {"name": "mail", "where": ["data exists"], "above": 0, "by": ["data"]},
    ],
}
RECEIVERS: list[dict[str, Any]] = [
    {"auth_type": "basic", "username": CANARY, "password": CANARY},
    {"name": "pages", "receiver": "pagerduty", "routing_key": CANARY},
]
"""Alerts that measure and alerts that forward, an alert for each value of a field that is personal."""


def kept_of_alerts(settings: Settings) -> str:
    """All that the outbox keeps, but for the bodies that are sent."""
    tables = [
        "alert_evaluations",
        "alert_states",
        "alert_notices",
        "webhook_endpoints",
        "webhook_rows",
        "migrations",
    ]
    texts = [
        row
        for name in tables
        for row in harness.ask(settings.postgres, f"SELECT t::text FROM obs.{name} AS t")
    ]  # type: ignore[arg-type]
    columns = "webhook_id, destination, rule, state, last_error, subject"
    return str(texts) + str(
        harness.ask(settings.postgres, f"SELECT {columns} FROM obs.webhook_dispatches")
    )


@pytest.mark.slow
@pytest.mark.parametrize("trouble", ["chunk", "line", "postgres", "s3", "webhook", "frame"])
def test_no_event_and_no_secret_is_shown(  # noqa: PLR0917 (fixtures)
    trouble: str,
    deployment: Deployment,
    secretive: Settings,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Whatever happens, neither what Dagster keeps nor what is logged or printed holds a value, a key or a secret."""
    caplog.set_level(logging.DEBUG)
    events: list[dict[str, Any]] = [
        harness.at(
            HOUR,
            1,
            {"level": "error", "type": CANARY, "error": CANARY, CANARY: {"deep": [CANARY]}},
        ),
        harness.at(
            HOUR,
            2,
            {
                "level": "info",
                "data": f"{CANARY}@example.com",
                "duration_ms": CANARY,
                "id": CANARY,
            },
        ),
        {"timestamp": CANARY, "level": CANARY},
    ]
    file = harness.write_events(deployment.events_dir / "a.jsonl", events)
    with file.open("a") as more:
        more.write(
            f'{{"broken": "{CANARY}\n{CANARY}\n{{"timestamp": "2025-12-04T10:00:03Z", "n": 1e999, "s": "{CANARY}"}}\n'
        )
    url = (
        f"{deployment.receiver.url}/{CANARY}"
        if trouble != "webhook"
        else f"http://127.0.0.1:1/{CANARY}"
    )
    config = harness.everything_kept(
        deployment.events_dir,
        redact={"mode": "hash"},
        destinations=[
            {"type": "postgres"},
            {"type": "s3"},
            *(WATCHING | some | {"url": url} for some in RECEIVERS),
        ],
    )
    if trouble == "postgres":
        assert secretive.postgres
        bad = secretive.postgres.model_copy(update={"password": SecretStr(CANARY + "wrong")})
        secretive = secretive.model_copy(update={"postgres": bad})
    if trouble == "s3":
        assert secretive.s3
        bad_bucket = secretive.s3.model_copy(update={"secret_access_key": SecretStr(CANARY)})
        secretive = secretive.model_copy(update={"s3": bad_bucket})

    home = tmp_path / "dagster"
    home.mkdir()
    with dg.DagsterInstance.local_temp(str(home)) as instance:
        hidden = replace(deployment, config=config, machine=secretive, instance=instance)
        assert hidden.land().success
        if trouble == "chunk":
            for chunk in hidden.hourly.log.chunk_paths(hidden.hourly.landed().hour(HOUR)):
                chunk.write_bytes(CANARY.encode())
        if trouble == "line":  # DuckDB's own words would quote it
            for chunk in hidden.hourly.log.chunk_paths(hidden.hourly.landed().hour(HOUR)):
                lines = pq.read_table(chunk)
                broken = pa.array(
                    [f"no JSON: {CANARY}"] * len(lines), lines.schema.field("line").type
                )
                pq.write_table(
                    lines.set_column(lines.schema.get_field_index("line"), "line", broken),
                    chunk,
                )
        if trouble == "frame":
            for stage in STAGES[:3]:
                hidden.hourly.build(stage, HOUR)
            hidden.hourly.store.frame_path("redacted_events", HOUR).write_bytes(CANARY.encode())
        result = hidden.materialize(HOUR, only="sampled_events" if trouble == "frame" else None)
        assert result.success == (trouble == "webhook")
    out, err = capfd.readouterr()
    for said in (out, err, caplog.text):
        assert TRACE not in said
    kept = {str(path): path.read_bytes() for path in home.rglob("*") if path.is_file()}
    assert sum(map(len, kept.values())) > 100_000
    assert [name for name, data in kept.items() if TRACE.encode() in data] == []
    if trouble in {"webhook", "s3"}:
        kept_alerts = kept_of_alerts(deployment.machine)
        assert TRACE not in kept_alerts
        assert "mail" in kept_alerts
